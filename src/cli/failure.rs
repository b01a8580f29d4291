//! Why a command failed, as people and scripts read it: one or two lines on
//! stderr, or one JSON object there.

use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::exit::Exit;
use super::text::plain;

/// A command's end that is not success. Small: the details lie in a box.
#[derive(Debug, Clone)]
pub struct Failure(Box<Details>);

#[derive(Debug, Clone)]
struct Details {
    exit: Exit,
    message: String,
    code: Option<Code>,
    reason: Option<String>,
    violations: Vec<(String, String)>,
    retry_after_seconds: Option<f64>,
    trace_id: Option<String>,
    hint: Option<String>,
    /// The client message id of what was not sent.
    unsent: Option<String>,
    /// Say nothing: the reader of our output is gone.
    quiet: bool,
    /// Our own output cannot be written: no node can mend it.
    ours: bool,
}

impl Failure {
    /// A failure of a class, with a sentence.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self(Box::new(Details {
            exit,
            message: message.into(),
            code: None,
            reason: None,
            violations: Vec::new(),
            retry_after_seconds: None,
            trace_id: None,
            hint: None,
            unsent: None,
            quiet: false,
            ours: false,
        }))
    }

    /// The command line or the configuration is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Nobody is there, or it cannot serve.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Exit::Unavailable, message)
    }

    /// Ends without a word: what was to be said has been said, or nobody reads.
    pub fn quiet(exit: Exit) -> Self {
        let mut failure = Self::new(exit, "");
        failure.0.quiet = true;
        failure
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Names the message that was not sent by its client message id.
    #[must_use]
    pub fn unsent(mut self, id: impl Into<String>) -> Self {
        self.0.unsent = Some(id.into());
        self
    }

    /// Puts it into another class: the caller knows more than the status.
    #[must_use]
    pub fn with_exit(mut self, exit: Exit) -> Self {
        self.0.exit = exit;
        self
    }

    /// Whether it is a matter of this process's own output, so that asking the
    /// node again is of no use.
    pub fn is_ours(&self) -> bool {
        self.0.ours
    }

    /// The class.
    pub fn exit(&self) -> Exit {
        self.0.exit
    }

    /// The sentence.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The code of a status, when it was one.
    pub fn code(&self) -> Option<Code> {
        self.0.code
    }

    /// The stable reason of a status, when it had one.
    pub fn reason(&self) -> Option<&str> {
        self.0.reason.as_deref()
    }

    /// What to print on stderr; nothing for a quiet end.
    pub fn render(&self, as_json: bool) -> Option<String> {
        if self.0.quiet {
            return None;
        }
        Some(if as_json { self.json().to_string() } else { self.human() })
    }

    fn human(&self) -> String {
        let d = &self.0;
        // Our own sentences may have lines; a node's may not make any up.
        let message = match d.code {
            None => d.message.lines().map(plain).collect::<Vec<_>>().join("\n"),
            Some(_) => plain(&d.message),
        };
        let mut out = format!("error: {message}");
        let mut about: Vec<String> = Vec::new();
        // The message of a refused request already names the first fields.
        about.extend(
            d.violations
                .iter()
                .filter(|(field, rule)| !d.message.contains(&format!("{field} {rule}")))
                .map(|(field, rule)| format!("{} {}", plain(field), plain(rule))),
        );
        about.extend(d.unsent.as_ref().map(|id| format!("not sent: {}", plain(id))));
        about.extend(d.reason.as_ref().map(|reason| format!("reason {}", plain(reason))));
        about.extend(d.retry_after_seconds.map(|seconds| format!("retry after {seconds} s")));
        about.extend(d.trace_id.as_ref().map(|id| format!("trace {}", plain(id))));
        about.extend(d.hint.as_ref().map(|hint| format!("hint: {hint}")));
        if !about.is_empty() {
            out.push_str("\n  ");
            out.push_str(&about.join("; "));
        }
        out
    }

    fn json(&self) -> Value {
        let d = &self.0;
        let mut object = serde_json::Map::new();
        object.insert("error".into(), json!(d.message));
        object.insert("exit".into(), json!(d.exit.code()));
        if let Some(code) = d.code {
            object.insert("code".into(), json!(code_name(code)));
        }
        if let Some(reason) = &d.reason {
            object.insert("reason".into(), json!(reason));
        }
        if !d.violations.is_empty() {
            let fields: Vec<Value> = d
                .violations
                .iter()
                .map(|(field, rule)| json!({"field": field, "rule": rule}))
                .collect();
            object.insert("violations".into(), json!(fields));
        }
        if let Some(seconds) = d.retry_after_seconds {
            object.insert("retry_after_seconds".into(), json!(seconds));
        }
        if let Some(id) = &d.trace_id {
            object.insert("trace_id".into(), json!(id));
        }
        if let Some(id) = &d.unsent {
            object.insert("client_message_id".into(), json!(id));
        }
        if let Some(hint) = &d.hint {
            object.insert("hint".into(), json!(hint));
        }
        Value::Object(object)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for Failure {}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let mut message = match status.message() {
            "" => format!("the node answered {}", code_name(status.code())),
            message => message.to_owned(),
        };
        // A status that the transport made says why only in its innermost cause.
        let mut cause = std::error::Error::source(&status);
        while let Some(inner) = cause.and_then(std::error::Error::source) {
            cause = Some(inner);
        }
        match cause.map(ToString::to_string) {
            // A connection that was cut: rustls says so in a page's worth.
            Some(cause) if cause.contains("close_notify") => {
                message = "the node went away without a word".to_owned();
            }
            Some(cause) if !message.contains(&cause) => message = format!("{message}: {cause}"),
            _ => {}
        }
        let mut failure = Failure::new(Exit::of(status.code()), message);
        failure.0.code = Some(status.code());
        failure.0.reason = details.error_info().map(|info| info.reason.clone());
        let named = details.request_info().map(|info| info.request_id.clone());
        failure.0.trace_id = named.filter(|id| !id.is_empty()).or_else(|| trace_id(&status));
        if let Some(bad) = details.bad_request() {
            failure.0.violations = bad
                .field_violations
                .iter()
                .map(|violation| (violation.field.clone(), violation.description.clone()))
                .collect();
        }
        failure.0.retry_after_seconds = details
            .retry_info()
            .and_then(|info| info.retry_delay)
            .map(|delay| (delay.as_secs_f64() * 1000.0).round() / 1000.0);
        failure
    }
}

impl From<std::io::Error> for Failure {
    /// Of our own output: a reader that went away ends the command quietly.
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Failure::quiet(Exit::Done)
        } else {
            let mut failure = Failure::unavailable(format!("cannot write the output: {error}"));
            failure.0.ours = true;
            failure
        }
    }
}

/// The trace id that the node put into the status's metadata: its own key, or
/// the second field of a W3C `traceparent`.
fn trace_id(status: &Status) -> Option<String> {
    let text = |key: &str| status.metadata().get(key).and_then(|value| value.to_str().ok());
    if let Some(id) = text("simpul-trace-id") {
        return Some(id.to_owned());
    }
    text("traceparent")?.split('-').nth(1).map(str::to_owned)
}

/// A code as the gRPC documents spell it. Example: `NOT_FOUND`.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::refusal::{Reason, Refusal, Violations};

    #[test]
    fn a_refusal_reads_in_two_lines() {
        let failure = Failure::from(Status::from(Refusal::not_found("room")));
        assert_eq!(failure.exit(), Exit::Refused);
        assert_eq!(
            failure.render(false).as_deref(),
            Some("error: no such room\n  reason NOT_FOUND")
        );
    }

    #[test]
    fn fields_are_named_once_each() {
        let mut violations = Violations::new();
        for field in ["a", "b", "c", "d"] {
            violations.add(field, "must not be empty");
        }
        let refusal = violations.finish().expect_err("four fields are wrong");
        let failure = Failure::from(Status::from(refusal));
        assert_eq!(failure.exit(), Exit::Usage);
        assert_eq!(
            failure.render(false).as_deref(),
            Some(
                "error: a must not be empty; b must not be empty; c must not be empty; and 1 more\
                 \n  d must not be empty; reason INVALID_ARGUMENT"
            )
        );
    }

    #[test]
    fn json_carries_everything() {
        let refusal =
            Refusal::new(Reason::RateLimited, "slow down").retry_after(Duration::from_millis(1500));
        let mut status = Status::from(refusal);
        status.metadata_mut().insert(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().expect("ascii"),
        );
        let text = Failure::from(status).hint("wait").render(true).expect("not quiet");
        assert_eq!(
            text,
            r#"{"code":"RESOURCE_EXHAUSTED","error":"slow down","exit":69,"hint":"wait","reason":"RATE_LIMITED","retry_after_seconds":1.5,"trace_id":"0af7651916cd43dd8448eb211c80319c"}"#
        );
    }

    #[test]
    fn a_closed_pipe_is_quiet_success() {
        let failure = Failure::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!((failure.exit(), failure.render(false)), (Exit::Done, None));
    }

    #[test]
    fn a_status_cannot_move_the_cursor_of_a_terminal() {
        let failure = Failure::from(Status::not_found("gone\u{1b}[2J"));
        assert_eq!(failure.render(false).as_deref(), Some("error: gone\\u{1b}[2J"));
    }
}
