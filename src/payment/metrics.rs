//! What is counted of payments.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::store::payment::{Backlog, OperationKind};
use crate::telemetry::latency::Latency;

/// Seconds: from an answer of the sandbox to what a provider may take at most. The
/// threshold of the alert on them is among them.
static CALL_BUCKETS: [f64; 14] =
    [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    provider: &'static str,
    operation: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    provider: &'static str,
    call: &'static str,
}

/// The area's metrics. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PaymentMetrics {
    outcomes: Family<OutcomeLabels, Counter>,
    calls: Family<CallLabels, Latency, fn() -> Latency>,
    alarms: Counter,
    depth: Gauge,
    age: Gauge,
}

impl PaymentMetrics {
    /// Makes and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            outcomes: Family::default(),
            calls: Family::new_with_constructor(|| Latency::new(&CALL_BUCKETS)),
            alarms: Counter::default(),
            depth: Gauge::default(),
            age: Gauge::default(),
        };
        registry.register("payment_outcomes", "Answers of providers", metrics.outcomes.clone());
        registry.register(
            "payment_provider_call_seconds",
            "How long calls to providers take",
            metrics.calls.clone(),
        );
        registry.register(
            "payment_alarms",
            "Answers that an operator must look at",
            metrics.alarms.clone(),
        );
        registry.register(
            "payment_outbox_rows",
            "Operations and receipts that are still to be done",
            metrics.depth.clone(),
        );
        registry.register(
            "payment_outbox_oldest_seconds",
            "The age of the oldest of them that does not wait for its payer or the provider",
            metrics.age.clone(),
        );
        metrics
    }

    pub(super) fn outcome(
        &self,
        provider: &'static str,
        operation: OperationKind,
        result: &'static str,
    ) {
        let labels = OutcomeLabels { provider, operation: operation.as_str(), result };
        self.outcomes.get_or_create(&labels).inc();
    }

    pub(super) fn called(&self, provider: &'static str, call: &'static str, took: Duration) {
        self.calls.get_or_create(&CallLabels { provider, call }).observe(took);
    }

    pub(super) fn alarm(&self) {
        self.alarms.inc();
    }

    pub(super) fn backlog(&self, backlog: Backlog, now: i64) {
        let age = backlog.oldest.map_or(0, |oldest| now.saturating_sub(oldest).max(0) / 1_000_000);
        self.depth.set(i64::try_from(backlog.depth).unwrap_or(i64::MAX));
        self.age.set(age);
    }
}
