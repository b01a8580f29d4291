//! A room in memory: its rules' state, its log, and who reads it.
//!
//! The owner's task alone changes what the room is. Sessions take slices. Both
//! hold the lock briefly and never while they wait for anything. Order of
//! locks: a session's `reading`, then a room, then a session's `out`.

mod followed;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::chat::RoomAccess;
use crate::chat::log::{Budget, Chunk, DATA_FRAME, Feed, Pages, Slice, Tail};
use crate::chat::rules::RoomState;
use crate::chat::session::Reader;
use crate::principal::Principal;
use crate::store::chat::{RoomId, RoomRole};

/// How soon those who wait for other readers look again.
pub(crate) const HOLD: Duration = Duration::from_millis(10);

/// A room. Lives while it is in the owner's table or somebody reads it.
#[derive(Debug)]
pub(crate) struct Room {
    id: RoomId,
    partition: u16,
    /// The newest entry that readers may have, to be looked at without the lock.
    head: AtomicU64,
    /// While another node owns it: everything that its owner committed is known
    /// to come over a link. Changed by the follower, under its lock.
    linked: AtomicBool,
    /// While another node owns it: as of when the store was last seen to have no
    /// more than what is here; microseconds of the boot clock, 0 for never.
    as_of: AtomicU64,
    page_entries: u32,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    /// As the committed entries made it; `None` while that is not known (it is
    /// suspended), or the room is deleted.
    pub(crate) state: Option<RoomState>,
    tail: Tail,
    pages: Pages,
    /// Copied when it changes, so that a pass over it needs no lock.
    readers: Arc<Vec<Arc<Reader>>>,
    /// Those who wait for a page.
    waiting: Vec<Arc<Reader>>,
    /// Somebody is about to call [`Room::go_on`].
    holding: bool,
    /// No reader may be added: it has left the owner's table.
    gone: bool,
    used: Duration,
}

/// What a reader gets.
#[derive(Debug)]
pub(crate) enum Pull {
    /// It has everything.
    Nothing,
    /// Whole frames, the cursor after them, and whether they came from a page.
    Data {
        /// The frames.
        bytes: Bytes,
        /// The cursor after them.
        cursor: u64,
        /// The reader is behind the tail.
        behind: bool,
    },
    /// A page is being read; the reader is woken.
    Waiting,
    /// A page waits for the readers of others; the caller calls
    /// [`Room::go_on`] after [`HOLD`].
    Hold,
    /// The caller starts reading a page; the reader is woken.
    Load {
        /// After this seq.
        after: u64,
        /// How many.
        limit: u64,
    },
    /// The room is suspended; the reader is woken when it goes on.
    Suspended,
}

impl Room {
    pub(crate) fn new(
        state: RoomState,
        partition: u16,
        sizes: &crate::config::schema::Chat,
        budget: &Arc<Budget>,
        now: Duration,
    ) -> Self {
        let page_bytes = sizes.room_tail_bytes.saturating_mul(4);
        Self {
            id: state.room.clone(),
            partition,
            head: AtomicU64::new(state.head),
            linked: AtomicBool::new(false),
            as_of: AtomicU64::new(0),
            page_entries: sizes.page_entries,
            inner: Mutex::new(Inner {
                tail: Tail::new(state.head, sizes.room_tail_bytes, budget.clone()),
                pages: Pages::new(sizes.page_entries, page_bytes, budget.clone()),
                state: Some(state),
                readers: Arc::default(),
                waiting: Vec::new(),
                holding: false,
                gone: false,
                used: now,
            }),
        }
    }

    pub(crate) fn id(&self) -> &RoomId {
        &self.id
    }

    pub(crate) fn partition(&self) -> u16 {
        self.partition
    }

    /// The newest entry that readers may have.
    pub(crate) fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics between two changes that belong together.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What comes after the reader's cursor.
    pub(crate) fn pull(&self, reader: &Arc<Reader>, cursor: u64, now: Duration) -> Pull {
        let mut inner = self.lock();
        // Under the lock: whoever ends the membership holds it too.
        if reader.has_ended() {
            return Pull::Nothing;
        }
        if inner.state.is_none() {
            return Pull::Suspended;
        }
        inner.used = now;
        match inner.tail.slice(cursor, DATA_FRAME) {
            Slice::AtHead => Pull::Nothing,
            Slice::Data(bytes, cursor) => Pull::Data { bytes, cursor, behind: false },
            Slice::Behind => self.feed(&mut inner, reader, cursor, now),
        }
    }

    fn feed(&self, inner: &mut Inner, reader: &Arc<Reader>, cursor: u64, now: Duration) -> Pull {
        let start = inner.tail.start();
        if cursor + u64::from(self.page_entries) + 1 >= start {
            inner.tail.pin(now);
        }
        let pull = match inner.pages.feed(cursor, start, DATA_FRAME, now) {
            Feed::Data(bytes, cursor) => return Pull::Data { bytes, cursor, behind: true },
            Feed::Loading => Pull::Waiting,
            Feed::Hold if std::mem::replace(&mut inner.holding, true) => Pull::Waiting,
            Feed::Hold => Pull::Hold,
            Feed::Load { after, limit } => Pull::Load { after, limit },
        };
        if !inner.waiting.iter().any(|other| Arc::ptr_eq(other, reader)) {
            inner.waiting.push(reader.clone());
        }
        pull
    }

    /// A page was read, or could not be.
    pub(crate) fn loaded(&self, after: u64, chunks: Option<Vec<Chunk>>, now: Duration) {
        let waiting = {
            let mut inner = self.lock();
            match chunks {
                Some(chunks) => inner.pages.loaded(after, chunks, now),
                None => inner.pages.failed(after),
            }
            std::mem::take(&mut inner.waiting)
        };
        waiting.iter().for_each(|reader| reader.wake());
    }

    /// Those who waited for other readers look again.
    pub(crate) fn go_on(&self) {
        let waiting = {
            let mut inner = self.lock();
            inner.holding = false;
            std::mem::take(&mut inner.waiting)
        };
        waiting.iter().for_each(|reader| reader.wake());
    }

    /// Adds a reader and tells it the head and its role while the membership
    /// cannot change: what is said of its end comes after. `Err` when the room
    /// is gone from the table (ask for it again); false when it is no member.
    pub(crate) fn enter(
        &self,
        reader: &Arc<Reader>,
        tell: impl FnOnce(u64, RoomRole),
    ) -> Result<bool, Gone> {
        let mut inner = self.lock();
        if inner.gone {
            return Err(Gone);
        }
        let Some(state) = &inner.state else { return Err(Gone) };
        let Some(role) = state.role(reader.principal()) else { return Ok(false) };
        let head = state.head;
        reader.begin(role);
        Arc::make_mut(&mut inner.readers).push(reader.clone());
        tell(head, role);
        Ok(true)
    }

    /// What a member has of it. `Err` as in [`Room::enter`].
    pub(crate) fn access(&self, who: &Principal) -> Result<Option<RoomAccess>, Gone> {
        let inner = self.lock();
        let Some(state) = inner.state.as_ref().filter(|_| !inner.gone) else { return Err(Gone) };
        Ok(state.role(who).map(|role| RoomAccess {
            role,
            head: state.head,
            title: state.title.clone(),
            created_by: state.created_by.clone(),
            created_at: state.created_at,
        }))
    }

    /// Takes a reader away.
    pub(crate) fn leave(&self, reader: &Arc<Reader>) {
        let mut inner = self.lock();
        inner.waiting.retain(|other| !Arc::ptr_eq(other, reader));
        if let Some(index) = inner.readers.iter().position(|other| Arc::ptr_eq(other, reader)) {
            Arc::make_mut(&mut inner.readers).swap_remove(index);
        }
    }

    /// The oldest entry that is in memory; the one after the head when none is.
    pub(crate) fn tail_start(&self) -> u64 {
        self.lock().tail.start()
    }

    /// Who reads now.
    pub(crate) fn readers(&self) -> Arc<Vec<Arc<Reader>>> {
        self.lock().readers.clone()
    }

    /// Puts what was committed into the log: the state as it is now, and the
    /// entries. Ends or tells readers whose membership changed.
    pub(crate) fn commit(&self, state: Option<RoomState>, chunks: Vec<Chunk>, now: Duration) {
        let mut inner = self.lock();
        if !inner.tail.append(chunks, now) {
            // The store took them, so our view of the log is wrong: ask again.
            tracing::error!(room = %self.id, "the log in memory does not fit the committed entries");
            inner.state = None;
            return;
        }
        let head = inner.tail.head();
        inner.used = now;
        let changed = state.is_some();
        if changed {
            inner.state = state;
        }
        if let Some(state) = &mut inner.state {
            state.head = head;
        }
        if changed {
            Self::check_readers(&mut inner);
        }
        self.head.store(head, Ordering::Release);
    }

    fn check_readers(inner: &mut Inner) {
        let Some(state) = &inner.state else { return };
        let readers = inner.readers.clone();
        let ended = readers
            .iter()
            .filter(|reader| !reader.update_role(state.role(reader.principal())))
            .count();
        if ended > 0 {
            Arc::make_mut(&mut inner.readers).retain(|reader| !reader.has_ended());
        }
    }

    /// What is in memory may be wrong: forgets it, and halts the readers.
    pub(crate) fn suspend(&self) {
        let mut inner = self.lock();
        inner.state = None;
        inner.pages.clear();
        let head = inner.tail.head();
        inner.tail.reset(head);
    }

    /// Goes on from what the store has; `None` when the room is no more. `more`
    /// are the entries up to there that were not here; without them the log
    /// begins anew where memory ended before.
    pub(crate) fn resume(&self, state: Option<RoomState>, more: Vec<Chunk>, now: Duration) {
        let Some(state) = state else { return self.end() };
        let mut inner = self.lock();
        let follows = more.first().is_some_and(|first| first.first() == inner.tail.head() + 1);
        if follows {
            inner.tail.append(more, now);
        }
        if inner.tail.head() != state.head {
            inner.tail.reset(state.head);
        }
        self.head.store(state.head, Ordering::Release);
        inner.state = Some(state);
        Self::check_readers(&mut inner);
    }

    /// The room is deleted: ends every reader.
    pub(crate) fn end(&self) {
        let mut inner = self.lock();
        inner.gone = true;
        inner.state = None;
        inner.pages.clear();
        inner.tail.reset(0);
        for reader in std::mem::take(&mut inner.readers).iter() {
            reader.update_role(None);
        }
    }

    /// Whether it is suspended.
    pub(crate) fn is_suspended(&self) -> bool {
        let inner = self.lock();
        inner.state.is_none() && !inner.gone
    }

    /// Marks it gone if nobody reads it and it was last used before `before`
    /// (or whenever, without that).
    pub(crate) fn retire(&self, before: Option<Duration>) -> bool {
        let mut inner = self.lock();
        let idle = before.is_none_or(|before| inner.used < before);
        if inner.readers.is_empty() && idle {
            inner.gone = true;
        }
        inner.gone
    }

    /// When it was last read or written.
    pub(crate) fn used(&self) -> Duration {
        self.lock().used
    }

    /// Cuts memory to at most so many bytes of tail; pages go altogether.
    pub(crate) fn shrink(&self, tail_bytes: usize) {
        let mut inner = self.lock();
        inner.pages.clear();
        inner.tail.shrink(tail_bytes);
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        let inner = self.lock();
        inner.tail.bytes() + inner.pages.bytes()
    }
}

/// The room left the owner's table or is suspended: ask the owner again.
#[derive(Debug)]
pub(crate) struct Gone;
