//! What leaves memory: rooms that may not be relied on, and what is too much.

use std::sync::Arc;

use super::{Room, Shared};

/// Somebody else owns the partition: its rooms halt, or are followed.
pub(super) fn fenced(shared: &Shared, partition: u16, epoch: u64) {
    shared.metrics.fenced.inc();
    if shared.peers.is_some() {
        tracing::warn!(partition, epoch, "the partition was taken by another node");
        return give_up(shared, partition, epoch);
    }
    tracing::error!(partition, "the partition was taken by another owner");
    shared.view.lose(partition);
    shared.rooms().retain(|_, room| room.partition() != partition || !suspend(room));
}

/// The partition is ours no more under this epoch: its rooms are followed, and
/// the peers are told.
pub(super) fn give_up(shared: &Shared, partition: u16, epoch: u64) {
    shared.follower.take_over(shared, partition, Some(epoch), 0);
    if let Some(peers) = &shared.peers {
        peers.lost(partition, epoch);
    }
}

/// Nothing in memory may be relied on.
pub(super) fn forget(shared: &Shared) {
    shared.view.lose_all();
    shared.rooms().retain(|_, room| !suspend(room));
}

/// Suspends a room; true when nobody reads it, so that it can go.
fn suspend(room: &Arc<Room>) -> bool {
    room.suspend();
    room.retire(None)
}

/// Cuts the least used rooms down until the budget is kept, as far as that can
/// be: what HTTP/2 holds is not ours to drop.
pub(crate) fn keep_budget(shared: &Shared) {
    let rooms = shared.all_rooms();
    if shared.budget.excess() > 0 {
        let mut by_use: Vec<_> = rooms.iter().map(|room| (room.used(), room)).collect();
        by_use.sort_unstable_by_key(|(used, _)| *used);
        for (_, room) in by_use {
            let excess = shared.budget.excess();
            if excess == 0 {
                break;
            }
            room.shrink(room.bytes().saturating_sub(excess));
        }
    }
    let metrics = &shared.metrics;
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    metrics.rooms.set(count(rooms.len()));
    metrics.held_bytes.set(count(shared.budget.held()));
    metrics.pinned_bytes.set(count(shared.budget.pinned()));
}
