//! What the store counts: commits, what they took, how many writes they held,
//! and whether writing works.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::telemetry::latency::ROUND_TRIPS;

/// The store's metrics. Clones count together.
#[derive(Debug, Clone)]
pub struct StoreMetrics {
    commit: Histogram,
    group: Histogram,
    failures: Counter,
    writable: Gauge,
}

impl Default for StoreMetrics {
    fn default() -> Self {
        Self {
            commit: Histogram::new(ROUND_TRIPS),
            group: Histogram::new(exponential_buckets(1.0, 2.0, 9)),
            failures: Counter::default(),
            writable: Gauge::default(),
        }
    }
}

impl StoreMetrics {
    /// Metrics that the registry shows, under `store_`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("store");
        registry.register_with_unit(
            "commit",
            "How long a group's transaction took, its fsync included",
            Unit::Seconds,
            metrics.commit.clone(),
        );
        registry.register(
            "commit_group",
            "How many writes were committed together",
            metrics.group.clone(),
        );
        registry.register(
            "commit_failures",
            "Groups that failed whole, by the disk or the commit",
            metrics.failures.clone(),
        );
        registry.register(
            "writable",
            "1 while writing works, 0 from a failed commit until a write succeeds",
            metrics.writable.clone(),
        );
        metrics
    }

    pub(super) fn committed(&self, size: usize, took: Duration, well: bool) {
        self.commit.observe(took.as_secs_f64());
        self.group.observe(f64::from(u32::try_from(size).unwrap_or(u32::MAX)));
        if !well {
            self.failures.inc();
        }
    }

    pub(super) fn writable(&self, writable: bool) {
        self.writable.set(i64::from(writable));
    }
}
