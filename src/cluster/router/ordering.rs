//! Hands jobs to this node's owner in the order in which they came, and their
//! outcomes back.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::chat::{Job, Partitions, Proposal, Published};
use crate::cluster::link::convert::Outcome;
use crate::refusal::{Reason, Refusal};

/// Something that is to be ordered here.
#[derive(Debug)]
pub(in crate::cluster) struct ToOrder {
    /// Names it to whoever asked.
    pub(in crate::cluster) id: u64,
    pub(in crate::cluster) proposal: Proposal,
    pub(in crate::cluster) traceparent: Option<String>,
    pub(in crate::cluster) deadline: Instant,
}

/// Orders what comes until the queue is closed, and everything that came is
/// answered. Outcomes are handed back while the owner has no place for more.
pub(in crate::cluster) async fn run(
    mut jobs: mpsc::Receiver<ToOrder>,
    partitions: Arc<dyn Partitions>,
    done: impl Fn(u64, Result<Published, Refusal>),
) {
    let mut answers = FuturesUnordered::new();
    let mut open = true;
    while open || !answers.is_empty() {
        let job = tokio::select! {
            biased;
            Some((id, result)) = answers.next(), if !answers.is_empty() => {
                done(id, result);
                continue;
            }
            job = jobs.recv(), if open => job,
        };
        let Some(ToOrder { id, proposal, traceparent, deadline }) = job else {
            open = false;
            continue;
        };
        let (answer, answered) = oneshot::channel();
        let job = Job::from_peer(proposal, traceparent.as_deref(), deadline, answer);
        let mut order = partitions.order(job);
        loop {
            tokio::select! {
                biased;
                () = &mut order => break,
                Some((id, result)) = answers.next(), if !answers.is_empty() => done(id, result),
            }
        }
        answers.push(async move { (id, answered.await.unwrap_or_else(|_| Err(stopping()))) });
    }
}

/// The owner is gone: the node stops.
fn stopping() -> Refusal {
    Refusal::new(Reason::Draining, "the node is stopping")
}

/// What an outcome of this node's own owner means to the router.
pub(in crate::cluster) fn outcome(result: Result<Published, Refusal>) -> Outcome {
    match result {
        Err(refusal) if refusal.reason == Reason::NotOwner => Outcome::NotOwner,
        Err(refusal) if refusal.reason == Reason::Draining => Outcome::Lost,
        result => Outcome::Final(result),
    }
}
