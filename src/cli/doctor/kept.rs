//! Checks of what is kept on the disk: the data directory, the audit log, the
//! database.

use std::time::Duration;

use super::Finding;
use super::Severity::{Error, Note, Warning};
use super::checks::finding;
use super::facts::{DatabaseFacts, Facts};

/// A database at rest for longer is worth a note.
const LONG_AGO: Duration = Duration::from_secs(30 * 24 * 3600);

pub(super) fn data_dir(facts: &Facts) -> Vec<Finding> {
    let Some(dir) = &facts.data_dir else { return Vec::new() };
    let path = dir.path.display();
    if !dir.exists {
        return vec![finding(
            "data-dir-missing",
            Warning,
            format!("there is no data directory {path}"),
            "simpul serve makes it; or name another: --data-dir DIR",
        )];
    }
    let mut found = Vec::new();
    if dir.mode & 0o077 != 0 {
        found.push(finding(
            "data-dir-open",
            Warning,
            format!("other users may enter {path} (mode {:03o})", dir.mode & 0o777),
            "chmod 700 it: keys and everything that was said lie there",
        ));
    }
    if !dir.writable {
        found.push(finding(
            "data-dir-read-only",
            Error,
            format!("{path} cannot be written to"),
            "run as the user that owns it, or mount it writable",
        ));
    }
    found
}

pub(super) fn audit_log(facts: &Facts) -> Vec<Finding> {
    let problem = facts.audit_problem.as_ref();
    problem
        .map(|problem| {
            finding(
                "audit-log-unwritable",
                Error,
                format!("the audit log cannot be written: {problem}"),
                "look at telemetry.audit_file, its owner and mode",
            )
        })
        .into_iter()
        .collect()
}

pub(super) fn database(facts: &Facts) -> Vec<Finding> {
    let Some(db) = &facts.database else { return Vec::new() };
    if let Some(problem) = &db.problem {
        return vec![finding(
            "database-unreadable",
            Error,
            format!("the database cannot be read: {problem}"),
            "look at its owner and mode; a backup can be restored with simpul restore",
        )];
    }
    let mut found = soundness(db);
    if db.stuck_payments > 0 {
        found.push(finding(
            "payments-unknown",
            Warning,
            format!("{} operations of payments have no known outcome for long", db.stuck_payments),
            "is the provider reachable? They resolve by themselves once it answers",
        ));
    }
    if db.overdue_tasks > 0 {
        found.push(finding(
            "outbox-overdue",
            Warning,
            format!("{} tasks of payments are overdue", db.overdue_tasks),
            "a running node takes them up; look at its log if one runs",
        ));
    }
    let rest = db.last_write.and_then(|at| facts.now.duration_since(at).ok());
    if let Some(rest) = rest.filter(|rest| *rest > LONG_AGO) {
        found.push(finding(
            "database-at-rest",
            Note,
            format!("nothing was written for {} days", rest.as_secs() / 86_400),
            "is this the data directory that is in use?",
        ));
    }
    found
}

fn soundness(db: &DatabaseFacts) -> Vec<Finding> {
    let mut found = Vec::new();
    if !db.writable {
        found.push(finding(
            "database-read-only",
            Error,
            "the database's files cannot be written to",
            "run as the user that owns them",
        ));
    }
    for damage in &db.damage {
        found.push(finding(
            "database-damaged",
            Error,
            format!("the database is damaged: {damage}"),
            "stop the node, keep a copy, restore the newest backup: simpul restore DIR",
        ));
    }
    if let Some((theirs, ours)) = db.version.filter(|(theirs, ours)| theirs > ours) {
        found.push(finding(
            "database-newer",
            Error,
            format!("the database has schema {theirs}, this release knows {ours}"),
            "use the newer release",
        ));
    }
    for wrong in &db.ledger {
        found.push(finding(
            "ledger-wrong",
            Error,
            format!("the ledger breaks its rules: {wrong}"),
            "stop paying; keep a copy of the database; this is never repaired by itself",
        ));
    }
    found
}
