//! What the clients of a run did and saw, on one clock.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::history::{Event, What};

/// The record of a run.
#[derive(Debug)]
pub struct Record {
    begun: Instant,
    events: Mutex<Vec<Event>>,
}

impl Record {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { begun: Instant::now(), events: Mutex::default() }
    }

    /// Since the run began.
    pub fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Something happened just now. What is sent is told before it is sent, what
    /// is received after it was.
    pub fn tell(&self, client: &str, room: &str, what: What) {
        self.tell_at(self.now(), client, room, what);
    }

    /// Something happened at a time.
    pub fn tell_at(&self, at: Duration, client: &str, room: &str, what: What) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.push(Event { at, client: client.into(), room: room.into(), what });
    }

    /// Everything so far.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
