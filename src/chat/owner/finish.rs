//! What follows a commit: memory first, then the other nodes and the answers,
//! then everybody is woken.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::batch::{Batch, Known, Outcome, RoomChange};
use super::load::know;
use super::memory::keep_budget;
use super::{Room, Shared, now};
use crate::chat::log::Chunk;
use crate::chat::peers::{Delivery, RoomDelivery};
use crate::chat::rules::{self, RoomState};
use crate::chat::session::{Reader, Session};
use crate::chat::{Job, Peers, Proposal, Published, follower, job};
use crate::refusal::{Reason, Refusal};

/// What comes of a job for which nothing was appended.
pub(super) const NOTHING: Published = Published { seq: 0, committed_at: 0, redactions: 0 };

/// A partition's part of a group is durable.
#[derive(Debug, Clone, Copy)]
pub(super) struct Commit {
    pub(super) partition: u16,
    pub(super) epoch: u64,
    pub(super) commit_no: u64,
}

/// Hands one of this node's jobs to the peers.
pub(super) fn pass_on(peers: &Arc<dyn Peers>, mut job: Job) {
    job.name();
    peers.submit(job.partition, job);
}

/// Answers everybody. What this node does not own goes on to whoever does,
/// unless it was brought here.
pub(super) fn answer(shared: &Shared, outcomes: impl IntoIterator<Item = (Job, Outcome)>) {
    settle(shared, outcomes).iter().for_each(|session| session.wake());
}

/// As [`answer`]; gives the sessions that are to be woken.
fn settle(
    shared: &Shared,
    outcomes: impl IntoIterator<Item = (Job, Outcome)>,
) -> Vec<Arc<Session>> {
    let mut answered = Vec::new();
    for (job, outcome) in outcomes {
        if outcome.is_ok() {
            shared.recent.stands(&job);
        }
        let not_owned = matches!(&outcome, Err(why) if why.reason == Reason::NotOwner);
        match &shared.peers {
            Some(peers) if not_owned && !job.is_brought() => pass_on(peers, job),
            _ => answered.extend(job.settle(outcome)),
        }
    }
    answered
}

/// A group is durable.
pub(super) fn finish(shared: &Arc<Shared>, mut batch: Batch<'_>, commits: &[Commit]) {
    let mut touched = Vec::new();
    let mut sent: BTreeMap<u16, Vec<RoomDelivery>> = BTreeMap::new();
    for mut change in batch.take_changes() {
        if shared.peers.is_some() {
            sent.entry(change.partition).or_default().push(delivery(&mut change));
        }
        touched.extend(commit(shared, change));
    }
    for commit in commits {
        let rooms = sent.remove(&commit.partition).unwrap_or_default();
        tell(shared, commit, rooms);
    }
    let answered = settle(shared, batch.into_outcomes());
    touched.iter().for_each(|readers| readers.iter().for_each(|reader| reader.wake()));
    answered.iter().for_each(|session| session.wake());
    if shared.budget.excess() > 0 {
        keep_budget(shared);
    }
}

/// Puts a room's part into memory; gives its readers.
fn commit(shared: &Shared, change: RoomChange) -> Option<Arc<Vec<Arc<Reader>>>> {
    let RoomChange { room, id, partition, epoch, state, chunks, .. } = change;
    // While it is held nobody gives the partition away.
    let _cell = shared.peers.is_some().then(|| shared.follower.lock(partition));
    if shared.peers.is_some() && shared.view.epoch(partition) != Some(epoch) {
        // It was given away meanwhile: its rooms learn of it as of any other
        // node's commit.
        return None;
    }
    let at = now();
    let room = match (room, &state) {
        (Some(room), _) => room,
        (None, Some(created)) => {
            let empty = RoomState { head: 0, ..created.clone() };
            let room = Room::new(empty, partition, &shared.config, &shared.budget, at);
            let room = Arc::new(room);
            shared.rooms().insert(id, room.clone());
            room
        }
        // A room begins with a change.
        (None, None) => return None,
    };
    let before = room.readers();
    room.commit(state, chunks, at);
    Some(before)
}

/// What other nodes get of a room's part.
fn delivery(change: &mut RoomChange) -> RoomDelivery {
    RoomDelivery {
        room: change.id.clone(),
        runs: change.chunks.iter().map(Chunk::run).collect(),
        changes: std::mem::take(&mut change.changes),
        traces: std::mem::take(&mut change.traces),
        deleted: false,
    }
}

/// Tells the other nodes of a commit that is in memory. Whoever subscribed
/// before this asks is told here; whoever does later sees it in the heads.
fn tell(shared: &Arc<Shared>, commit: &Commit, rooms: Vec<RoomDelivery>) {
    let Some(peers) = &shared.peers else { return };
    let Commit { partition, epoch, commit_no } = *commit;
    let delivery = Delivery { partition, epoch, commit_no, rooms };
    if peers.is_followed() {
        peers.appended(&delivery);
    }
    shared.view.committed(partition, epoch, commit_no);
    if shared.view.epoch(partition) != Some(epoch) {
        follower::deliver(shared, delivery);
    }
}

/// The room that a job deletes; `None` when that was done before.
pub(super) async fn to_delete(shared: &Shared, job: &Job) -> Result<Option<Arc<Room>>, Refusal> {
    let Proposal { room: id, sender, client_message_id, .. } = &job.proposal;
    match know(shared, id).await?.2 {
        Known::Room(room) => {
            rules::may_delete(room.lock().state.as_ref(), sender)?;
            Ok(Some(room))
        }
        // The node's own name: the call may be sent again. Nobody learns more
        // by it than by trying to create the room.
        Known::Deleted if job::is_call(client_message_id) => Ok(None),
        Known::Missing | Known::Deleted => Err(Refusal::not_found("room")),
    }
}

/// A room is deleted: it ends in memory, here and elsewhere.
pub(super) fn deleted(shared: &Arc<Shared>, room: &Room, commit: &Commit) {
    {
        let _cell = shared.follower.lock(commit.partition);
        shared.rooms().remove(room.id());
    }
    let readers = room.readers();
    room.end();
    let (runs, changes, traces) = (Vec::new(), Vec::new(), Vec::new());
    let ended = RoomDelivery { room: room.id().clone(), runs, changes, traces, deleted: true };
    tell(shared, commit, vec![ended]);
    readers.iter().for_each(|reader| reader.wake());
}
