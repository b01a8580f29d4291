//! Histograms of times whose buckets each name a trace: the way from a slow
//! bucket on a dashboard to one call that was so slow.
//!
//! Only traces that are recorded are named; others cannot be found. Between two
//! scrapes a bucket takes the first one alone, so that an exemplar costs a busy
//! node one bit to look at and no more.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::{MetricType, TypedMetric};

use super::context::{self, TraceContext};

/// Upper ends of buckets, in seconds, for what takes a round trip or a commit. The
/// thresholds of the alerts on them are among these: between two of them a
/// quantile is a guess.
pub const ROUND_TRIPS: [f64; 16] = [
    0.0001, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// The labels of an exemplar.
type Named = [(&'static str, String); 1];

/// A histogram of seconds. Clones count together.
#[derive(Debug, Clone)]
pub struct Latency {
    counts: HistogramWithExemplars<Named>,
    /// The upper ends of the buckets but the last, which has none; at most 31.
    bounds: &'static [f64],
    /// A bit for each bucket that has named a trace since the last scrape.
    named: Arc<AtomicU32>,
}

impl Latency {
    /// With these upper ends of its buckets, in seconds, rising; those after the
    /// 31st are left out.
    pub fn new(bounds: &'static [f64]) -> Self {
        let bounds = bounds.get(..31).unwrap_or(bounds);
        Self {
            counts: HistogramWithExemplars::new(bounds.iter().copied()),
            bounds,
            named: Arc::default(),
        }
    }

    /// Counts a time of what runs now.
    pub fn observe(&self, took: Duration) {
        self.observe_in(took, context::current());
    }

    /// Counts a time of what has this place in its trace.
    pub fn observe_in(&self, took: Duration, place: Option<TraceContext>) {
        let seconds = took.as_secs_f64();
        let exemplar = place.filter(TraceContext::is_recorded).and_then(|place| {
            let bucket = self.bounds.partition_point(|bound| *bound < seconds);
            let bit = 1_u32.checked_shl(u32::try_from(bucket).ok()?)?;
            let first = self.named.load(Ordering::Relaxed) & bit == 0
                && self.named.fetch_or(bit, Ordering::Relaxed) & bit == 0;
            first.then(|| [("trace_id", place.trace_id())])
        });
        let at = exemplar.is_some().then(SystemTime::now);
        self.counts.observe(seconds, exemplar, at);
    }
}

impl EncodeMetric for Latency {
    fn encode(&self, encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let encoded = self.counts.encode(encoder);
        self.named.store(0, Ordering::Relaxed);
        encoded
    }

    fn metric_type(&self) -> MetricType {
        <Self as TypedMetric>::TYPE
    }
}

impl TypedMetric for Latency {
    const TYPE: MetricType = MetricType::Histogram;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics;

    const BOUNDS: [f64; 2] = [0.01, 1.0];

    fn place(flags: u8) -> Option<TraceContext> {
        TraceContext::parse(&format!("00-{:032x}-{:016x}-{flags:02x}", 0xabc, 0xdef))
    }

    #[test]
    fn each_bucket_names_one_recorded_trace_a_scrape() {
        let mut registry = metrics::registry();
        let latency = Latency::new(&BOUNDS);
        registry.register("call_seconds", "Calls", latency.clone());
        let named = || {
            let text = metrics::encode(&registry);
            let lines = text.lines().filter(|line| line.starts_with("simpul_call_seconds_bucket"));
            lines.map(|line| line.contains("# {trace_id=\"0000")).collect::<Vec<_>>()
        };
        latency.observe_in(Duration::from_millis(5), place(0));
        latency.observe_in(Duration::from_millis(5), None);
        assert_eq!(named(), [false, false, false], "nobody could find them");
        latency.observe_in(Duration::from_secs(2), place(1));
        latency.observe_in(Duration::from_millis(5), place(1));
        let other = TraceContext::parse(&format!("00-{:032x}-{:016x}-01", 0x1, 0x2));
        latency.observe_in(Duration::from_millis(6), other);
        assert_eq!(named(), [true, false, true]);
        let text = metrics::encode(&registry);
        assert!(text.contains("simpul_call_seconds_bucket{le=\"0.01\"} 4 # {"), "{text}");
        assert!(!text.contains("0000000000000001\""), "the first since the scrape: {text}");
        latency.observe_in(Duration::from_millis(6), other);
        assert!(metrics::encode(&registry).contains("0000000000000001\""));
    }
}
