//! Checks of files that are there and of no use.

use super::Finding;
use super::Severity::Error;
use super::checks::finding;
use super::facts::Facts;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(problem) = &facts.certificate_problem {
        found.push(finding(
            "certificate-unreadable",
            Error,
            format!("the node's certificate is of no use: {problem}"),
            "put the whole PEM file back; a running node serves the last good one until it ends",
        ));
    }
    if let Some(problem) = &facts.data_dir_problem {
        found.push(finding(
            "data-dir-unusable",
            Error,
            problem.clone(),
            "run the release that wrote it, or restore a backup into an empty directory",
        ));
    }
    found
}
