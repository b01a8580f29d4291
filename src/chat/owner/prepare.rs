//! What a group needs before it can be decided: its rooms in memory, and what
//! the store remembers under its keys.

use std::collections::{BTreeMap, HashMap};

use futures_util::future::join_all;

use super::Shared;
use super::batch::{Batch, before, key_name};
use super::load::know;
use crate::chat::Job;
use crate::refusal::Refusal;
use crate::store::chat::{KeyName, RoomId};

/// Brings the group's rooms into memory and, if they are to be looked up, its
/// keys out of the store; gives the proposals that can be decided. One call per
/// partition that has keys.
pub(super) async fn prepare(
    shared: &Shared,
    batch: &mut Batch<'_>,
    jobs: Vec<Job>,
    look_up: bool,
) -> Vec<Job> {
    let no_room = rooms(shared, batch, &jobs).await;
    if !look_up && no_room.is_empty() {
        return jobs;
    }
    let mut names = BTreeMap::<u16, Vec<KeyName>>::new();
    let asked = jobs.iter().filter(|job| look_up && !no_room.contains_key(&job.proposal.room));
    for job in asked {
        let wanted = names.entry(job.partition).or_default();
        wanted.extend(key_name(job));
        wanted.extend(before(job));
    }
    let no_keys = keys(shared, batch, names).await;
    let mut ready = Vec::with_capacity(jobs.len());
    for job in jobs {
        let room = &job.proposal.room;
        let refusal = no_room
            .get(room)
            .or_else(|| if no_keys.is_empty() { None } else { no_keys.get(&job.partition) });
        match refusal.cloned() {
            Some(refusal) => batch.refuse(job, refusal),
            None => ready.push(job),
        }
    }
    ready
}

async fn rooms(shared: &Shared, batch: &mut Batch<'_>, jobs: &[Job]) -> HashMap<RoomId, Refusal> {
    let mut ids: Vec<&RoomId> = jobs.iter().map(|job| &job.proposal.room).collect();
    // Most of a busy room's proposals follow each other.
    ids.dedup();
    ids.sort_unstable();
    ids.dedup();
    let known = join_all(ids.iter().map(|id| know(shared, id))).await;
    let mut refused = HashMap::new();
    for (id, known) in ids.into_iter().zip(known) {
        match known {
            Ok((partition, epoch, known)) => batch.room(id.clone(), partition, epoch, known),
            Err(refusal) => {
                refused.insert(id.clone(), refusal);
            }
        }
    }
    refused
}

async fn keys(
    shared: &Shared,
    batch: &mut Batch<'_>,
    names: BTreeMap<u16, Vec<KeyName>>,
) -> HashMap<u16, Refusal> {
    let looked_up = join_all(names.into_iter().map(|(partition, names)| async move {
        (partition, shared.store.keys(partition, names.clone()).await, names)
    }));
    let mut unknown = HashMap::new();
    for (partition, records, names) in looked_up.await {
        match records {
            Ok(records) => {
                let found = names.into_iter().zip(records);
                found
                    .filter_map(|(name, record)| Some((name, record?)))
                    .for_each(|(name, record)| batch.key(name, record));
            }
            Err(error) => {
                unknown.insert(partition, Refusal::from(error));
            }
        }
    }
    unknown
}
