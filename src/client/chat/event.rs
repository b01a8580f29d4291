//! What a chat tells its caller.

use std::sync::Arc;

use tonic::{Code, Status};

use crate::client::dial::DialError;
use crate::proto::chat::v1::{Failed, Joined, Message, Notice, Sent};

/// Where reading of a room begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// With the first entry.
    Earliest,
    /// With what comes.
    Latest,
    /// After this seq.
    Cursor(u64),
    /// With so many entries before what comes, 1 to 10000.
    Last(u32),
}

/// Something happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A stream stands where there was none.
    Connected {
        /// The node, `host:port`.
        server: String,
    },
    /// A room is joined; its entries follow.
    Joined {
        /// As the node said it.
        joined: Joined,
        /// Whether it had been joined before: after a lost stream.
        again: bool,
    },
    /// The next entry of a room: each once, in order.
    Message(Message),
    /// A message is durable: told once.
    Sent(Sent),
    /// A message was refused for good, told once; or, without a message's id,
    /// something else about the stream was.
    Failed(Failed),
    /// A room cannot be read for a reason that may pass, told once until it is
    /// joined: it is asked for again and again.
    Waiting(Failed),
    /// A room may not be read, or no more, or could not be for too long: it is left.
    Refused(Failed),
    /// What the node says about the stream or a room, moves excepted.
    Notice(Notice),
    /// The chat went to another node without a pause.
    Moved {
        /// The node, `host:port`.
        server: String,
    },
    /// No stream stands; another one is tried. Nothing is lost.
    Lost(Why),
    /// It is over: nobody came back in time, or nobody will.
    Ended {
        /// Why the last stream ended.
        why: Why,
        /// Messages that were not answered: they may have been written.
        unanswered: usize,
    },
}

/// Why there is no stream.
#[derive(Debug, Clone)]
pub enum Why {
    /// The node said so, or the transport.
    Status(Status),
    /// No connection came about.
    Dial(DialError),
    /// What opens streams could not.
    Local(Arc<dyn std::error::Error + Send + Sync>),
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Why::Status(status) => f.write_str(status.message()),
            Why::Dial(error) => error.fmt(f),
            Why::Local(error) => error.fmt(f),
        }
    }
}

/// The status that a unary call would have had.
pub fn status_of(failed: &Failed) -> Status {
    use prost::Message;
    let status = tonic_types::Status {
        code: failed.code,
        message: failed.message.clone(),
        details: failed.details.clone(),
    };
    let details = status.encode_to_vec().into();
    Status::with_details(Code::from(failed.code), failed.message.clone(), details)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::{Reason, Refusal};

    #[test]
    fn a_failed_frame_is_the_status_of_a_unary_call() {
        use tonic_types::StatusExt;
        let refusal: Status = Refusal::new(Reason::KeyReused, "used before").into();
        let encoded: tonic_types::Status =
            prost::Message::decode(refusal.details()).expect("details");
        let failed = Failed {
            code: refusal.code().into(),
            message: refusal.message().into(),
            details: encoded.details,
            ..Failed::default()
        };
        let status = status_of(&failed);
        let info = status.get_details_error_info().expect("a reason");
        assert_eq!((status.code(), info.reason.as_str()), (Code::AlreadyExists, "KEY_REUSED"));
        assert_eq!(status.message(), "used before");
    }
}
