//! What the chat service counts.

use std::fmt;
use std::sync::{Arc, OnceLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::sessions::Sessions;
use crate::telemetry::latency::ROUND_TRIPS;

/// The chat metrics. Clones share them.
#[derive(Debug, Clone)]
pub struct ChatMetrics {
    sessions: Gauge,
    lagging: Lagging,
    pub(crate) rooms: Gauge,
    pub(crate) held_bytes: Gauge,
    pub(crate) pinned_bytes: Gauge,
    pub(crate) append_seconds: Histogram,
    pub(crate) batch_entries: Histogram,
    pub(crate) page_loads: Counter,
    pub(crate) stale_views: Counter,
    pub(crate) fenced: Counter,
    pub(crate) unknown_outcomes: Counter,
}

impl ChatMetrics {
    /// Makes them and shows them in a registry.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::unregistered();
        let at = registry.sub_registry_with_prefix("chat");
        at.register("sessions", "Open Chat streams", metrics.sessions.clone());
        at.register_collector(Box::new(metrics.lagging.clone()));
        at.register("rooms_in_memory", "Rooms in memory", metrics.rooms.clone());
        at.register(
            "held_bytes",
            "Encoded entries in tails and pages, bytes",
            metrics.held_bytes.clone(),
        );
        at.register(
            "pinned_bytes",
            "Encoded entries that only unsent slices keep, bytes",
            metrics.pinned_bytes.clone(),
        );
        at.register(
            "append_seconds",
            "Time of one group commit, seconds",
            metrics.append_seconds.clone(),
        );
        at.register("batch_entries", "Entries in one group commit", metrics.batch_entries.clone());
        at.register("page_loads", "Pages read from the store", metrics.page_loads.clone());
        at.register(
            "stale_views",
            "Times a reader halted because its membership was not confirmed in time",
            metrics.stale_views.clone(),
        );
        at.register("fenced", "Appends refused for an old epoch", metrics.fenced.clone());
        at.register(
            "unknown_outcomes",
            "Appends whose outcome was not known",
            metrics.unknown_outcomes.clone(),
        );
        metrics
    }

    /// Makes them for nobody to see.
    pub fn unregistered() -> Self {
        Self {
            sessions: Gauge::default(),
            lagging: Lagging::default(),
            rooms: Gauge::default(),
            held_bytes: Gauge::default(),
            pinned_bytes: Gauge::default(),
            append_seconds: Histogram::new(ROUND_TRIPS),
            batch_entries: Histogram::new(exponential_buckets(1.0, 2.0, 12)),
            page_loads: Counter::default(),
            stale_views: Counter::default(),
            fenced: Counter::default(),
            unknown_outcomes: Counter::default(),
        }
    }

    /// One more open stream, while the guard lives.
    pub(crate) fn session(&self) -> Counting {
        Counting::new(&self.sessions)
    }

    /// These are the node's sessions.
    pub(crate) fn shows(&self, sessions: &Sessions) {
        // A node has one chat service: the first counts.
        let _ = self.lagging.0.set(sessions.clone());
    }
}

/// How many sessions are behind, looked up at each scrape: one whose client
/// takes nothing does not run, and could not count itself.
#[derive(Debug, Clone, Default)]
struct Lagging(Arc<OnceLock<Sessions>>);

impl Collector for Lagging {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let behind = self.0.get().map_or(0, Sessions::behind);
        let help = "Chat streams that have yet to read what their rooms hold in the store alone";
        let gauge = encoder.encode_descriptor("lagging_sessions", help, None, MetricType::Gauge)?;
        ConstGauge::new(i64::try_from(behind).unwrap_or(i64::MAX)).encode(gauge)
    }
}

/// Raises a gauge by one while it lives.
#[derive(Debug)]
pub(crate) struct Counting(Gauge);

impl Counting {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.0.dec();
    }
}
