//! The checks: facts in, findings out. All of them in their order, and those of
//! the node and its machine.

use super::Severity::{Error, Note, Warning};
use super::facts::Facts;
use super::{Finding, Severity, kept, proofs};
use crate::cli::target::NoNode;

/// Less room than this is not enough for a busy minute.
const LITTLE_ROOM: u64 = 256 * 1024 * 1024;
/// A node with its full number of connections needs more files than this.
const FEW_FILES: u64 = 4096;
/// Tokens are judged without leeway.
const SKEW_SECONDS: i64 = 2;
type Check = fn(&Facts) -> Vec<Finding>;

const CHECKS: [Check; 16] = [
    configuration,
    super::unusable::check,
    super::clustered::check,
    kept::data_dir,
    node,
    ports,
    proofs::connection,
    proofs::certificate,
    proofs::development_material,
    proofs::secrets,
    proofs::token,
    clock,
    serving,
    machine,
    kept::audit_log,
    kept::database,
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

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
