//! Logs, traces, metrics: one `tracing` pipeline and one metrics registry.
//!
//! Never in any of them: headers, tokens, secrets, card numbers, bodies. The
//! layer and the formatter here take no such thing; whoever logs elsewhere
//! keeps to it.
//!
//! Without an exporter, spans are switched off at their callsites, so that they
//! cost an atomic load; the trace id of a call is then kept by [`context`]
//! alone, and log lines have it all the same.

pub use crate::trace_context as context;
mod exporter;
pub mod latency;
pub mod level;
mod logs;
mod methods;
pub mod metrics;
mod otel;
pub mod ready;
mod recent;
pub mod red;
pub mod trace;
mod warnings;

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use prometheus_client::registry::Registry;
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Level, Metadata};
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry as Spans};

use crate::config::schema::{LogFormat, Telemetry as Config};

pub use context::{TraceContext, trace_id};
pub use level::Levels;
pub use recent::Recent;

/// The name of what makes the spans.
const SCOPE: &str = "simpul";

/// Which process it is, for the resource of its traces.
#[derive(Debug, Clone, Copy)]
pub struct Instance<'a> {
    /// The node's stable id.
    pub node_id: &'a str,
    /// This start of it.
    pub incarnation: &'a str,
}

/// Why there is no telemetry.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// RUST_LOG or telemetry.log is not a list of directives.
    #[error("the log filter is not a list of directives, as in info,simpul::chat=debug")]
    Filter,
    /// The process has a pipeline already; it stays in force.
    #[error("the process has a log pipeline already")]
    Installed,
}

/// What is to be kept until the process ends.
#[derive(Debug)]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
    spans: Arc<exporter::SpanCounts>,
    propagates: bool,
    levels: Levels,
    recent: Recent,
}

/// Installs the pipeline for the whole process. Call it inside the runtime: the
/// exporter's connection lives there.
pub fn init(
    config: &Config,
    instance: Instance<'_>,
    env: &[(String, String)],
) -> Result<Telemetry, TelemetryError> {
    let human = match config.log_format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let (dispatch, telemetry, warnings) = build(config, instance, env, human, std::io::stderr)?;
    dispatch.try_init().map_err(|_| TelemetryError::Installed)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(telemetry)
}

/// The pipeline, uninstalled, and what is wrong with the variables.
fn build<W>(
    config: &Config,
    instance: Instance<'_>,
    env: &[(String, String)],
    human: bool,
    writer: W,
) -> Result<(Dispatch, Telemetry, Vec<String>), TelemetryError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let directives = env
        .iter()
        .rev()
        .find(|(name, value)| name == "RUST_LOG" && !value.is_empty())
        .map_or(config.log.as_str(), |(_, value)| value.as_str());
    let (filter, debugging, levels) =
        level::exchangeable(directives).ok_or(TelemetryError::Filter)?;
    let debugging = move || debugging.load(Ordering::Acquire);
    let (settings, mut warnings) = otel::Settings::of(env);
    let spans = Arc::new(exporter::SpanCounts::default());
    let propagates = otel::propagates(env, &mut warnings);
    let provider = settings
        .and_then(|settings| exporter::provider(settings, instance, spans.clone(), &mut warnings));

    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(human && std::io::stderr().is_terminal())
        .event_format(logs::Lines { human })
        .with_filter(filter.and(filter_fn({
            let debugging = debugging.clone();
            move |metadata| metadata.is_event() || debugging()
        })));
    let recent = Recent::default();
    let warnings_kept = recent.clone().with_filter(LevelFilter::WARN);
    // A filter of the whole pipeline: one of a single layer would leave the
    // registry making spans that nobody reads.
    let exporting = provider.is_some();
    let wanted = filter_fn(move |metadata| {
        metadata.is_event() || debugging() || (exporting && exported(metadata))
    });
    let spans_and_lines = Spans::default().with(wanted).with(lines).with(warnings_kept);
    // Not an optional layer: one that is absent would still want every span.
    let dispatch = match &provider {
        None => Dispatch::new(spans_and_lines),
        Some(provider) => {
            let traces = tracing_opentelemetry::layer()
                .with_tracer(provider.tracer(SCOPE))
                .with_location(false)
                .with_threads(false)
                .with_target(false)
                .with_tracked_inactivity(false)
                .with_filter(filter_fn(exported));
            let warnings = warnings::Warnings.with_filter(filter_fn(exported));
            Dispatch::new(spans_and_lines.with(traces).with(warnings))
        }
    };
    Ok((dispatch, Telemetry { provider, spans, propagates, levels, recent }, warnings))
}

/// Our own spans, and our own warnings as their events: what the libraries
/// below say would trace the exporter's own connection, and itself. A task's
/// span names its log lines alone: it lives as long as a stream or the node,
/// and what the task does for somebody has a span of its own.
fn exported(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let ours = target == "simpul" || target.starts_with("simpul::");
    if metadata.is_span() && target == crate::task::TARGET {
        return false;
    }
    let least = if metadata.is_span() { Level::INFO } else { Level::WARN };
    ours && *metadata.level() <= least
}

impl Telemetry {
    /// None: for tests that start nodes without a pipeline.
    pub fn none() -> Self {
        let (levels, recent) = (Levels::none(), Recent::default());
        Self { provider: None, spans: Arc::default(), propagates: true, levels, recent }
    }

    /// How calls are traced.
    pub fn calls(&self) -> trace::Calls {
        let tracer = self.provider.as_ref().map(|provider| provider.tracer(SCOPE));
        trace::Calls { tracer, propagate: self.propagates }
    }

    /// What is logged, to be changed while the node runs.
    pub fn levels(&self) -> &Levels {
        &self.levels
    }

    /// The newest warnings and errors.
    pub fn recent(&self) -> &Recent {
        &self.recent
    }

    /// Puts the exporter's counters into the registry.
    pub fn register(&self, registry: &mut Registry) {
        self.spans.register(registry);
    }

    /// Sends what waits, for at most this time, and stops exporting. Logs go
    /// on. Not cancel safe: what waits is then lost.
    pub async fn shutdown(self, within: Duration) {
        let Some(provider) = self.provider else { return };
        // The exporter's thread may hang in a connection: it is not waited for
        // longer than the caller allows.
        let stop = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(within));
        match tokio::time::timeout(within, stop).await {
            Ok(Ok(Ok(()))) => {}
            _ => tracing::warn!("some spans were not exported before the end"),
        }
    }
}

#[cfg(test)]
mod tests;
