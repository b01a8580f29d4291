//! What links count.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::hello::Cause;
use crate::telemetry::latency::ROUND_TRIPS;

/// The links' metrics. Clones share them.
#[derive(Debug, Clone)]
pub struct LinkMetrics {
    pub(super) links: Gauge,
    pub(super) nodes: Gauge,
    pub(super) lost: Counter,
    pub(super) round_trip: Histogram,
    pub(super) backlog: Gauge,
    pub(super) resyncs: Counter,
    pub(super) refused: Family<[(&'static str, &'static str); 1], Counter>,
    pub(in crate::cluster) forwarded: Counter,
    pub(in crate::cluster) relayed: Counter,
    pub(in crate::cluster) letters: Counter,
    pub(in crate::cluster) waiting: Gauge,
}

impl LinkMetrics {
    /// Makes them and shows them in a registry.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::unregistered();
        // What has not happened yet is shown as 0.
        for cause in Cause::ALL {
            drop(metrics.refused.get_or_create(&[("reason", cause.as_str())]));
        }
        let at = registry.sub_registry_with_prefix("link");
        at.register(
            "open",
            "Connections of links to other nodes that stand",
            metrics.links.clone(),
        );
        at.register("nodes", "Other nodes to which a link stands", metrics.nodes.clone());
        at.register(
            "lost",
            "Connections of links that ended while the other node took part",
            metrics.lost.clone(),
        );
        at.register(
            "round_trip_seconds",
            "Round trips of pings on links, seconds",
            metrics.round_trip.clone(),
        );
        at.register(
            "backlog_bytes",
            "Bytes that wait to be sent to other nodes",
            metrics.backlog.clone(),
        );
        at.register(
            "resyncs",
            "How often a partition's appends were left out for a full backlog",
            metrics.resyncs.clone(),
        );
        at.register(
            "refused",
            "Links refused here or by the other node, by what does not fit",
            metrics.refused.clone(),
        );
        at.register(
            "publishes_forwarded",
            "Publishes sent to another owner over a link of this node",
            metrics.forwarded.clone(),
        );
        at.register(
            "publishes_relayed",
            "Publishes sent through a third node",
            metrics.relayed.clone(),
        );
        at.register(
            "publishes_by_letter",
            "Publishes left in the store for their owner",
            metrics.letters.clone(),
        );
        at.register(
            "publishes_waiting",
            "Publishes for other owners that are not answered yet",
            metrics.waiting.clone(),
        );
        metrics
    }

    /// Makes them for nobody to see.
    pub fn unregistered() -> Self {
        Self {
            links: Gauge::default(),
            nodes: Gauge::default(),
            lost: Counter::default(),
            round_trip: Histogram::new(ROUND_TRIPS),
            backlog: Gauge::default(),
            resyncs: Counter::default(),
            refused: Family::default(),
            forwarded: Counter::default(),
            relayed: Counter::default(),
            letters: Counter::default(),
            waiting: Gauge::default(),
        }
    }

    pub(super) fn refused(&self, cause: Cause) {
        self.refused.get_or_create(&[("reason", cause.as_str())]).inc();
    }
}
