//! Checks of files that are there and of no use, or do not belong together.

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
    found.extend(facts.unfit.iter().map(|problem| {
        finding(
            "start-refused",
            Error,
            format!("a start would be refused: {problem}"),
            "put right what the key names; what a node made for itself in dev it makes anew once \
             the whole folder is gone",
        )
    }));
    found.extend(strangers(facts));
    found
}

/// A database beside settings or files of another one.
fn strangers(facts: &Facts) -> Vec<Finding> {
    let Some(db) = &facts.database else { return Vec::new() };
    let mut found = Vec::new();
    let differs = facts.partitions.filter(|count| db.partitions != 0 && db.partitions != *count);
    if let Some(count) = differs {
        found.push(finding(
            "partitions-differ",
            Error,
            format!("the database has {} partitions, chat.partitions says {count}", db.partitions),
            "set chat.partitions to what the database was made with: it never changes",
        ));
    }
    if db.has_payments && !facts.sandbox_books {
        found.push(finding(
            "sandbox-books-missing",
            Error,
            "there are payments in simpul.db and no sandbox.db, the provider's own books",
            "put sandbox.db back, or restore a backup, which has both",
        ));
    }
    found
}
