//! Stopping in bounded time: a trigger, watchers, and guards that the stop
//! waits for until its deadline.
//!
//! [`channel`] gives a [`Drain`] to whoever stops the node and a cloneable
//! [`Watch`] to whoever must react. Work that the stop should wait for holds a
//! [`Guard`]. [`Drain::drain`] tells everyone, waits until the last guard is
//! dropped or the deadline has come, and then tells everyone that it is over:
//! what still runs is forced to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// How far a stop is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Nobody has asked for a stop.
    Running,
    /// End cleanly, as soon as possible.
    Graceful,
    /// The deadline has passed: end now.
    Forced,
}

/// What a trigger and its watchers share. Watchers are woken in the order in
/// which they began to wait, so that a simulated stop is always the same.
#[derive(Debug, Default)]
struct Shared {
    phase: AtomicU8,
    changed: Notify,
}

impl Shared {
    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Running,
            1 => Phase::Graceful,
            _ => Phase::Forced,
        }
    }

    /// Never back: who has not looked since the deadline would miss it.
    fn raise(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
        self.changed.notify_waiters();
    }
}

/// Makes a trigger and its watcher.
pub fn channel() -> (Drain, Watch) {
    let shared = Arc::new(Shared::default());
    let guards = Arc::new(watch::channel(0).0);
    (Drain { shared: shared.clone(), guards: guards.clone() }, Watch { shared, guards })
}

/// The trigger. Dropped without a stop, watchers wait for ever.
#[derive(Debug)]
pub struct Drain {
    shared: Arc<Shared>,
    guards: Arc<watch::Sender<usize>>,
}

impl Drain {
    /// Asks everyone to end, waits until no guard is held, forces what is left
    /// when the deadline has passed. Returns whether everything ended by
    /// itself. Dropping the future leaves the phase as it is.
    pub async fn drain(&self, deadline: Duration) -> bool {
        self.shared.raise(Phase::Graceful);
        let mut guards = self.guards.subscribe();
        let clean =
            tokio::time::timeout(deadline, guards.wait_for(|held| *held == 0)).await.is_ok();
        self.shared.raise(Phase::Forced);
        clean
    }
}

/// Sees the stop coming.
#[derive(Debug, Clone)]
pub struct Watch {
    shared: Arc<Shared>,
    guards: Arc<watch::Sender<usize>>,
}

impl Watch {
    /// The phase now.
    pub fn phase(&self) -> Phase {
        self.shared.phase()
    }

    /// Waits for the stop to be asked for. Cancel safe.
    pub async fn graceful(&mut self) {
        self.at_least(Phase::Graceful).await;
    }

    /// Waits for the deadline to have passed. Cancel safe.
    pub async fn forced(&mut self) {
        self.at_least(Phase::Forced).await;
    }

    /// Makes the stop wait, until its deadline, for the guard to be dropped.
    pub fn guard(&self) -> Guard {
        self.guards.send_modify(|held| *held += 1);
        Guard { guards: self.guards.clone() }
    }

    async fn at_least(&self, phase: Phase) {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            // Before looking: what comes after the look wakes.
            changed.as_mut().enable();
            if self.phase() >= phase {
                return;
            }
            changed.await;
        }
    }
}

/// Held by work that the stop waits for.
#[derive(Debug)]
#[must_use = "the stop waits only while the guard is held"]
pub struct Guard {
    guards: Arc<watch::Sender<usize>>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.guards.send_modify(|held| *held -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stop_waits_for_guards_and_no_longer_than_its_deadline() {
        let (drain, mut watch) = channel();
        let guard = watch.guard();
        let worker = crate::task::spawn("worker", async move {
            watch.graceful().await;
            drop(guard);
            watch.forced().await;
        });
        assert!(drain.drain(Duration::from_secs(5)).await);
        worker.await.expect("the worker saw both phases");

        let (drain, watch) = channel();
        let stuck = watch.guard();
        assert!(!drain.drain(Duration::from_secs(5)).await);
        assert_eq!(watch.phase(), Phase::Forced);
        drop(stuck);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_forced_stays_forced_when_the_stop_is_asked_for_again() {
        let (drain, watch) = channel();
        let mut worker = watch.clone();
        let guard = watch.guard();
        let worker = crate::task::spawn("worker", async move {
            worker.forced().await;
            drop(guard);
        });
        assert!(!drain.drain(Duration::from_secs(5)).await);
        // Nothing has run since the deadline: the worker sees it only now.
        assert!(drain.drain(Duration::from_secs(5)).await, "the worker was not told to end");
        worker.await.expect("the worker saw the end");
    }
}
