//! What the node logs, looked at and changed for a while.

use std::time::Duration;

use super::Parts;
use crate::proto::operate::v1 as pb;
use crate::refusal::{Reason, Refusal, Violations};
use crate::security::audit::AuditSubject;
use crate::telemetry::level::{self, Level};

/// For how long, unless it is said.
const DEFAULT: Duration = Duration::from_secs(10 * 60);

/// The longest time.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn get(parts: &Parts) -> pb::GetLogLevelResponse {
    let Level { directive, configured, until } = parts.levels.level();
    let node_id = parts.node_id.clone();
    pb::GetLogLevelResponse { node_id, directive, configured, until: until.map(Into::into) }
}

pub(super) fn set(
    parts: &Parts,
    subject: &AuditSubject,
    request: &pb::SetLogLevelRequest,
) -> Result<pb::SetLogLevelResponse, Refusal> {
    subject.set(&format!("{} log level", parts.subject()));
    let mut violations = Violations::new();
    let directive = request.directive.as_str();
    let sound = directive.is_empty() || level::is_sound(directive);
    violations.check(sound, "directive", || level::RULE.to_owned());
    let time = request.duration.map_or(Ok(DEFAULT), Duration::try_from).unwrap_or_default();
    let fits = (Duration::from_secs(1)..=LONGEST).contains(&time);
    violations.check(fits, "duration", || "must be 1 second to 24 hours".to_owned());
    violations.finish()?;
    // Checked: it is levels and names of modules.
    subject.set(&format!("{} log level {directive}", parts.subject()));
    if !parts.levels.change((!directive.is_empty()).then_some((directive, time))) {
        let why = "the process has no log of its own to change";
        return Err(Refusal::new(Reason::ToolUnavailable, why));
    }
    let Level { directive, configured, until } = parts.levels.level();
    tracing::info!(%directive, for_seconds = time.as_secs(), "an operator changed the log level");
    let node_id = parts.node_id.clone();
    Ok(pb::SetLogLevelResponse { node_id, directive, configured, until: until.map(Into::into) })
}
