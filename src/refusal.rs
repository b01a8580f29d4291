//! Why a call is refused: one table of reasons, and the rich error model
//! (google.rpc.BadRequest, ErrorInfo, RetryInfo) that carries them.
//!
//! Every status of ours is made here, so that its details are bounded: clients
//! cap response headers at 8 KiB, and gRPC sends details in a trailer.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The `domain` of every ErrorInfo.
pub const DOMAIN: &str = "simpul";

/// How many violations one status names; more are counted in its message.
const MAX_VIOLATIONS: usize = 16;

/// How many bytes of fields and rules one status names: with ErrorInfo, the
/// trace and the encoding's own bytes, its details stay below 4 KiB.
const MAX_VIOLATION_BYTES: usize = 3 * 1024;

/// The longest message, bytes; gRPC escapes it to at most three times as many.
const MAX_MESSAGE: usize = 512;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $code:ident;)+) => {
        /// The stable reason in a status's ErrorInfo. docs/errors.md is this
        /// table for people, and a test holds them together.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[doc = $doc])+ $name,)+ }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)+];

            /// The word on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Reason::$name => $text,)+ }
            }

            /// The gRPC code that goes with it.
            pub fn code(self) -> Code {
                match self { $(Reason::$name => Code::$code,)+ }
            }

            /// What it means, for the table in the docs.
            pub fn meaning(self) -> &'static str {
                match self { $(Reason::$name => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

reasons! {
    /// One or more fields break their rules; BadRequest names each.
    InvalidArgument = "INVALID_ARGUMENT", InvalidArgument;
    /// The message is not what the contract says, is cut short or is one too many.
    MalformedMessage = "MALFORMED_MESSAGE", InvalidArgument;
    /// The message is larger than the node takes.
    MessageTooLarge = "MESSAGE_TOO_LARGE", OutOfRange;
    /// The request's headers are larger, all together, than the node takes.
    HeadersTooLarge = "HEADERS_TOO_LARGE", ResourceExhausted;
    /// The request's headers lack `te: trailers`.
    MissingTe = "MISSING_TE", InvalidArgument;
    /// The message is compressed in a way that the node does not take.
    CompressionUnsupported = "COMPRESSION_UNSUPPORTED", Unimplemented;
    /// No such method, or not asked for with POST on its exact path.
    UnknownMethod = "UNKNOWN_METHOD", Unimplemented;
    /// Neither a client certificate nor a bearer token was given.
    CredentialsMissing = "CREDENTIALS_MISSING", Unauthenticated;
    /// The token is not valid; the message says which rule it breaks.
    TokenInvalid = "TOKEN_INVALID", Unauthenticated;
    /// The token's time is over, or has not begun.
    TokenExpired = "TOKEN_EXPIRED", Unauthenticated;
    /// The client certificate is not valid here.
    CertificateInvalid = "CERTIFICATE_INVALID", Unauthenticated;
    /// The client certificate's time is over.
    CertificateExpired = "CERTIFICATE_EXPIRED", Unauthenticated;
    /// Token and certificate name different callers, or the token is bound to another certificate.
    ProofMismatch = "PROOF_MISMATCH", Unauthenticated;
    /// Too many failed proofs came from this address.
    TooManyFailures = "TOO_MANY_FAILURES", ResourceExhausted;
    /// The caller has none of the roles that the method asks for.
    RoleMissing = "ROLE_MISSING", PermissionDenied;
    /// The service may not act for users.
    DelegationDenied = "DELEGATION_DENIED", PermissionDenied;
    /// The caller's role in the room, or its part in the payment, does not allow this.
    NotAllowed = "NOT_ALLOWED", PermissionDenied;
    /// There is no such thing, or it is somebody else's.
    NotFound = "NOT_FOUND", NotFound;
    /// The id is taken.
    AlreadyExists = "ALREADY_EXISTS", AlreadyExists;
    /// The idempotency key or client message id was used with another body.
    KeyReused = "KEY_REUSED", AlreadyExists;
    /// The cursor or position is ahead of the log.
    CursorAhead = "CURSOR_AHEAD", OutOfRange;
    /// The room was not joined on this stream.
    NotJoined = "NOT_JOINED", FailedPrecondition;
    /// The first frame of a Chat stream must be a Join.
    JoinFirst = "JOIN_FIRST", FailedPrecondition;
    /// A room keeps at least one owner.
    LastOwner = "LAST_OWNER", FailedPrecondition;
    /// The payment's status does not allow this operation.
    PaymentState = "PAYMENT_STATE", FailedPrecondition;
    /// Another operation of the payment is under way.
    OperationPending = "OPERATION_PENDING", FailedPrecondition;
    /// The payee lacks the money for the refund.
    InsufficientBalance = "INSUFFICIENT_BALANCE", FailedPrecondition;
    /// There is no other live node that could take the work of the one to be drained.
    NoOtherNode = "NO_OTHER_NODE", FailedPrecondition;
    /// What an operator asked for cannot be had in this process; the message says why.
    ToolUnavailable = "TOOL_UNAVAILABLE", FailedPrecondition;
    /// The time that the caller gave is over.
    DeadlineExceeded = "DEADLINE_EXCEEDED", DeadlineExceeded;
    /// The caller has sent too many requests or frames; RetryInfo says when to go on.
    RateLimited = "RATE_LIMITED", ResourceExhausted;
    /// The node handles as many calls as it may at once.
    ConcurrencyLimit = "CONCURRENCY_LIMIT", ResourceExhausted;
    /// The node is overloaded and sheds what it could not finish in time.
    Overloaded = "OVERLOADED", Unavailable;
    /// The caller has as many streams or joined rooms as it may.
    TooManyStreams = "TOO_MANY_STREAMS", ResourceExhausted;
    /// The store cannot take writes now; nothing of this call was kept.
    StoreUnavailable = "STORE_UNAVAILABLE", Unavailable;
    /// Another node orders this room now; nothing of this call was kept.
    NotOwner = "NOT_OWNER", Unavailable;
    /// The room's owner did not answer in time: sending it again under the same client message id shows what became of it.
    OutcomeUnknown = "OUTCOME_UNKNOWN", Unavailable;
    /// The message that this one is to come after does not stand: send that one again, then this one, or send this one without naming it.
    SendBeforeFailed = "SEND_BEFORE_FAILED", Unavailable;
    /// The other node does not belong to this one's cluster as it is; the message says what differs.
    LinkRefused = "LINK_REFUSED", FailedPrecondition;
    /// The node is stopping.
    Draining = "DRAINING", Unavailable;
    /// The caller's membership ended while the stream was open.
    AccessEnded = "ACCESS_ENDED", PermissionDenied;
    /// A fault of the node; the log of the node has more under the trace id.
    Internal = "INTERNAL", Internal;
}

/// One field that breaks its rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field's path in the request. Example: `amount.currency`.
    pub field: String,
    /// The rule and the value's shape, never the value. Example: `must have 1
    /// to 64 characters; it has 80`.
    pub rule: String,
}

/// A refused call, before it becomes a [`Status`].
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// The stable reason; gives the code.
    pub reason: Reason,
    /// A sentence for developers, without secrets or values.
    pub message: String,
    /// The fields that break their rules.
    pub violations: Vec<Violation>,
    /// When a retry can help.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal with its reason and a sentence.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), violations: Vec::new(), retry_after: None }
    }

    /// The thing, named by its kind, is not there or is somebody else's.
    pub fn not_found(what: &str) -> Self {
        Self::new(Reason::NotFound, format!("no such {what}"))
    }

    /// Says when a retry can help.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// The rich error details.
    fn details(&self) -> ErrorDetails {
        let mut details =
            ErrorDetails::with_error_info(self.reason.as_str(), DOMAIN, HashMap::new());
        let mut room = MAX_VIOLATION_BYTES;
        for violation in self.violations.iter().take(MAX_VIOLATIONS) {
            let Some(left) = room.checked_sub(violation.field.len() + violation.rule.len()) else {
                break;
            };
            room = left;
            details.add_bad_request_violation(&violation.field, &violation.rule);
        }
        if let Some(delay) = self.retry_after {
            details.set_retry_info(Some(delay));
        }
        details
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.reason.as_str(), self.message)
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let details = refusal.details();
        let mut message = refusal.message;
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        Status::with_error_details(refusal.reason.code(), message, details)
    }
}

/// Collects every violated field of a request before refusing it.
#[derive(Debug, Default)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// None so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a violated field.
    pub fn add(&mut self, field: impl Into<String>, rule: impl Into<String>) {
        self.0.push(Violation { field: field.into(), rule: rule.into() });
    }

    /// Notes the field unless the condition holds.
    pub fn check(&mut self, holds: bool, field: &str, rule: impl FnOnce() -> String) {
        if !holds {
            self.add(field, rule());
        }
    }

    /// Takes a parsed value or notes why there is none.
    pub fn take<T, E: std::fmt::Display>(
        &mut self,
        field: &str,
        parsed: Result<T, E>,
    ) -> Option<T> {
        parsed.map_err(|error| self.add(field, error.to_string())).ok()
    }

    /// Refuses the request if a field was noted.
    pub fn finish(self) -> Result<(), Refusal> {
        if self.0.is_empty() {
            return Ok(());
        }
        let listed: Vec<_> =
            self.0.iter().take(3).map(|v| format!("{} {}", v.field, v.rule)).collect();
        let more = self.0.len().saturating_sub(listed.len());
        let mut message = listed.join("; ");
        if more > 0 {
            message.push_str(&format!("; and {more} more"));
        }
        Err(Refusal { violations: self.0, ..Refusal::new(Reason::InvalidArgument, message) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hundreds_of_long_violations_stay_within_four_kibibytes() {
        for length in [1, 20, 200, 2_000] {
            let mut violations = Violations::new();
            for n in 0..300 {
                violations.add(format!("metadata.{n}.{}", "é".repeat(length)), "must be shorter");
            }
            let status = Status::from(violations.finish().expect_err("three hundred"));
            // What the trace's id adds outside of here has its place.
            assert!(status.details().len() <= 4 * 1024 - 128, "{}", status.details().len());
            assert!(status.message().len() <= MAX_MESSAGE);
            assert!(length > 200 || status.get_details_bad_request().is_some(), "{length}");
        }
    }
}
