//! What the accept loop counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Why something ended or never began.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Why {
    /// One of a few fixed words.
    pub reason: &'static str,
}

/// Why handshakes fail.
const HANDSHAKE_FAILURES: [&str; 5] = ["closed", "draining", "peer", "timeout", "tls"];

/// A listener's metrics. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    pub(super) connections: Gauge,
    pub(super) handshakes: Gauge,
    pub(super) handshake_failures: Family<Why, Counter>,
    pub(super) refused: Counter,
    pub(super) accept_errors: Counter,
    pub(super) closed: Family<Why, Counter>,
}

impl Metrics {
    /// Shows them under `server_…`.
    pub fn register(&self, registry: &mut Registry) {
        let server = registry.sub_registry_with_prefix("server");
        server.register("connections", "Connections open", self.connections.clone());
        server.register("handshakes", "TLS handshakes under way", self.handshakes.clone());
        server.register(
            "handshake_failures",
            "Handshakes that failed, by reason",
            self.handshake_failures.clone(),
        );
        server.register("refused_connections", "Connections over the cap", self.refused.clone());
        server.register("accept_errors", "Errors of accept()", self.accept_errors.clone());
        server.register("closed_connections", "Connections ended, by cause", self.closed.clone());
    }

    /// The mesh listener's: only what shows strangers at its door, under
    /// `link_…`; what became of the others the links say. What has not happened
    /// yet is shown as 0.
    pub fn mesh(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for reason in HANDSHAKE_FAILURES {
            drop(metrics.handshake_failures.get_or_create(&Why { reason }));
        }
        registry.sub_registry_with_prefix("link").register(
            "handshake_failures",
            "Handshakes that failed on the mesh listener, by reason",
            metrics.handshake_failures.clone(),
        );
        metrics
    }

    pub(super) fn handshake_failed(&self, reason: &'static str) {
        self.handshake_failures.get_or_create(&Why { reason }).inc();
    }

    pub(super) fn closed_by(&self, reason: &'static str) {
        self.closed.get_or_create(&Why { reason }).inc();
    }
}

/// Counts in a gauge as long as it lives.
#[derive(Debug)]
pub(super) struct Counted(Gauge);

impl Counted {
    pub(super) fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
