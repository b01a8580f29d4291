//! Whether the node is ready, and for what it waits, as a probe sees it.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::readiness::Readiness;

/// Shows it at each scrape.
pub fn register(registry: &mut Registry, readiness: &Readiness) {
    registry.register_collector(Box::new(Ready(readiness.clone())));
}

#[derive(Debug)]
struct Ready(Readiness);

impl Collector for Ready {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let waits = self.0.pending();
        let help = "1 while the node is ready to serve, 0 while something is pending";
        let ready = encoder.encode_descriptor("node_ready", help, None, MetricType::Gauge)?;
        ConstGauge::new(i64::from(waits.is_empty())).encode(ready)?;
        let help = "1 for each thing that the node waits for, shown only while it does";
        let mut pending =
            encoder.encode_descriptor("node_pending", help, None, MetricType::Gauge)?;
        for what in waits {
            ConstGauge::new(1i64).encode(pending.encode_family(&[("what", what)])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics;

    #[test]
    fn what_is_pending_is_named_and_makes_the_node_not_ready() {
        let (mut registry, readiness) = (metrics::registry(), Readiness::new());
        register(&mut registry, &readiness);
        let guard = readiness.hold("draining");
        let text = metrics::encode(&registry);
        assert!(text.contains("\nsimpul_node_ready 0\n"), "{text}");
        assert!(text.contains("simpul_node_pending{what=\"draining\"} 1"), "{text}");
        drop(guard);
        let text = metrics::encode(&registry);
        assert!(text.contains("\nsimpul_node_ready 1\n"), "{text}");
        assert!(!text.contains("simpul_node_pending{"), "{text}");
    }
}
