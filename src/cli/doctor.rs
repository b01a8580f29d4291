//! `simpul doctor`: what is wrong with a set-up, what it means, what to do.
//!
//! Facts are gathered first (`gather`), each on its own, so that one that
//! cannot be had hides no other. Then every check is a pure function from facts
//! to findings (`checks`), and each has a test.

mod checks;
mod clustered;
mod database;
mod facts;
mod gather;
mod kept;
mod proofs;
mod unusable;

use clap::Args;
use serde_json::json;

use super::env::Env;
use super::exit::Exit;
use super::failure::Failure;
use super::text::plain;

/// Look for what is wrong with this set-up; exit code 1 when something is
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  simpul doctor\n  simpul doctor --profile production \
    --config /etc/simpul.toml\n  simpul doctor --server simpul.example:7443 --ca ca.pem\n\n\
    With --output json: one object a line for each finding (id, severity, meaning, remedy), then \
    always one summary (ok, errors, warnings, notes).")]
pub struct Doctor {}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    /// The node does not work, or is not safe.
    Error,
    /// It works, and will not for long or not for all.
    Warning,
    /// Worth knowing.
    Note,
}

impl Severity {
    fn word(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    /// A stable name for scripts.
    id: &'static str,
    severity: Severity,
    /// What it means.
    meaning: String,
    /// What to do.
    remedy: &'static str,
}

impl Doctor {
    /// Gathers, judges, prints. Notes alone are health.
    pub async fn run(self, env: &Env) -> Result<Exit, Failure> {
        let facts = gather::all(env).await;
        let findings = checks::all(&facts);
        for finding in &findings {
            let json = json!({
                "id": finding.id, "severity": finding.severity.word(),
                "meaning": finding.meaning, "remedy": finding.remedy,
            });
            env.output.say(&json, || {
                let Finding { id, severity, meaning, remedy } = finding;
                format!("{} {id}: {}\n  {remedy}", severity.word(), plain(meaning))
            })?;
        }
        let ill = findings.iter().any(|finding| finding.severity < Severity::Note);
        if env.output.is_json() {
            let count = |of| findings.iter().filter(|finding| finding.severity == of).count();
            let summary = json!({
                "ok": !ill, "errors": count(Severity::Error),
                "warnings": count(Severity::Warning), "notes": count(Severity::Note),
            });
            env.output.raw(&summary.to_string())?;
        } else if findings.is_empty() {
            env.output.note("nothing found wrong")?;
        }
        Ok(if ill { Exit::Refused } else { Exit::Done })
    }
}
