//! When a stop must be over, and what every stop ends with.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::database::Database;
use crate::config::schema;
use crate::drain::{self, Drain, Watch};
use crate::payment::provider::sandbox::Sandbox;
use crate::security::audit::AuditLog;

/// How long the last spans have to leave.
pub(super) const FLUSH: Duration = Duration::from_secs(3);

/// How long forced streams have to be gone.
pub(super) const FORCED: Duration = Duration::from_millis(500);

/// How long the sandbox's books and the audit log have for what they hold.
const LAST_WRITES: Duration = Duration::from_secs(3);

/// How long the store may take to close.
const CLOSE: Duration = Duration::from_secs(15);

/// This part of the grace period is kept for what comes after the streams, and
/// no more than [`LAST_WRITES`] of it.
const RESERVE: u32 = 10;

/// What even a late step may take.
const AT_ONCE: Duration = Duration::from_millis(100);

/// What all late steps may take together, beyond the grace period: there are
/// eight of them.
const LATE: Duration = Duration::from_secs(1);

const UNCLEAN: &str = "the store was not closed cleanly; what was acknowledged stands";

/// Tells each listener, and what stands behind it, to stop.
#[derive(Debug)]
pub(super) struct Stops {
    pub(super) public: Drain,
    pub(super) mesh: Drain,
    pub(super) admin: Drain,
}

/// What is told by [`Stops`].
#[derive(Debug)]
pub(super) struct Watches {
    pub(super) public: Watch,
    pub(super) mesh: Watch,
    pub(super) admin: Watch,
}

/// A stop for each listener, and who hears of it.
pub(super) fn stops() -> (Stops, Watches) {
    let (public, watch) = drain::channel();
    let (mesh, watch_mesh) = drain::channel();
    let (admin, watch_admin) = drain::channel();
    let watches = Watches { public: watch, mesh: watch_mesh, admin: watch_admin };
    (Stops { public, mesh, admin }, watches)
}

/// When a stop must be over. One deadline for all its steps: a step that gets no
/// answer takes the time of those after it, never more than that.
#[derive(Debug)]
pub(super) struct End {
    /// When streams and calls are cut.
    pub(super) cut: Instant,
    /// When everything is over.
    over: Instant,
}

impl End {
    /// Of a stop that begins now.
    pub(super) fn of(shutdown: &schema::Shutdown) -> Self {
        let over = Instant::now() + shutdown.delay + shutdown.grace;
        Self { cut: over - (shutdown.grace / RESERVE).min(LAST_WRITES), over }
    }

    /// The longest that a stop takes.
    pub(super) fn longest(shutdown: &schema::Shutdown) -> Duration {
        shutdown.delay + shutdown.grace + LATE
    }

    pub(super) fn until_the_cut(&self) -> Duration {
        self.cut.saturating_duration_since(Instant::now())
    }

    /// What a step may take: half of what is left, for others come after it, and
    /// not so little that one which is answered at once could fail.
    pub(super) fn at_most(&self, limit: Duration) -> Duration {
        let left = self.over.saturating_duration_since(Instant::now());
        limit.min((left / 2).max(AT_ONCE))
    }

    /// Closes the store and the books, and writes the audit log to its end. What
    /// was acknowledged stands before that.
    pub(super) async fn last_writes(
        &self,
        database: &Database,
        sandbox: &Sandbox,
        audit: &AuditLog,
    ) {
        match timeout(self.at_most(CLOSE), database.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "{UNCLEAN}"),
            Err(_) => tracing::error!("{UNCLEAN}"),
        }
        // A disk that does not answer must not hold up the end.
        if timeout(self.at_most(LAST_WRITES), sandbox.close()).await.is_err() {
            tracing::error!("the sandbox's books were not closed cleanly");
        }
        if timeout(self.at_most(LAST_WRITES), audit.flush()).await.is_err() {
            tracing::error!("the audit log was not written to its end");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However late it is, all of a stop's steps fit into what is said of it.
    #[tokio::test(start_paused = true)]
    async fn a_stop_without_any_answer_is_over_when_it_was_said_to_be() {
        let shutdown =
            schema::Shutdown { delay: Duration::from_secs(5), grace: Duration::from_secs(20) };
        let begun = Instant::now();
        let end = End::of(&shutdown);
        tokio::time::sleep_until(end.over).await;
        // Forced streams, the row, links, store, books, audit, spans, admin.
        let hour = Duration::from_secs(3600);
        for _ in 0..8 {
            tokio::time::sleep(end.at_most(hour)).await;
        }
        let took = begun.elapsed();
        assert!(took <= End::longest(&shutdown), "it took {took:?}");
    }
}
