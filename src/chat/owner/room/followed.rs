//! What a room does while another node owns it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Room;
use crate::chat::log::Chunk;
use crate::store::chat::Change;

impl Room {
    /// Whether a link brings everything.
    pub(crate) fn is_linked(&self) -> bool {
        self.linked.load(Ordering::Acquire)
    }

    pub(crate) fn set_linked(&self, linked: bool) {
        self.linked.store(linked, Ordering::Release);
    }

    /// As of when the store was last seen to have no more.
    pub(crate) fn as_of(&self) -> u64 {
        self.as_of.load(Ordering::Acquire)
    }

    /// It has all that the store had at this time.
    pub(crate) fn prove(&self, as_of: u64) {
        self.as_of.fetch_max(as_of, Ordering::AcqRel);
    }

    /// Puts what another node committed into the log, with what it changed. False
    /// when it does not follow what is here: nothing is taken then.
    pub(crate) fn extend(&self, chunks: Vec<Chunk>, changes: &[Change], now: Duration) -> bool {
        let mut inner = self.lock();
        let fits = chunks.first().is_none_or(|first| first.first() == inner.tail.head() + 1);
        if inner.state.is_none() || !fits || !inner.tail.append(chunks, now) {
            return false;
        }
        let head = inner.tail.head();
        // What nobody reads leaves memory, however much is written to it.
        if !inner.readers.is_empty() {
            inner.used = now;
        }
        if let Some(state) = &mut inner.state {
            changes.iter().for_each(|change| state.apply(change));
            state.head = head;
        }
        if !changes.is_empty() {
            Self::check_readers(&mut inner);
        }
        self.head.store(head, Ordering::Release);
        true
    }

    /// Halts the readers until [`Room::resume`]. The log in memory is right, but
    /// there may be more.
    pub(crate) fn pause(&self) {
        self.lock().state = None;
    }

    /// Whether anybody reads it.
    pub(crate) fn is_read(&self) -> bool {
        !self.lock().readers.is_empty()
    }
}
