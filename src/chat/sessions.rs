//! The node's open sessions: counted, and told to go elsewhere.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::session::Session;
use crate::chance;
use crate::refusal::Refusal;

/// Every open session. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sessions(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    open: BTreeMap<u64, Weak<Session>>,
    entered: u64,
    /// Where sessions were told to go last; a stop of the node names it too.
    hints: Arc<[String]>,
}

impl Sessions {
    /// Adds one; gives the number to take it away by.
    pub(crate) fn enter(&self, session: &Arc<Session>) -> u64 {
        let mut inner = self.lock();
        inner.entered += 1;
        let number = inner.entered;
        inner.open.insert(number, Arc::downgrade(session));
        number
    }

    /// Takes one away.
    pub(crate) fn leave(&self, number: u64) {
        self.lock().open.remove(&number);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.lock().open.len()
    }

    /// How many are behind the tail of a room that they read.
    pub(crate) fn behind(&self) -> usize {
        self.all().iter().filter(|session| session.is_behind()).count()
    }

    /// Where to go, as far as that is known.
    pub(crate) fn hints(&self) -> Arc<[String]> {
        self.lock().hints.clone()
    }

    /// Tells so many of those that were not told before, picked at random.
    /// Returns how many were.
    pub(crate) fn tell_move(&self, count: usize, hints: &[String], jitter: Duration) -> usize {
        self.lock().hints = hints.into();
        let mut sessions = self.all();
        sessions.retain(|session| !session.has_moved());
        chance::shuffle(&mut sessions);
        sessions.iter().take(count).filter(|session| session.tell_move(hints, jitter)).count()
    }

    /// Ends all; returns how many there were.
    pub(crate) fn turn_away(&self, why: &Refusal) -> usize {
        let (sessions, hints) = (self.all(), self.hints());
        sessions.iter().for_each(|session| session.turn_away(why.clone(), &hints));
        sessions.len()
    }

    /// No lock is held while they are told.
    fn all(&self) -> Vec<Arc<Session>> {
        self.lock().open.values().filter_map(Weak::upgrade).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
