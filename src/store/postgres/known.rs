//! What this process knows of the database: its name, the newest timeline, and
//! since when connections are to be trusted; and as what the process itself is
//! known there.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::store::StoreError;

/// A connection that was made around a change may be to either side: it is not
/// used twice.
const AROUND: Duration = Duration::from_secs(1);

/// A connection that was made around a change of the incarnation may have the
/// name of the one before.
const NAMED: Duration = Duration::from_millis(100);

/// A connection that lay idle for longer is tried before it is used.
const IDLE: Duration = Duration::from_secs(2);

/// What a server says of itself. Empty and 0 where it may not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) system_id: String,
    pub(super) timeline: u64,
}

/// Shared by the pools and the task that looks for the primary.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<Facts>);

#[derive(Debug, Default)]
struct Facts {
    seen: Seen,
    /// When the timeline was raised, or another address was chosen.
    changed: Option<Instant>,
    /// When the store did not answer last.
    failed: Option<Instant>,
    /// This run of the node, as it joined the cluster, and since when, if that
    /// is not from the start.
    incarnation: String,
    renamed: Option<Instant>,
}

impl Known {
    fn lock(&self) -> std::sync::MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a server may be used; what is new about it is remembered.
    pub(super) fn admit(&self, seen: &Seen) -> Result<(), StoreError> {
        let mut facts = self.lock();
        if facts.seen.system_id.is_empty() {
            facts.seen.system_id.clone_from(&seen.system_id);
        } else if !seen.system_id.is_empty() && facts.seen.system_id != seen.system_id {
            return Err(StoreError::Unavailable(
                "the server has another database: its system identifier differs".to_owned(),
            ));
        }
        // 0: it does not say.
        if seen.timeline != 0 && seen.timeline < facts.seen.timeline {
            return Err(StoreError::Unavailable(
                "the server is an old primary: a newer timeline was seen".to_owned(),
            ));
        }
        facts.raise(seen.timeline);
        Ok(())
    }

    /// Another node works on this timeline. True when it is new here.
    pub(super) fn saw_timeline(&self, timeline: u64) -> bool {
        self.lock().raise(timeline)
    }

    /// Connections made until now are not used again.
    pub(super) fn distrust_connections(&self) {
        self.lock().changed = Some(Instant::now());
    }

    /// The node takes part as this incarnation: fencing sessions are called so.
    pub(super) fn runs_as(&self, incarnation: &str) {
        let mut facts = self.lock();
        if facts.incarnation == incarnation {
            return;
        }
        // The first one is no change.
        if !facts.incarnation.is_empty() {
            facts.renamed = Some(Instant::now());
        }
        incarnation.clone_into(&mut facts.incarnation);
    }

    /// What [`runs_as`](Self::runs_as) said last.
    pub(super) fn incarnation(&self) -> String {
        self.lock().incarnation.clone()
    }

    /// Whether a fencing session of this age is called as the node is now. One
    /// that is not cannot be found by who takes over, should the node freeze.
    pub(super) fn names(&self, age: Duration) -> bool {
        self.lock().renamed.is_none_or(|renamed| age + NAMED <= renamed.elapsed())
    }

    /// Whether a connection of this age was made after the last change.
    pub(super) fn trusts(&self, age: Duration) -> bool {
        self.lock().changed.is_none_or(|changed| age + AROUND <= changed.elapsed())
    }

    /// The store did not answer: what lies idle since then may be broken too.
    pub(super) fn failed(&self) {
        self.lock().failed = Some(Instant::now());
    }

    /// Whether a connection that lay idle for so long is to be tried first.
    pub(super) fn suspects(&self, idle: Duration) -> bool {
        idle >= IDLE || self.lock().failed.is_some_and(|failed| idle >= failed.elapsed())
    }
}

impl Facts {
    fn raise(&mut self, timeline: u64) -> bool {
        if timeline <= self.seen.timeline {
            return false;
        }
        // The first one is no change.
        if self.seen.timeline != 0 {
            self.changed = Some(Instant::now());
        }
        self.seen.timeline = timeline;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(system_id: &str, timeline: u64) -> Seen {
        Seen { system_id: system_id.to_owned(), timeline }
    }

    #[tokio::test(start_paused = true)]
    async fn an_older_timeline_and_another_database_are_not_admitted() {
        let known = Known::default();
        assert!(known.admit(&seen("a", 3)).is_ok());
        assert!(known.trusts(Duration::from_secs(9)), "the first timeline is no change");
        assert!(known.admit(&seen("a", 2)).is_err());
        assert!(known.admit(&seen("b", 4)).is_err());
        assert!(known.admit(&seen("", 0)).is_ok(), "who does not say is believed");
        assert!(known.admit(&seen("a", 4)).is_ok());
        assert!(known.saw_timeline(6) && !known.saw_timeline(5));
        assert!(known.admit(&seen("a", 5)).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn connections_from_before_a_change_are_not_used_again() {
        let known = Known::default();
        known.admit(&seen("a", 1)).expect("admitted");
        known.saw_timeline(2);
        assert!(!known.trusts(Duration::from_secs(5)));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(!known.trusts(Duration::from_millis(2_500)));
        assert!(known.trusts(Duration::from_millis(1_500)));
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_of_an_earlier_incarnation_are_not_used_again() {
        let known = Known::default();
        known.runs_as("first");
        known.runs_as("first");
        assert!(known.names(Duration::from_secs(9)), "the first name is no change");
        tokio::time::advance(Duration::from_secs(3)).await;
        known.runs_as("second");
        assert_eq!(known.incarnation(), "second");
        assert!(!known.names(Duration::ZERO) && !known.names(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(!known.names(Duration::from_secs(2)) && known.names(Duration::from_secs(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_lies_idle_since_a_failure_is_tried_first() {
        let known = Known::default();
        assert!(!known.suspects(Duration::from_secs(1)) && known.suspects(IDLE));
        known.failed();
        assert!(known.suspects(Duration::ZERO));
        tokio::time::advance(Duration::from_millis(500)).await;
        assert!(known.suspects(Duration::from_millis(500)));
        assert!(!known.suspects(Duration::from_millis(499)));
    }
}
