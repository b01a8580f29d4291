//! The steps by which the driver changes the world, each a future of its own:
//! reads and beats go on meanwhile. Whatever a step's outcome, the rows decide;
//! one that is not known is looked at again.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::timeout;

use super::Parts;
use crate::chat::peers::Position;
use crate::clock;
use crate::cluster::membership::Suspect;
use crate::store::StoreError;
use crate::store::chat::PartitionState;
use crate::store::cluster::NodeState;

/// How long one may take: a take may have to wait for a hanging append and end
/// it.
const DEADLINE: Duration = Duration::from_secs(5);

/// A step under way.
pub(super) type Step = BoxFuture<'static, Done>;

/// What became of a step.
#[derive(Debug)]
pub(super) enum Done {
    /// A node was to be declared dead; true when it was.
    Declared(Suspect, Result<bool, StoreError>),
    /// A partition was to be taken.
    Taken(u16, Result<Option<PartitionState>, StoreError>),
    /// A partition was to be handed over.
    Released(u16, Released),
    /// A dead node's work was to be taken up; true when it was.
    Recovered(String, bool),
    /// This node's row was to say that it drains.
    Marked,
    /// Old rows were to be removed.
    Tidied,
}

/// What became of a hand-over.
#[derive(Debug)]
pub(super) enum Released {
    /// The row names the successor.
    Named(PartitionState),
    /// Chat did not own it.
    NotOwned,
    /// The row is another's, or the outcome is not known: the next read tells.
    Unknown,
}

/// Declares a suspect dead.
pub(super) fn declare(parts: &Arc<Parts>, suspect: Suspect) -> Step {
    let parts = parts.clone();
    Box::pin(async move {
        let Suspect { id, incarnation, beat } = &suspect;
        let declared = parts.store.declare_dead(id, incarnation, *beat);
        let done = timeout(DEADLINE, declared).await.unwrap_or_else(|_| late());
        Done::Declared(suspect, done)
    })
}

/// Takes a partition and tells chat.
pub(super) fn take(parts: &Arc<Parts>, seen: PartitionState, from: String) -> Step {
    let parts = parts.clone();
    Box::pin(async move {
        let began = clock::since_boot();
        let taking = parts.store.take(&seen, &parts.info.id, &from);
        let outcome = timeout(DEADLINE, taking).await.unwrap_or_else(|_| late());
        if let Ok(Some(row)) = &outcome {
            parts.partitions.assign(row, began).await;
            let (epoch, commit_no) = (row.epoch, row.commit_no);
            parts.mesh.owning(&[Position { partition: row.partition, epoch, commit_no }]);
            parts.metrics.takes.inc();
        }
        Done::Taken(seen.partition, outcome)
    })
}

/// Stops ordering a partition, releases it to a successor, and tells it.
pub(super) fn hand_over(parts: &Arc<Parts>, partition: u16, successor: String) -> Step {
    let parts = parts.clone();
    Box::pin(async move {
        let began = clock::since_boot();
        let released = match timeout(DEADLINE, release(&parts, partition, &successor)).await {
            Ok(released) => released,
            Err(_) => {
                // Half released: as if it had been lost.
                parts.partitions.lose(partition);
                Released::Unknown
            }
        };
        if let Released::Named(row) = &released {
            parts.mesh.hand_over(&successor, partition, row.epoch);
            let took = clock::since_boot().saturating_sub(began);
            parts.metrics.handovers.inc();
            parts.metrics.handover_seconds.observe(took.as_secs_f64());
        }
        Done::Released(partition, released)
    })
}

async fn release(parts: &Parts, partition: u16, successor: &str) -> Released {
    let Some(stopped) = parts.partitions.release(partition).await else {
        return Released::NotOwned;
    };
    parts.mesh.lost(partition, stopped.epoch);
    let named = parts.store.release(partition, &parts.info.id, stopped.epoch, successor).await;
    match named {
        Ok(Some(row)) => Released::Named(row),
        Ok(None) => Released::Unknown,
        Err(error) => {
            tracing::warn!(%error, partition, successor, "a hand-over's outcome is not known");
            Released::Unknown
        }
    }
}

/// Has the work of an incarnation that is over taken up.
pub(super) fn recover(parts: &Arc<Parts>, incarnation: String) -> Step {
    let parts = parts.clone();
    Box::pin(async move {
        let done = parts.recovery.recover_of(&incarnation).await;
        if let Err(error) = &done {
            tracing::warn!(error, incarnation, "a dead node's work could not be taken up yet");
        }
        Done::Recovered(incarnation, done.is_ok())
    })
}

/// Says in this node's row that it drains.
pub(super) fn mark_draining(parts: &Arc<Parts>, incarnation: &str) -> Step {
    let (parts, incarnation) = (parts.clone(), incarnation.to_owned());
    Box::pin(async move {
        let marked = parts.store.set_state(&parts.info.id, &incarnation, NodeState::Draining);
        match timeout(DEADLINE, marked).await {
            Ok(Ok(_)) => {}
            // The next read shows that it is still to be done.
            Ok(Err(error)) => {
                tracing::warn!(%error, "the node's row does not say yet that it drains")
            }
            Err(_) => tracing::warn!("the node's row does not say yet that it drains"),
        }
        Done::Marked
    })
}

/// Removes rows that nobody needs any more.
pub(super) fn tidy(parts: &Arc<Parts>, over: Vec<String>) -> Step {
    let parts = parts.clone();
    Box::pin(async move {
        match timeout(DEADLINE, parts.store.tidy_cluster(over)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "old rows of the cluster stay for now"),
            Err(_) => tracing::warn!("old rows of the cluster stay for now"),
        }
        Done::Tidied
    })
}

fn late<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable("no answer in time".to_owned()))
}
