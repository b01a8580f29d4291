//! What leaves memory: rooms that may not be relied on, and what is too much.

use std::sync::Arc;

use super::{Room, Shared};

/// Somebody else owns the partition: its rooms halt.
pub(super) fn fenced(shared: &Shared, partition: u16) {
    tracing::error!(partition, "the partition was taken by another owner");
    shared.metrics.fenced.inc();
    shared.view.lose(partition);
    shared.rooms().retain(|_, room| room.partition() != partition || !suspend(room));
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
pub(super) fn keep_budget(shared: &Shared) {
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
