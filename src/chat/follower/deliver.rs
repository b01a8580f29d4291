//! What a link brings.

use std::sync::Arc;

use super::catch_up;
use super::cell::Followed;
use crate::chat::log::Chunk;
use crate::chat::owner::{Room, Shared, keep_budget, now};
use crate::chat::peers::{Delivery, Position, RoomDelivery};
use crate::chat::session::Reader;
use crate::chat::trace;
use crate::fault::{self, Plant};
use crate::store::chat::RoomId;

/// What became of a room's part.
pub(super) enum Fate {
    /// It is in the room.
    Taken,
    /// It was there before.
    Known,
    /// It does not follow what is here: the store has to be read.
    Lacking,
    /// The room is no more.
    Deleted,
}

/// An owner committed.
pub(crate) fn deliver(shared: &Arc<Shared>, delivery: Delivery) {
    let Delivery { partition, epoch, commit_no, rooms } = delivery;
    let cell = shared.follower.cell(partition);
    let (mut touched, mut ended) = (Vec::new(), Vec::new());
    let proved = {
        let mut inner = cell.lock();
        let reached = inner.reached();
        for mut delivery in rooms {
            let Some(followed) = inner.rooms.get_mut(&delivery.room) else { continue };
            if let Some(stash) = &mut followed.stash {
                stash.add(delivery);
                continue;
            }
            let readers = followed.room.readers();
            let traced = std::mem::take(&mut delivery.traces);
            match put(shared, followed, delivery) {
                Fate::Taken => touched.push((followed.room.clone(), readers, traced)),
                Fate::Known => {}
                Fate::Lacking => catch_up::start(shared, followed, reached, None),
                Fate::Deleted => ended.push((followed.room.clone(), readers)),
            }
        }
        for (room, _) in &ended {
            forget(shared, &mut inner, room);
        }
        cell.reach(&mut inner, epoch, commit_no)
    };
    for (room, readers, traced) in touched {
        wake(&room, &readers, &traced);
    }
    for (room, readers) in ended {
        end(shared, &room, &readers);
    }
    if proved {
        shared.wake_halted();
    }
    if shared.budget.excess() > 0 {
        keep_budget(shared);
    }
}

/// Puts a room's part into it, as far as it is new. Called with the cell's lock.
pub(super) fn put(shared: &Shared, followed: &Followed, delivery: RoomDelivery) -> Fate {
    if delivery.deleted {
        return Fate::Deleted;
    }
    let (room, head) = (&followed.room, followed.room.head());
    let Some(last) = delivery.runs.last() else { return Fate::Lacking };
    if last.first.saturating_add(last.ends.len() as u64) <= head + 1 {
        return Fate::Known;
    }
    let mut chunks: Vec<Chunk> = Vec::with_capacity(delivery.runs.len());
    for run in &delivery.runs {
        let after = chunks.last().map_or(head, Chunk::last);
        if run.first.saturating_add(run.ends.len() as u64) <= after + 1 {
            continue;
        }
        match Chunk::of_run(run, after, &shared.budget) {
            Some(chunk) if chunk.first() == after + 1 => chunks.push(chunk),
            _ => return Fate::Lacking,
        }
    }
    match room.extend(chunks, &delivery.changes, now()) {
        true => Fate::Taken,
        false => Fate::Lacking,
    }
}

/// Takes a room that is no more out of memory. Called with the cell's lock.
pub(super) fn forget(shared: &Shared, inner: &mut super::Inner, room: &Arc<Room>) {
    if inner.rooms.get(room.id()).is_some_and(|followed| followed.is(room)) {
        inner.rooms.remove(room.id());
        shared.rooms().remove(room.id());
    }
}

/// Ends the readers of a room that is no more.
pub(super) fn end(shared: &Shared, room: &Room, readers: &[Arc<Reader>]) {
    room.end();
    readers.iter().for_each(|reader| reader.wake());
    if let Some(peers) = &shared.peers {
        peers.unfollow(room.partition(), room.id());
    }
}

/// Wakes the readers, in a span below each traced entry's.
pub(super) fn wake(room: &Room, readers: &[Arc<Reader>], traced: &[(u64, String)]) {
    if !readers.is_empty() {
        for (seq, traceparent) in traced {
            let readers = readers.len();
            let span = trace::delivering(room.id(), *seq, readers);
            trace::below(&span, traceparent);
            span.in_scope(|| tracing::trace!("delivered"));
        }
    }
    readers.iter().for_each(|reader| reader.wake());
}

/// An owner sends from now on what it appends to these rooms.
pub(crate) fn followed(shared: &Arc<Shared>, position: &Position, heads: &[(RoomId, u64)]) {
    let cell = shared.follower.cell(position.partition);
    let mut inner = cell.lock();
    if shared.view.epoch(position.partition).is_some() || !cell.link(&mut inner, position) {
        return;
    }
    let reached = inner.reached();
    for (room, head) in heads {
        let Some(followed) = inner.rooms.get_mut(room) else { continue };
        followed.subscribed = true;
        // A room that is not there (0) is looked for as well.
        followed.want = followed.want.max(*head);
        if followed.stash.is_some() {
            continue;
        }
        let complete = *head != 0 && *head <= followed.room.head() && !followed.room.is_suspended();
        if complete || fault::planted(Plant::NoResync) {
            followed.room.set_linked(true);
        } else {
            catch_up::start(shared, followed, reached, None);
        }
    }
}

/// Everything that the owner committed up to here has been delivered.
pub(crate) fn reached(shared: &Shared, position: &Position) {
    let cell = shared.follower.cell(position.partition);
    let proved = cell.reach(&mut cell.lock(), position.epoch, position.commit_no);
    if proved {
        shared.wake_halted();
    }
}

/// Nobody sends the partition's appends.
pub(crate) fn unlinked(shared: &Shared, partition: u16) {
    let cell = shared.follower.cell(partition);
    cell.cut(&mut cell.lock());
}
