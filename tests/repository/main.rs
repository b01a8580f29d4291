//! What holds of the repository itself: the order of its modules, its contracts
//! and documents, what operators are given, and what it depends on.
#![allow(clippy::print_stdout, reason = "what asks to be split is said in the output")]

mod alerts;
mod contracts;
mod dependencies;
mod deploy;
mod documents;
mod layering;
mod manifests;

/// Says that something was not tested, past the capture of a test's output.
fn not_run(what: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "NOT RUN: {what}");
}
