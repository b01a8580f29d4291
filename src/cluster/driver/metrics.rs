//! What the driver counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::store::cluster::NodeState;

/// A node's state as a label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    state: &'static str,
}

/// The driver's metrics. Clones share them.
#[derive(Debug, Clone)]
pub struct ClusterMetrics {
    nodes: Family<Of, Gauge>,
    pub(super) owned: Gauge,
    pub(super) unowned: Gauge,
    pub(super) takes: Counter,
    pub(super) handovers: Counter,
    pub(super) handover_seconds: Histogram,
    pub(super) lost: Counter,
    pub(super) declared: Counter,
    pub(super) died: Counter,
    pub(super) beat_age: Gauge<f64, std::sync::atomic::AtomicU64>,
    pub(super) read_failures: Counter,
    pub(super) sessions_moved: Counter,
}

impl ClusterMetrics {
    /// Makes them and shows them in a registry.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::unregistered();
        let at = registry.sub_registry_with_prefix("cluster");
        at.register("nodes", "Nodes by state, as this one sees them", metrics.nodes.clone());
        at.register("partitions_owned", "Partitions that this node owns", metrics.owned.clone());
        at.register(
            "partitions_unowned",
            "Partitions that no live node owns, as this one sees them",
            metrics.unowned.clone(),
        );
        at.register("takes", "Partitions taken", metrics.takes.clone());
        at.register("handovers", "Partitions handed over", metrics.handovers.clone());
        at.register(
            "handover_seconds",
            "Time from stopping to order a partition to its release, seconds",
            metrics.handover_seconds.clone(),
        );
        at.register(
            "partitions_lost",
            "Partitions lost to a fence, an unknown outcome or another owner",
            metrics.lost.clone(),
        );
        at.register("deaths_declared", "Nodes declared dead by this one", metrics.declared.clone());
        at.register("died", "Times this node was declared dead", metrics.died.clone());
        at.register(
            "beat_age_seconds",
            "Since the newest beat that reached the store, seconds",
            metrics.beat_age.clone(),
        );
        at.register(
            "read_failures",
            "Reads of the cluster's tables that failed or took too long",
            metrics.read_failures.clone(),
        );
        at.register(
            "sessions_moved",
            "Chat sessions told to go to another node for balance",
            metrics.sessions_moved.clone(),
        );
        metrics
    }

    /// Metrics that nobody reads.
    pub fn unregistered() -> Self {
        Self {
            nodes: Family::default(),
            owned: Gauge::default(),
            unowned: Gauge::default(),
            takes: Counter::default(),
            handovers: Counter::default(),
            handover_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 12)),
            lost: Counter::default(),
            declared: Counter::default(),
            died: Counter::default(),
            beat_age: Gauge::default(),
            read_failures: Counter::default(),
            sessions_moved: Counter::default(),
        }
    }

    pub(super) fn nodes(&self, states: impl Iterator<Item = NodeState>) {
        let mut counts = [0_i64; 4];
        for state in states {
            counts[index(state)] += 1;
        }
        for state in [NodeState::Live, NodeState::Draining, NodeState::Left, NodeState::Dead] {
            self.nodes.get_or_create(&Of { state: word(state) }).set(counts[index(state)]);
        }
    }
}

fn index(state: NodeState) -> usize {
    match state {
        NodeState::Live => 0,
        NodeState::Draining => 1,
        NodeState::Left => 2,
        NodeState::Dead => 3,
    }
}

fn word(state: NodeState) -> &'static str {
    match state {
        NodeState::Live => "live",
        NodeState::Draining => "draining",
        NodeState::Left => "left",
        NodeState::Dead => "dead",
    }
}
