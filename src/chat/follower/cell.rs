//! What is known of one partition that another node owns. No IO.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::chat::owner::{Room, micros};
use crate::chat::peers::{Position, RoomDelivery};
use crate::refusal::Refusal;
use crate::store::chat::RoomId;

/// Reads that the link has not caught up with; older ones prove nothing any
/// more by the time that it has.
const PENDING: usize = 8;

/// When linked rooms have not been proved for so long, the store is asked for
/// them as well.
const LATE: u64 = 500_000;

/// What may wait for a room to be caught up, bytes; beyond it the rest is read
/// from the store too.
const STASH: usize = 1024 * 1024;

/// Told what came of opening a room.
pub(super) type Waiter = oneshot::Sender<Result<Option<Arc<Room>>, Refusal>>;

/// A partition.
#[derive(Debug, Default)]
pub(super) struct Cell {
    /// As of when every linked room is; microseconds of the boot clock.
    linked_as_of: AtomicU64,
    inner: Mutex<Inner>,
}

/// What its lock guards.
#[derive(Debug, Default)]
pub(crate) struct Inner {
    /// The rooms that are followed: exactly those of the partition that are in
    /// memory, while it is not ours.
    pub(super) rooms: BTreeMap<RoomId, Followed>,
    /// Rooms that are being read for the first time, with who waits for them.
    pub(super) opening: BTreeMap<RoomId, Vec<Waiter>>,
    /// The epoch of the owner that sends.
    link: Option<u64>,
    /// Everything up to this commit has come to the rooms that are linked.
    reached: u64,
    /// Reads that showed more than that: when each began, and what it showed.
    pending: VecDeque<(u64, u64)>,
    /// The newest commit that any read showed.
    pub(super) seen: u64,
    /// The store is being asked for heads.
    pub(super) polling: bool,
}

/// A followed room.
#[derive(Debug)]
pub(super) struct Followed {
    pub(super) room: Arc<Room>,
    /// The owner sends what it appends.
    pub(super) subscribed: bool,
    /// The head that the owner told; there is at least so much.
    pub(super) want: u64,
    /// It had everything up to this commit when it was read from the store.
    pub(super) complete: u64,
    /// While it is being caught up: what came meanwhile.
    pub(super) stash: Option<Stash>,
    /// Who waits for that.
    pub(super) waiters: Vec<Waiter>,
    /// Since when nobody reads it.
    pub(super) unread: Option<Duration>,
}

/// What waits for a room to be caught up.
#[derive(Debug, Default)]
pub(super) struct Stash {
    pub(super) deliveries: Vec<RoomDelivery>,
    bytes: usize,
    /// Something was left out.
    pub(super) lacking: bool,
}

impl Stash {
    pub(super) fn add(&mut self, delivery: RoomDelivery) {
        let bytes: usize = delivery.runs.iter().map(|run| run.bytes.len()).sum();
        if self.lacking || self.bytes + bytes > STASH {
            self.lacking = true;
            return;
        }
        self.bytes += bytes;
        self.deliveries.push(delivery);
    }
}

impl Followed {
    pub(super) fn new(room: Arc<Room>, complete: u64) -> Self {
        Self {
            room,
            subscribed: false,
            want: 0,
            complete,
            stash: None,
            waiters: Vec::new(),
            unread: None,
        }
    }

    /// Whether it is this very room.
    pub(super) fn is(&self, room: &Arc<Room>) -> bool {
        Arc::ptr_eq(&self.room, room)
    }
}

impl Cell {
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As of when every linked room is.
    pub(super) fn linked_as_of(&self) -> u64 {
        self.linked_as_of.load(Ordering::Acquire)
    }

    /// What held for linked rooms as such holds for this one alone from now on.
    pub(super) fn unlink(&self, followed: &mut Followed, reached: u64) {
        if followed.room.is_linked() {
            followed.room.prove(self.linked_as_of());
            followed.complete = followed.complete.max(reached);
            followed.room.set_linked(false);
        }
    }

    /// The owner under this epoch sends; false when a newer one does.
    pub(super) fn link(&self, inner: &mut Inner, position: &Position) -> bool {
        match inner.link {
            Some(epoch) if epoch > position.epoch => return false,
            Some(epoch) if epoch == position.epoch => {}
            _ => self.cut(inner),
        }
        inner.link = Some(position.epoch);
        if !inner.rooms.values().any(|followed| followed.subscribed) {
            inner.reached = position.commit_no;
        }
        true
    }

    /// Nobody sends any more.
    pub(super) fn cut(&self, inner: &mut Inner) {
        let reached = inner.reached;
        for followed in inner.rooms.values_mut() {
            followed.subscribed = false;
            self.unlink(followed, reached);
        }
        inner.link = None;
        inner.pending.clear();
    }

    /// Everything up to a commit has come. True when that proves something.
    pub(super) fn reach(&self, inner: &mut Inner, epoch: u64, commit_no: u64) -> bool {
        if inner.link != Some(epoch) || commit_no < inner.reached {
            return false;
        }
        inner.reached = commit_no;
        let mut proved = 0;
        while let Some((began, shown)) = inner.pending.front().copied() {
            if shown > commit_no {
                break;
            }
            proved = began;
            inner.pending.pop_front();
        }
        self.linked_as_of.fetch_max(proved, Ordering::AcqRel);
        proved > 0
    }

    /// A read that began at `began` showed this commit. True when the store has
    /// to be asked for some rooms.
    pub(super) fn show(&self, inner: &mut Inner, commit_no: u64, began: Duration) -> bool {
        let began = micros(began);
        inner.seen = inner.seen.max(commit_no);
        if inner.rooms.is_empty() {
            return false;
        }
        if inner.link.is_some() {
            if commit_no <= inner.reached {
                self.linked_as_of.fetch_max(began, Ordering::AcqRel);
            } else {
                inner.pending.push_back((began, commit_no));
                if inner.pending.len() > PENDING {
                    inner.pending.pop_front();
                }
            }
        }
        let late = began.saturating_sub(self.linked_as_of()) > LATE;
        let mut ask = false;
        for followed in inner.rooms.values() {
            match followed.room.is_linked() {
                true => ask |= late,
                false if followed.complete >= commit_no => followed.room.prove(began),
                false => ask = true,
            }
        }
        ask && !std::mem::replace(&mut inner.polling, true)
    }

    /// The rooms that the store has to be asked for.
    pub(super) fn unproved(&self, inner: &Inner, now: Duration) -> Vec<RoomId> {
        let late = micros(now).saturating_sub(self.linked_as_of()) > LATE;
        let asked = inner.rooms.iter().filter(|(_, followed)| {
            let due = match followed.room.is_linked() {
                true => late,
                false => followed.complete < inner.seen,
            };
            due && followed.stash.is_none()
        });
        asked.map(|(room, _)| room.clone()).collect()
    }
}

impl Inner {
    /// Everything up to this commit has come to linked rooms.
    pub(super) fn reached(&self) -> u64 {
        self.reached
    }

    /// The partition is ours: gives the rooms that were followed. Who waits for
    /// one is told to ask the owner's task.
    pub(super) fn clear(&mut self) -> Vec<RoomId> {
        let rooms = std::mem::take(&mut self.rooms);
        self.link = None;
        self.pending.clear();
        for followed in rooms.values() {
            followed.room.set_linked(false);
        }
        rooms.into_keys().collect()
    }
}
