//! The checks: facts in, findings out.

use std::time::Duration;

use rustls::{AlertDescription, CertificateError, Error as TlsError};

use super::Severity::{Error, Note, Warning};
use super::facts::{CertificateFacts, DatabaseFacts, Facts};
use super::{Finding, Severity};
use crate::cli::target::NoNode;
use crate::client::dial::DialError;

/// Less room than this is not enough for a busy minute.
const LITTLE_ROOM: u64 = 256 * 1024 * 1024;
/// A node with its full number of connections needs more files than this.
const FEW_FILES: u64 = 4096;
/// A certificate that ends sooner is renewed late.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);
/// The development certificate is renewed by the node itself, at a start.
const SOON_IN_DEVELOPMENT: Duration = Duration::from_secs(24 * 3600);
/// Tokens are judged without leeway.
const SKEW_SECONDS: i64 = 2;
/// A database at rest for longer is worth a note.
const LONG_AGO: Duration = Duration::from_secs(30 * 24 * 3600);

type Check = fn(&Facts) -> Vec<Finding>;

const CHECKS: [Check; 16] = [
    configuration,
    super::unusable::check,
    super::clustered::check,
    data_dir,
    node,
    ports,
    connection,
    certificate,
    development_material,
    secrets,
    token,
    clock,
    serving,
    machine,
    audit_log,
    database,
];

/// Every finding, the worst first.
pub(super) fn all(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = CHECKS.iter().flat_map(|check| check(facts)).collect();
    findings.sort_by_key(|finding| finding.severity);
    findings
}

pub(super) fn finding(
    id: &'static str,
    severity: Severity,
    meaning: impl Into<String>,
    remedy: &'static str,
) -> Finding {
    Finding { id, severity, meaning: meaning.into(), remedy }
}

fn configuration(facts: &Facts) -> Vec<Finding> {
    facts
        .config_problems
        .iter()
        .map(|problem| {
            finding("config-invalid", Error, problem.clone(), "simpul config check names them all")
        })
        .collect()
}

fn data_dir(facts: &Facts) -> Vec<Finding> {
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

fn node(facts: &Facts) -> Vec<Finding> {
    match &facts.node {
        None | Some(Ok(())) => Vec::new(),
        Some(Err(NoNode::Absent)) => {
            vec![finding("node-not-running", Note, "no node runs here", "simpul serve starts one")]
        }
        Some(Err(NoNode::Stale(pid))) => vec![finding(
            "node-gone",
            Warning,
            format!("node.json names process {pid}, which is gone: the node did not end cleanly"),
            "simpul serve starts it again; nothing that was acknowledged is lost",
        )],
        Some(Err(NoNode::Unreadable(why))) => vec![finding(
            "node-file-unreadable",
            Error,
            format!("node.json cannot be read: {why}"),
            "look at its owner and mode; a restart of the node writes it anew",
        )],
    }
}

fn ports(facts: &Facts) -> Vec<Finding> {
    let each = |address: &String| {
        finding(
            "port-in-use",
            Error,
            format!("another process listens on {address}"),
            "stop it, or choose another: listen.public, listen.admin, listen.mesh",
        )
    };
    facts.ports_in_use.iter().map(each).collect()
}

fn connection(facts: &Facts) -> Vec<Finding> {
    let Some(Err(error)) = &facts.dial else { return Vec::new() };
    let (id, remedy) = match error {
        DialError::Address(_) => ("server-name-invalid", "give HOST:PORT"),
        DialError::Material(_) => ("tls-files-invalid", "give PEM files that fit together"),
        DialError::Connect { .. } => {
            ("port-unreachable", "is the node up, the port right, a firewall in the way?")
        }
        DialError::Timeout(_) => ("node-silent", "is the node overloaded or stopped?"),
        DialError::NotHttp2(_) => ("not-grpc", "is this the port of the public listener?"),
        DialError::Tls { error, .. } => tls(error),
    };
    vec![finding(id, Error, error.to_string(), remedy)]
}

/// Each way in which a handshake fails has its own remedy.
fn tls(error: &TlsError) -> (&'static str, &'static str) {
    use CertificateError as Bad;
    match error {
        TlsError::InvalidCertificate(bad) => match bad {
            Bad::UnknownIssuer | Bad::BadSignature => {
                ("tls-wrong-ca", "give the authority that made the node's certificate: --ca FILE")
            }
            Bad::Expired | Bad::ExpiredContext { .. } => {
                ("tls-expired", "renew the node's certificate; it reloads by itself")
            }
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
                ("tls-not-yet-valid", "compare the clocks of both machines")
            }
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => (
                "tls-name-mismatch",
                "use a name that is in the certificate: --server or --server-name",
            ),
            _ => ("tls-certificate-invalid", "make the node's certificate anew"),
        },
        TlsError::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown,
        ) => (
            "tls-client-certificate",
            "the node wants a client certificate that it believes: --cert and --key",
        ),
        _ => ("tls-failed", "is this the port of the public listener?"),
    }
}

fn certificate(facts: &Facts) -> Vec<Finding> {
    let Some(certificate) = &facts.certificate else { return Vec::new() };
    let soon = soon(certificate);
    let remedy = "renew it; the node takes the new files by itself";
    if facts.now < certificate.not_before {
        return vec![finding(
            "certificate-not-yet-valid",
            Error,
            "the node's certificate is not valid yet",
            "compare the clocks of both machines",
        )];
    }
    match certificate.not_after.duration_since(facts.now) {
        Err(_) => {
            vec![finding("certificate-expired", Error, "the node's certificate is over", remedy)]
        }
        Ok(left) if left < soon => vec![finding(
            "certificate-expiring",
            Warning,
            format!("the node's certificate ends in {} hours", left.as_secs() / 3600),
            remedy,
        )],
        Ok(_) => Vec::new(),
    }
}

/// How little of a certificate's life is worth a warning.
pub(super) fn soon(certificate: &CertificateFacts) -> Duration {
    if certificate.development { SOON_IN_DEVELOPMENT } else { SOON }
}

fn development_material(facts: &Facts) -> Vec<Finding> {
    let development = facts.certificate.as_ref().is_some_and(|c| c.development);
    if !(facts.production && development) {
        return Vec::new();
    }
    vec![finding(
        "development-material",
        Error,
        "production would run on a certificate or keys that development made",
        "give it its own: tls.cert_file, tls.key_file, auth.ca, auth.issuer",
    )]
}

fn secrets(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for secret in &facts.secrets {
        let path = secret.path.display();
        if let Some(problem) = &secret.problem {
            found.push(finding(
                "key-unreadable",
                Error,
                format!("{path} cannot be read: {problem}"),
                "run as the user that owns it",
            ));
        } else if secret.mode & 0o077 != 0 {
            found.push(finding(
                "key-open",
                Error,
                format!("other users may read {path} (mode {:03o})", secret.mode & 0o777),
                "chmod 600 it, and replace the key if others had access",
            ));
        }
    }
    found
}

fn token(facts: &Facts) -> Vec<Finding> {
    let problem = facts.token_problem.as_ref();
    problem
        .map(|problem| {
            finding(
                "token-key-missing",
                Warning,
                format!("--as cannot sign a token: {problem}"),
                "the first start of a development node makes the key",
            )
        })
        .into_iter()
        .collect()
}

fn clock(facts: &Facts) -> Vec<Finding> {
    match facts.clock_offset {
        Some(offset) if offset.abs() > SKEW_SECONDS => vec![finding(
            "clock-skew",
            Warning,
            format!("the node's clock is {offset} s from this machine's"),
            "synchronise both; tokens are judged by the node's clock without leeway",
        )],
        _ => Vec::new(),
    }
}

fn serving(facts: &Facts) -> Vec<Finding> {
    if facts.serving != Some(false) {
        return Vec::new();
    }
    vec![finding(
        "not-serving",
        Error,
        "the node says that it does not serve",
        "/readyz on the admin listener names what is pending; the log says why",
    )]
}

fn machine(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(limit) = facts.file_limit.filter(|limit| *limit < FEW_FILES) {
        found.push(finding(
            "file-limit-low",
            Warning,
            format!("a process may open {limit} files: so many connections end up refused"),
            "raise it: ulimit -n 65536, or LimitNOFILE in the unit",
        ));
    }
    if let Some(free) = facts.free_bytes.filter(|free| *free < LITTLE_ROOM) {
        found.push(finding(
            "disk-nearly-full",
            Error,
            format!("{} MiB are free for the data directory", free / (1024 * 1024)),
            "make room: a node that cannot write refuses to",
        ));
    }
    found
}

fn audit_log(facts: &Facts) -> Vec<Finding> {
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

fn database(facts: &Facts) -> Vec<Finding> {
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

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
