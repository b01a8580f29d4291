//! What reads of the partitions' rows show, and what nobody reads any more.

use std::sync::Arc;
use std::time::Duration;

use super::catch_up::{self, Head};
use crate::chat::owner::{Shared, micros, now};
use crate::fault::{self, Plant};
use crate::store::chat::PartitionState;
use crate::task;

/// How many heads are read at once.
const HEADS: usize = 256;

/// How often it is looked for rooms that nobody reads.
const CARE: Duration = Duration::from_secs(1);

/// How long a room that nobody reads is followed: who comes back finds it.
const UNREAD: Duration = Duration::from_secs(30);

/// A read of the partitions' rows that began at `began`.
pub(crate) fn observed(shared: &Arc<Shared>, rows: &[PartitionState], began: Duration) {
    shared.view.confirm(rows, began);
    for row in rows {
        let cell = shared.follower.cell(row.partition);
        let doubted = cell.show(&mut cell.lock(), row.commit_no, began);
        if doubted && !fault::planted(Plant::NoResync) {
            task::spawn("heads", poll(shared.clone(), row.partition));
        }
    }
    shared.wake_halted();
}

/// Asks the store for the heads of the rooms that nothing else proves.
async fn poll(shared: Arc<Shared>, partition: u16) {
    let cell = shared.follower.cell(partition);
    let (rooms, seen) = {
        let inner = cell.lock();
        (cell.unproved(&inner, now()), inner.seen)
    };
    for some in rooms.chunks(HEADS) {
        let began = now();
        let heads = match shared.store.heads(partition, some.to_vec()).await {
            Ok(heads) => heads,
            // Readers stop when the rooms are too old; the next read looks again.
            Err(error) => {
                tracing::warn!(%error, partition, "the heads of rooms could not be read");
                break;
            }
        };
        let mut inner = cell.lock();
        let reached = inner.reached();
        for (id, head) in some.iter().zip(heads) {
            let Some(followed) = inner.rooms.get_mut(id) else { continue };
            let room = &followed.room;
            if followed.stash.is_some() {
                continue;
            }
            if head.is_some_and(|head| head <= room.head()) && !room.is_suspended() {
                room.prove(micros(began));
                followed.complete = followed.complete.max(seen);
            } else {
                catch_up::start(&shared, followed, reached, Some(Head { head, began, seen }));
            }
        }
    }
    cell.lock().polling = false;
    shared.wake_halted();
}

/// Lets go of what nobody reads, for ever.
pub(crate) async fn care(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(CARE);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        (0..shared.view.count()).for_each(|partition| tidy(&shared, partition, now()));
    }
}

/// Unfollows what nobody has read for a while.
pub(super) fn tidy(shared: &Shared, partition: u16, now: Duration) {
    let mut left = Vec::new();
    {
        let mut cell = shared.follower.lock(partition);
        cell.rooms.retain(|id, followed| {
            if followed.room.is_read() || followed.stash.is_some() {
                followed.unread = None;
                return true;
            }
            let since = *followed.unread.get_or_insert(now);
            if now.saturating_sub(since) < UNREAD || !followed.room.retire(None) {
                return true;
            }
            shared.rooms().remove(id);
            left.push(id.clone());
            false
        });
    }
    if let Some(peers) = &shared.peers {
        left.iter().for_each(|room| peers.unfollow(partition, room));
    }
}
