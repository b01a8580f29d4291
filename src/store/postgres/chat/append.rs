//! The append.
//!
//! One transaction for the parts of a group, in three round trips however many
//! entries there are: BEGIN with the fence ([`fence`]), what the parts that are
//! held have ([`Batch`]), COMMIT. New rooms and changes of rooms are rare and have
//! statements of their own. A part that is skipped gets a transaction of its own
//! later; a fenced one fails nobody. On a distributed database every part has a
//! transaction of its own from the start, and they run side by side.
//!
//! A key that is taken undoes its transaction and no other: its parts are told so.
//! Any other error fails the whole call, once every transaction of it has ended;
//! some of them may stand: whoever appends then reads again what is there.

use std::sync::Arc;

use futures_util::future::join_all;

use super::super::PgStore;
use super::batch::Batch;
use super::fence::{self, Claim};
use crate::store::StoreError;
use crate::store::chat::{Appended, PartitionAppend};

pub(super) async fn run(
    store: &PgStore,
    parts: Vec<PartitionAppend>,
) -> Result<Vec<Appended>, StoreError> {
    let parts: Arc<[PartitionAppend]> = parts.into();
    let mut answers = vec![Appended::Fenced; parts.len()];
    let mut waiting: Vec<usize> = (0..parts.len()).collect();
    for look in 0..=fence::LOOKS {
        let (now, later) = distinct(&parts, waiting);
        let skipped = attempt(store, &parts, now, &mut answers).await?;
        let fresh = later.len();
        waiting = later;
        if !skipped.is_empty() {
            let claims = skipped.iter().filter_map(|at| claim(&parts, *at)).collect();
            let standing = fence::standing(store, claims).await?;
            let stands = |at: &usize| claim(&parts, *at).is_some_and(|one| standing.contains(&one));
            waiting.extend(skipped.into_iter().filter(stands));
        }
        if waiting.is_empty() {
            return Ok(answers);
        }
        if waiting.len() > fresh {
            fence::wait(look).await;
        }
    }
    // Whoever has these rows for so long is not the appender: it takes the
    // partition anew, and that waits for them.
    tracing::warn!(parts = waiting.len(), "partitions stay locked by another transaction");
    Ok(answers)
}

fn claim(parts: &[PartitionAppend], at: usize) -> Option<Claim> {
    parts.get(at).map(|part| Claim { partition: part.partition, epoch: part.epoch })
}

/// A partition has one part in a transaction.
fn distinct(parts: &[PartitionAppend], waiting: Vec<usize>) -> (Vec<usize>, Vec<usize>) {
    let mut seen = std::collections::BTreeSet::new();
    waiting
        .into_iter()
        .partition(|at| parts.get(*at).is_some_and(|part| seen.insert(part.partition)))
}

/// Writes down what became of parts; gives back those that were not held.
async fn attempt(
    store: &PgStore,
    parts: &Arc<[PartitionAppend]>,
    now: Vec<usize>,
    answers: &mut [Appended],
) -> Result<Vec<usize>, StoreError> {
    let groups: Vec<Vec<usize>> = match store.is_distributed() {
        true => now.iter().map(|at| vec![*at]).collect(),
        false => vec![now.clone()],
    };
    let transactions = groups.iter().map(|group| transaction(store, parts, group.clone()));
    let ended = join_all(transactions).await;
    let mut known = Vec::new();
    let mut failed = None;
    for (group, ended) in groups.iter().zip(ended) {
        match ended {
            Ok(committed) => known.extend(
                committed
                    .into_iter()
                    .map(|(at, commit_no)| (at, Appended::Committed { commit_no })),
            ),
            Err(StoreError::Conflict(_)) => {
                known.extend(group.iter().map(|at| (*at, Appended::KeyTaken)));
            }
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    let mut skipped = now;
    for (at, known) in known {
        if let Some(answer) = answers.get_mut(at) {
            *answer = known;
        }
        skipped.retain(|other| *other != at);
    }
    Ok(skipped)
}

/// Commits those parts of a group that are held; gives their commit numbers.
async fn transaction(
    store: &PgStore,
    parts: &Arc<[PartitionAppend]>,
    group: Vec<usize>,
) -> Result<Vec<(usize, u64)>, StoreError> {
    let (one, parts) = (store.is_distributed(), parts.clone());
    let claims: Vec<Claim> = group.iter().filter_map(|at| claim(&parts, *at)).collect();
    let group: Arc<[usize]> = group.into();
    fence::write(store, "chat.append", claims, move |connection, entered| {
        let (parts, group) = (parts.clone(), group.clone());
        Box::pin(async move {
            let mut held = Vec::new();
            let mut kept = Vec::new();
            for at in group.iter() {
                let Some(part) = parts.get(*at) else { continue };
                let number = entered.iter().find(|(id, _)| *id == part.partition);
                if let Some((_, commit_no)) = number {
                    held.push((*at, *commit_no));
                    kept.push(part);
                }
            }
            crate::fault::point("append.fenced").await;
            Batch::of(&kept)?.write(connection, one).await?;
            Ok(held)
        })
    })
    .await
}
