//! The way of finished spans out of the node: counted, bounded, and never in
//! anybody's way.
//!
//! The queue's bound is held here, in front of the SDK's own (which drops
//! without telling anyone): a span counts as waiting until the exporter has
//! taken its batch, so the SDK's queue, of the same size, never fills first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_otlp::tonic_types::metadata::MetadataMap;
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig, Identity};
use opentelemetry_otlp::{Compression, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, Span, SpanData, SpanExporter,
    SpanProcessor,
};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use super::Instance;
use super::otel::Settings;

/// What became of finished spans.
#[derive(Debug, Default)]
pub(super) struct SpanCounts {
    exported: Counter,
    dropped: Counter,
    failed: Counter,
    waiting: AtomicUsize,
    failing: AtomicBool,
}

impl SpanCounts {
    pub(super) fn register(&self, registry: &mut Registry) {
        let each = [
            ("trace_spans_exported", "Spans that the receiver took", &self.exported),
            ("trace_spans_dropped", "Spans that did not fit into the queue", &self.dropped),
            ("trace_spans_failed", "Spans whose export failed", &self.failed),
        ];
        for (name, help, counter) in each {
            registry.register(name, help, counter.clone());
        }
    }

    /// Says once when exports begin to fail, and once when they work again.
    fn note(&self, failure: Option<&OTelSdkError>) {
        if self.failing.swap(failure.is_some(), Ordering::Relaxed) == failure.is_some() {
            return;
        }
        match failure {
            Some(error) => {
                tracing::warn!(target: "simpul::telemetry", %error, "traces cannot be exported now");
            }
            None => tracing::info!(target: "simpul::telemetry", "traces are exported again"),
        }
    }
}

/// The provider, or a warning why there is none.
pub(super) fn provider(
    settings: Settings,
    instance: Instance<'_>,
    counts: Arc<SpanCounts>,
    warnings: &mut Vec<String>,
) -> Option<SdkTracerProvider> {
    let inner = match exporter(&settings) {
        Ok(exporter) => exporter,
        Err(rule) => {
            warnings.push(format!("{rule}: no traces are exported"));
            return None;
        }
    };
    let exporter = Counted { inner, counts: counts.clone(), value_length: settings.value_length };
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(settings.queue)
        .with_max_export_batch_size(settings.batch)
        .with_scheduled_delay(settings.delay)
        .build();
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(Bounded { inner: processor, counts, most: settings.queue })
        .with_sampler(settings.sampler)
        .with_span_limits(settings.limits)
        .with_resource(resource(settings.service_name, settings.resource, instance))
        .build();
    Some(provider)
}

fn exporter(settings: &Settings) -> Result<opentelemetry_otlp::SpanExporter, String> {
    let mut headers = http::HeaderMap::new();
    for (name, value) in &settings.headers {
        let pair = (name.parse::<http::HeaderName>(), value.parse::<http::HeaderValue>());
        let (Ok(name), Ok(value)) = pair else {
            return Err("OTEL_EXPORTER_OTLP_HEADERS holds what cannot be a header".into());
        };
        headers.insert(name, value);
    }
    let mut builder = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(settings.endpoint.clone())
        .with_timeout(settings.timeout)
        .with_metadata(MetadataMap::from_headers(headers));
    if settings.gzip {
        builder = builder.with_compression(Compression::Gzip);
    }
    if settings.endpoint.starts_with("https://") {
        builder = builder.with_tls_config(tls(settings)?);
    }
    // The error's text may hold the address, and that a password.
    builder.build().map_err(|_| "OTEL_EXPORTER_OTLP_ENDPOINT is not an address".into())
}

fn tls(settings: &Settings) -> Result<ClientTlsConfig, String> {
    let read = |name: &str, path: &str| {
        std::fs::read(path).map_err(|error| {
            format!("the file of OTEL_EXPORTER_OTLP_{name} cannot be read: {}", error.kind())
        })
    };
    let mut tls = ClientTlsConfig::new();
    tls = match &settings.ca_file {
        Some(path) => tls.ca_certificate(Certificate::from_pem(read("CERTIFICATE", path)?)),
        None => tls.with_enabled_roots(),
    };
    match (&settings.client_certificate, &settings.client_key) {
        (None, None) => Ok(tls),
        (Some(certificate), Some(key)) => {
            let certificate = read("CLIENT_CERTIFICATE", certificate)?;
            Ok(tls.identity(Identity::from_pem(certificate, read("CLIENT_KEY", key)?)))
        }
        _ => Err("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and _CLIENT_KEY need each other".into()),
    }
}

fn resource(name: Option<String>, given: Vec<KeyValue>, instance: Instance<'_>) -> Resource {
    let own = [
        KeyValue::new("service.name", "simpul"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", instance.node_id.to_owned()),
        KeyValue::new("simpul.incarnation", instance.incarnation.to_owned()),
    ];
    // What is given later wins.
    let resource = Resource::builder_empty()
        .with_detector(Box::new(opentelemetry_sdk::resource::TelemetryResourceDetector))
        .with_attributes(own)
        .with_attributes(given);
    match name {
        Some(name) => resource.with_service_name(name).build(),
        None => resource.build(),
    }
}

/// Drops what does not fit, and counts it.
#[derive(Debug)]
struct Bounded {
    inner: BatchSpanProcessor,
    counts: Arc<SpanCounts>,
    most: usize,
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        if self.counts.waiting.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.counts.waiting.fetch_sub(1, Ordering::Relaxed);
            self.counts.dropped.inc();
            return;
        }
        self.inner.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Counts what was taken and what was not; cuts long values, which the SDK
/// leaves as they are.
#[derive(Debug)]
struct Counted {
    inner: opentelemetry_otlp::SpanExporter,
    counts: Arc<SpanCounts>,
    value_length: Option<usize>,
}

impl SpanExporter for Counted {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        self.counts.waiting.fetch_sub(count, Ordering::Relaxed);
        if let Some(most) = self.value_length {
            batch.iter_mut().for_each(|span| cut(span, most));
        }
        let result = self.inner.export(batch).await;
        let counter = if result.is_ok() { &self.counts.exported } else { &self.counts.failed };
        counter.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
        self.counts.note(result.as_ref().err());
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.inner.shutdown()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Cuts the texts among a span's attributes.
fn cut(span: &mut SpanData, most: usize) {
    for attribute in &mut span.attributes {
        if let Value::String(text) = &attribute.value
            && let Some((end, _)) = text.as_str().char_indices().nth(most)
        {
            let short = text.as_str().get(..end).unwrap_or_default().to_owned();
            attribute.value = Value::from(short);
        }
    }
}
