//! What is asked of a store, as an operator sees it: a span of kind client after
//! the conventions for databases, how long it took, and what went wrong.
//!
//! What a node does by itself, beats and looks for work, has no span: an idle
//! cluster would fill a trace store with traces of one span each.
//!
//! A conflict is an answer, not an error: it is neither counted nor marked. What
//! its caller gave up counts with the time until then: a store that hangs would
//! look quick otherwise.

use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tracing::{Span, field};

use super::StoreError;
use crate::task;
use crate::telemetry::context;
use crate::telemetry::latency::Latency;

/// Seconds: from a read of what is in memory to a statement's own limit.
static BUCKETS: [f64; 15] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    15.0,
];

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// The counts of a store's operations. Clones count together.
#[derive(Debug, Clone)]
pub struct Operations {
    reads: Latency,
    writes: Latency,
    errors: Family<Labels<2>, Counter>,
}

impl Default for Operations {
    fn default() -> Self {
        Self {
            reads: Latency::new(&BUCKETS),
            writes: Latency::new(&BUCKETS),
            errors: Family::default(),
        }
    }
}

/// Reading or writing.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Read,
    Write,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

impl Operations {
    /// Counts that the registry shows, under `store_`.
    pub fn register(registry: &mut Registry) -> Self {
        let operations = Self::default();
        let times: Family<Labels<1>, Latency, fn() -> Latency> =
            Family::new_with_constructor(|| Latency::new(&BUCKETS));
        let shared = |kind: Kind| times.get_or_create(&[("kind", kind.as_str())]).clone();
        let operations =
            Self { reads: shared(Kind::Read), writes: shared(Kind::Write), ..operations };
        // What has not happened yet is shown as 0.
        for kind in [Kind::Read, Kind::Write] {
            for reason in StoreError::KINDS {
                drop(operations.errors.get_or_create(&labels(kind, reason)));
            }
        }
        let at = registry.sub_registry_with_prefix("store");
        at.register("operation_seconds", "Time of one read or write of the store, seconds", times);
        at.register(
            "operation_errors",
            "Reads and writes of the store that failed, by reason",
            operations.errors.clone(),
        );
        operations
    }

    /// Something is read. The operation names its span. Example:
    /// `ledger.history`.
    pub(crate) fn read(&self, system: &'static str, operation: &'static str) -> Asked<'_> {
        let span = || {
            tracing::info_span!(
                "store.read",
                otel.name = operation,
                otel.kind = "client",
                otel.status_code = field::Empty,
                db.system.name = system,
                db.operation.name = operation,
                "error.type" = field::Empty,
            )
        };
        self.ask(Kind::Read, span)
    }

    /// Something is written. Example: `payment.claim`.
    pub(crate) fn write(&self, system: &'static str, operation: &'static str) -> Asked<'_> {
        let span = || {
            tracing::info_span!(
                "store.write",
                otel.name = operation,
                otel.kind = "client",
                otel.status_code = field::Empty,
                db.system.name = system,
                db.operation.name = operation,
                "error.type" = field::Empty,
            )
        };
        self.ask(Kind::Write, span)
    }

    fn ask(&self, kind: Kind, span: impl FnOnce() -> Span) -> Asked<'_> {
        let recorded = context::current().is_some_and(|place| place.is_recorded());
        let span = if recorded { span() } else { Span::none() };
        Asked { counts: self, kind, span, began: Instant::now() }
    }

    fn took(&self, kind: Kind, time: Duration) {
        match kind {
            Kind::Read => self.reads.observe(time),
            Kind::Write => self.writes.observe(time),
        }
    }
}

/// One read or write that is under way.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    counts: &'a Operations,
    kind: Kind,
    span: Span,
    began: Instant,
}

impl Asked<'_> {
    /// What does the work runs in it.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// It is over, and this came of it.
    pub(crate) fn done<T>(self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error) = &result
            && let Some(reason) = error.kind()
        {
            self.span.record("otel.status_code", "ERROR");
            self.span.record("error.type", reason);
            self.counts.errors.get_or_create(&labels(self.kind, reason)).inc();
        }
        result
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.counts.took(self.kind, self.began.elapsed());
    }
}

fn labels(kind: Kind, reason: &'static str) -> Labels<2> {
    [("kind", kind.as_str()), ("reason", reason)]
}

/// Shows as `store_writable` whether a store that is elsewhere is reached, for
/// as long as it is open.
pub fn show_health(registry: &mut Registry, mut health: watch::Receiver<bool>) {
    let writable = Gauge::<i64>::default();
    let help = "1 while writing works, 0 while the store is not reached";
    registry.sub_registry_with_prefix("store").register("writable", help, writable.clone());
    task::spawn("store health", async move {
        loop {
            writable.set(i64::from(*health.borrow_and_update()));
            if health.changed().await.is_err() {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics;

    #[test]
    fn an_answer_is_timed_and_only_a_failure_is_an_error() {
        let mut registry = metrics::registry();
        let operations = Operations::register(&mut registry);
        let conflict = operations.write("sqlite", "payment.claim");
        assert!(conflict.done::<()>(Err(StoreError::Conflict("taken"))).is_err());
        let gone = operations.read("sqlite", "ledger.history");
        assert!(gone.done::<()>(Err(StoreError::Unavailable("gone".to_owned()))).is_err());
        drop(operations.write("sqlite", "chat.append"));
        let text = metrics::encode(&registry);
        for line in [
            "simpul_store_operation_seconds_count{kind=\"write\"} 2",
            "simpul_store_operation_seconds_count{kind=\"read\"} 1",
            "simpul_store_operation_errors_total{kind=\"read\",reason=\"unavailable\"} 1",
            "simpul_store_operation_errors_total{kind=\"write\",reason=\"unavailable\"} 0",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[tokio::test]
    async fn what_is_not_reached_shows_as_not_writable() {
        let mut registry = metrics::registry();
        let (healthy, health) = watch::channel(true);
        show_health(&mut registry, health);
        for reached in [true, false, true] {
            healthy.send_replace(reached);
            let line = format!("simpul_store_writable {}", i32::from(reached));
            let shown = async {
                while !metrics::encode(&registry).contains(&line) {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(5), shown).await.expect("shown");
        }
    }
}
