//! Rooms of other nodes that somebody reads here.
//!
//! # The invariant
//!
//! A followed room is a [`Room`] like any other: a contiguous suffix of its log,
//! its rules' state, its readers. What differs is who brings it on. Everything
//! that is put into it was committed before, by whoever owned it then; it is put
//! there only right after the head, with what it changed. So what is here is
//! always some prefix of the log with the members of that prefix, whatever is
//! lost, doubled or delayed on the way, and a reader notices nothing but time.
//!
//! # Who brings it on
//!
//! *A link* (`deliver`): the owner's commits in order. What is known already
//! is passed over; what does not follow the head, or what this release does not
//! know, has the room caught up from the store, and what comes meanwhile waits
//! for that (its stash).
//!
//! *The store* (`catch_up`): at first, when a link left something out, and
//! while there is none. One task at a time brings a room on; nothing else puts
//! entries into it meanwhile.
//!
//! # How fresh it is
//!
//! Readers go on with a room that is known to have had, at most a second ago,
//! everything that the store had. Three things prove it for a time T:
//!
//! - a read of the partition's row that began at T showed commit number N, and
//!   the link has brought everything up to N. One proof for all linked rooms of
//!   the partition ([`cell::Cell::linked_as_of`]);
//! - a read of the row that began at T showed N, and the room was caught up from
//!   the store after a read that showed N as well: nothing was committed since;
//! - a read of the room's head in the store that began at T showed no more than
//!   what is here. Every change of members is an entry, so the head tells.
//!
//! Commit numbers only grow, whoever owns the partition: none of this needs to
//! know the owner, and a room stays fresh while it changes hands. T is the boot
//! clock's: a process that was frozen finds every proof too old, and asks.
//!
//! # Changing hands
//!
//! Each partition has a [`cell::Cell`] whose lock holds its role in place: it is
//! taken to give the partition away, to take it in, and to put anything into a
//! followed room or into the table of rooms. A partition that becomes ours has
//! its rooms paused (their logs are right, but there may be more) until the
//! owner's task has read them; one that is given away has its rooms followed
//! from where they are, as of when the node last knew that it owned them.
//!
//! Order of locks: a cell, then the table of rooms, then a room, then a
//! session's. The peers are never called with any of them held.

mod catch_up;
mod cell;
mod deliver;
mod open;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use super::owner::{Room, Shared, is_fresh};
use crate::store::chat::{PartitionState, RoomId};
use cell::{Cell, Followed, Inner};

pub(crate) use catch_up::{look, see};
pub(crate) use deliver::{deliver, followed, reached, unlinked};
pub(crate) use open::open;
pub(crate) use watch::{care, observed};

/// The partitions' cells.
#[derive(Debug)]
pub(crate) struct Follower {
    cells: Vec<Cell>,
    /// For numbers that no partition has; nothing is ever put there.
    nowhere: Cell,
}

impl Follower {
    /// Follows nothing yet.
    pub(crate) fn new(partitions: u16) -> Self {
        let cells = (0..partitions).map(|_| Cell::default()).collect();
        Self { cells, nowhere: Cell::default() }
    }

    fn cell(&self, partition: u16) -> &Cell {
        self.cells.get(usize::from(partition)).unwrap_or(&self.nowhere)
    }

    /// Holds the partition's role, and its part of the table of rooms.
    pub(crate) fn lock(&self, partition: u16) -> MutexGuard<'_, Inner> {
        self.cell(partition).lock()
    }

    /// Whether a followed room may be relied on now.
    pub(crate) fn is_fresh(&self, room: &Room, now: Duration) -> bool {
        is_fresh(room.as_of(), now)
            || (room.is_linked() && is_fresh(self.cell(room.partition()).linked_as_of(), now))
    }

    /// Makes a partition that is ours one whose rooms are followed; they have
    /// everything up to this commit (0 when that is not known). Nothing happens,
    /// and false is returned, unless it is ours, and under this epoch if one is
    /// given.
    pub(crate) fn take_over(
        &self,
        shared: &Shared,
        partition: u16,
        under: Option<u64>,
        complete: u64,
    ) -> bool {
        let mut follow = Vec::new();
        {
            let mut cell = self.lock(partition);
            let epoch = shared.view.epoch(partition);
            if epoch.is_none() || under.is_some_and(|under| epoch != Some(under)) {
                return false;
            }
            let as_of = shared.view.confirmed(partition);
            for room in in_use(shared, partition) {
                room.set_linked(false);
                // One that waits to be read back is read when it is looked at.
                if !room.is_suspended() {
                    room.prove(as_of);
                }
                follow.push(room.id().clone());
                cell.rooms.insert(room.id().clone(), Followed::new(room, complete));
            }
            shared.view.lose(partition);
        }
        if let Some(peers) = &shared.peers {
            follow.iter().for_each(|room| peers.follow(partition, room));
        }
        true
    }

    /// Makes a partition ours. Its rooms are paused until the owner's task reads
    /// them.
    pub(crate) fn hand_over(&self, shared: &Shared, taken: &PartitionState, began: Duration) {
        let partition = taken.partition;
        let followed = {
            let mut cell = self.lock(partition);
            for room in in_use(shared, partition) {
                room.pause();
                room.set_linked(false);
            }
            let followed = cell.clear();
            shared.view.take(std::slice::from_ref(taken), began);
            followed
        };
        if let Some(peers) = &shared.peers {
            followed.iter().for_each(|room| peers.unfollow(partition, room));
        }
    }

    /// The rooms of a partition that are followed.
    pub(crate) fn rooms(&self, partition: u16) -> Vec<RoomId> {
        self.lock(partition).rooms.keys().cloned().collect()
    }
}

/// The partition's rooms in memory that somebody reads; the others leave it.
/// Called with the cell's lock.
fn in_use(shared: &Shared, partition: u16) -> Vec<Arc<Room>> {
    let mut used = Vec::new();
    shared.rooms().retain(|_, room| {
        if room.partition() != partition {
            return true;
        }
        let unread = room.retire(None);
        if !unread {
            used.push(room.clone());
        }
        !unread
    });
    used
}
