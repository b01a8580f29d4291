//! One connection of a chat: join, send again what waits, then whatever comes
//! first of an answer, a line of input, or the end.

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};

use super::feed::{Feed, Step};
use super::input::Line;
use super::outbox::{Outbox, Waiting};
use super::renewal::Renewal;
use crate::cli::env::Env;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::render::{message_json, message_text};
use crate::cli::target::Target;
use crate::cli::text::{time, word};
use crate::proto::chat::v1::{
    ChatRequest, ChatResponse, Failed, Joined, Notice, NoticeKind, Reauthenticate, Send, Sent,
    chat_request, chat_response,
};

/// Room for a join and everything that may wait in the outbox: a frame is never
/// refused for want of a place.
const FRAMES: usize = 256;

/// A chat over its connections.
#[derive(Debug)]
pub(super) struct Session<'a> {
    pub(super) env: &'a Env,
    pub(super) room: String,
    pub(super) feed: Feed,
    pub(super) outbox: Outbox,
    /// Lines of input; none when it is not looked at or has ended.
    pub(super) input: Option<mpsc::Receiver<Line>>,
    pub(super) interactive: bool,
    /// The worst answer to a message so far.
    pub(super) worst: Exit,
    /// Whether the node said anything since the last look.
    pub(super) progressed: bool,
}

/// How a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// Everything is done.
    Done,
    /// Another connection may go on.
    Lost(Failure),
}

/// What one frame of the node means for the connection.
enum Flow {
    Go,
    Done,
    Lost(Failure),
}

impl Session<'_> {
    /// Runs one connection. An error is final.
    pub(super) async fn run(&mut self) -> Result<End, Failure> {
        match self.converse().await {
            Ok(end) => Ok(end),
            Err(failure) if is_lost(&failure) => Ok(End::Lost(failure)),
            Err(failure) => Err(failure),
        }
    }

    async fn converse(&mut self) -> Result<End, Failure> {
        let target = Target::resolve(&self.env.global)?;
        let token = target.credential.token()?;
        let client = target.connect_with(token.as_ref()).await?;
        let mut renewal = Renewal::new(target.credential, token.as_ref());
        let (frames, outgoing) = mpsc::channel(FRAMES);
        put(&frames, chat_request::Frame::Join(self.feed.join(&self.room)))?;
        let request = Request::new(ReceiverStream::new(outgoing));
        let mut stream = client.chat().chat(request).await?.into_inner();
        self.wait_for_join(&mut stream).await?;
        for message in self.outbox.waiting() {
            put(&frames, send(&self.room, message))?;
        }
        loop {
            if self.is_finished() {
                return Ok(End::Done);
            }
            let takes_input = self.input.is_some() && !self.outbox.is_full();
            tokio::select! {
                frame = stream.message() => match self.frame(frame?)? {
                    Flow::Go => {}
                    Flow::Done => return Ok(End::Done),
                    Flow::Lost(why) => return Ok(End::Lost(why)),
                },
                token = renewal.fresh() => put(&frames, reauthenticate(&token))?,
                line = next_line(&mut self.input), if takes_input => match line {
                    None => self.input = None,
                    Some(Err(why)) => self.refuse(&why),
                    Some(Ok(line)) if line.is_empty() => {}
                    Some(Ok(line)) if self.interactive && line == "/quit" => self.input = None,
                    Some(Ok(line)) => {
                        let message = self.outbox.push(line);
                        put(&frames, send(&self.room, &message))?;
                    }
                },
            }
        }
    }

    /// The first frame of the node answers the join. A room that may not be
    /// joined is final.
    async fn wait_for_join(&mut self, stream: &mut Streaming<ChatResponse>) -> Result<(), Failure> {
        while let Some(response) = stream.message().await? {
            match response.frame {
                Some(chat_response::Frame::Joined(joined)) => {
                    self.progressed = true;
                    return self.joined(&joined);
                }
                Some(chat_response::Frame::Failed(failed)) => return Err(failure_of(&failed)),
                Some(chat_response::Frame::Notice(notice)) => self.notice(&notice)?,
                _ => {}
            }
        }
        Err(Status::unavailable("the node ended the stream").into())
    }

    fn joined(&mut self, joined: &Joined) -> Result<(), Failure> {
        self.feed.joined(joined);
        if self.interactive {
            self.tell("JOINED", &format!("{}, newest message {}", joined.room_id, joined.head))?;
        }
        Ok(())
    }

    fn frame(&mut self, response: Option<ChatResponse>) -> Result<Flow, Failure> {
        let Some(response) = response else {
            let why = Status::unavailable("the node ended the stream");
            return Ok(Flow::Lost(why.into()));
        };
        self.progressed = true;
        match response.frame {
            Some(chat_response::Frame::Message(message)) => {
                let step = self.feed.entry(&message);
                // A person has seen what was typed; everybody else sees it in order.
                let echo = self.interactive && self.outbox.is_ours(&message.client_message_id);
                if step != Step::Skip && !echo {
                    let text = || message_text(&message);
                    self.env.output.say(&message_json(&message), text)?;
                }
                if step == Step::ShowLast {
                    return Ok(Flow::Done);
                }
            }
            Some(chat_response::Frame::Sent(sent)) => self.sent(&sent)?,
            Some(chat_response::Frame::Failed(failed)) => return self.failed(&failed),
            Some(chat_response::Frame::Notice(notice)) => {
                self.notice(&notice)?;
                if notice.kind() == NoticeKind::Draining {
                    let why = Status::unavailable("the node is stopping");
                    return Ok(Flow::Lost(why.into()));
                }
            }
            Some(chat_response::Frame::Joined(_) | chat_response::Frame::Pong(_)) | None => {}
        }
        Ok(Flow::Go)
    }

    fn sent(&mut self, sent: &Sent) -> Result<(), Failure> {
        if !self.outbox.answered(&sent.client_message_id) {
            return Ok(());
        }
        let at = time(sent.committed_at.as_ref());
        if self.env.output.is_json() {
            let line = serde_json::json!({
                "type": "sent", "room_id": sent.room_id, "seq": sent.seq, "committed_at": at,
                "client_message_id": sent.client_message_id, "redactions": sent.redactions,
            });
            return self.env.output.raw(&line.to_string());
        }
        if sent.redactions > 0 {
            self.tell("REDACTED", &format!("{} card number(s) in {}", sent.redactions, sent.seq))?;
        }
        if self.interactive {
            return Ok(());
        }
        self.env.output.raw(&format!("{at}  {:>4}  sent", sent.seq))
    }

    /// A refused message is told and counted; the others go on. One that was
    /// refused for a passing reason stays in the outbox and is sent again on a
    /// new connection.
    fn failed(&mut self, failed: &Failed) -> Result<Flow, Failure> {
        let failure = failure_of(failed);
        if failed.client_message_id.is_empty() {
            return Err(failure);
        }
        if failure.exit() == Exit::Unavailable {
            return Ok(Flow::Lost(failure));
        }
        if self.outbox.answered(&failed.client_message_id) {
            self.refuse(&failure);
        }
        Ok(Flow::Go)
    }

    /// Tells why one message is not sent; the others are.
    fn refuse(&mut self, why: &Failure) {
        self.worst = self.worst.max(why.exit());
        if let Some(text) = why.render(self.env.output.is_json()) {
            crate::cli::output::complain(&text);
        }
    }

    fn notice(&self, notice: &Notice) -> Result<(), Failure> {
        self.tell(word(notice.kind().as_str_name(), "NOTICE_KIND_"), &notice.text)
    }

    pub(super) fn tell(&self, kind: &str, text: &str) -> Result<(), Failure> {
        super::tell(self.env, kind, &self.room, text)
    }

    /// Whether the input has ended and everything in it was answered. A chat
    /// that only reads has no input to end.
    fn is_finished(&self) -> bool {
        !self.feed.reads_only() && self.input.is_none() && self.outbox.is_empty()
    }

    /// The failure to end with when nobody comes back. Messages under way may
    /// have been written: that is not known.
    pub(super) fn give_up(&self, why: Failure) -> Failure {
        if self.outbox.is_empty() {
            return why;
        }
        let waiting = self.outbox.len();
        why.with_exit(Exit::Unknown).hint(format!("{waiting} message(s) were not acknowledged"))
    }
}

async fn next_line(input: &mut Option<mpsc::Receiver<Line>>) -> Option<Line> {
    match input {
        Some(input) => input.recv().await,
        None => std::future::pending().await,
    }
}

fn put(frames: &mpsc::Sender<ChatRequest>, frame: chat_request::Frame) -> Result<(), Failure> {
    frames
        .try_send(ChatRequest { frame: Some(frame) })
        .map_err(|_| Status::unavailable("the connection takes no more").into())
}

fn reauthenticate(token: &SecretString) -> chat_request::Frame {
    let token = token.expose_secret().trim().to_owned();
    chat_request::Frame::Reauthenticate(Reauthenticate { token })
}

fn send(room: &str, message: &Waiting) -> chat_request::Frame {
    chat_request::Frame::Send(Send {
        room_id: room.to_owned(),
        client_message_id: message.id.clone(),
        body: message.body.clone(),
        reply_to: 0,
    })
}

/// The failure that a unary call would have had.
fn failure_of(failed: &Failed) -> Failure {
    use prost::Message;
    let status = tonic_types::Status {
        code: failed.code,
        message: failed.message.clone(),
        details: failed.details.clone(),
    };
    let details = status.encode_to_vec().into();
    Failure::from(Status::with_details(Code::from(failed.code), failed.message.clone(), details))
}

/// Whether another connection may get further. An expired token is read or
/// signed afresh with it.
fn is_lost(failure: &Failure) -> bool {
    match failure.code() {
        Some(Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal) => true,
        Some(Code::Unauthenticated) => failure.reason() == Some("TOKEN_EXPIRED"),
        Some(_) => false,
        None => failure.exit() == Exit::Unavailable && !failure.is_ours(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::{Reason, Refusal};

    #[test]
    fn a_failed_frame_is_the_failure_of_a_unary_call() {
        let refusal: Status = Refusal::new(Reason::KeyReused, "used before").into();
        let encoded: tonic_types::Status =
            prost::Message::decode(refusal.details()).expect("details");
        let failed = Failed {
            code: refusal.code().into(),
            message: refusal.message().into(),
            details: encoded.details,
            ..Failed::default()
        };
        let failure = failure_of(&failed);
        assert_eq!((failure.exit(), failure.reason()), (Exit::Refused, Some("KEY_REUSED")));
        assert_eq!(failure.message(), "used before");
    }

    #[test]
    fn what_another_connection_cannot_mend_is_final() {
        let lost = |status: Status| is_lost(&status.into());
        assert!(lost(Status::unavailable("x")));
        assert!(lost(Refusal::new(Reason::TokenExpired, "x").into()));
        assert!(!lost(Refusal::new(Reason::TokenInvalid, "x").into()));
        assert!(!lost(Status::not_found("x")));
        assert!(!lost(Status::permission_denied("x")));
        assert!(is_lost(&Failure::unavailable("nobody listens")));
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert!(!is_lost(&Failure::from(full)), "our own output is no matter of the node");
    }
}
