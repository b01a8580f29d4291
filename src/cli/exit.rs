//! Exit codes by class, in one place: scripts tell a refusal from an outage by
//! the number alone.

use std::process::ExitCode;

use tonic::Code;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Done.
    Done,
    /// The node understood and refused: declined, not found, wrong state.
    Refused,
    /// The command line, a field or the configuration is wrong.
    Usage,
    /// No node, no connection, or a node that cannot serve now.
    Unavailable,
    /// It may have happened or may still happen: ask again.
    Unknown,
    /// Not proven or not allowed.
    Permission,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Refused => 1,
            Exit::Usage => 64,
            Exit::Unavailable => 69,
            Exit::Unknown => 75,
            Exit::Permission => 77,
        }
    }

    /// The class of a status. A fault of the node counts as unavailable: the
    /// request was neither refused nor done as far as the caller knows.
    pub fn of(code: Code) -> Self {
        match code {
            Code::Ok => Exit::Done,
            Code::InvalidArgument => Exit::Usage,
            Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange => Exit::Refused,
            Code::Unauthenticated | Code::PermissionDenied => Exit::Permission,
            Code::DeadlineExceeded | Code::Cancelled => Exit::Unknown,
            Code::Unavailable
            | Code::ResourceExhausted
            | Code::Unimplemented
            | Code::Unknown
            | Code::Internal
            | Code::DataLoss => Exit::Unavailable,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_its_number() {
        let all = [
            Exit::Done,
            Exit::Refused,
            Exit::Usage,
            Exit::Unavailable,
            Exit::Unknown,
            Exit::Permission,
        ];
        assert_eq!(all.map(Exit::code), [0, 1, 64, 69, 75, 77]);
    }

    #[test]
    fn codes_fall_into_their_classes() {
        for (code, exit) in [
            (Code::Ok, Exit::Done),
            (Code::InvalidArgument, Exit::Usage),
            (Code::NotFound, Exit::Refused),
            (Code::AlreadyExists, Exit::Refused),
            (Code::FailedPrecondition, Exit::Refused),
            (Code::OutOfRange, Exit::Refused),
            (Code::Unavailable, Exit::Unavailable),
            (Code::ResourceExhausted, Exit::Unavailable),
            (Code::Internal, Exit::Unavailable),
            (Code::DeadlineExceeded, Exit::Unknown),
            (Code::Unauthenticated, Exit::Permission),
            (Code::PermissionDenied, Exit::Permission),
        ] {
            assert_eq!(Exit::of(code), exit, "{code:?}");
        }
    }
}
