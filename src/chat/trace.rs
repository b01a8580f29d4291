//! The traces of messages: from the sender's span to the nodes that deliver.
//!
//! A message that nobody records costs nothing here: its span is disabled, or
//! its context is not sampled, and no text is made of it.

use opentelemetry::trace::TraceContextExt as _;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::telemetry::context::TraceContext;

/// The span's place in its trace as a W3C `traceparent`; `None` when nobody
/// records it.
pub(crate) fn traceparent(span: &Span) -> Option<String> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let span = context.span();
    let place = span.span_context();
    if !place.is_sampled() {
        return None;
    }
    TraceContext::of(place).map(|place| place.to_string())
}

/// Puts a span below what another node said; one that is no `traceparent`
/// leaves it as it is.
pub(crate) fn below(span: &Span, traceparent: &str) {
    if let Some(parent) = TraceContext::parse(traceparent) {
        // Refused only where nobody exports traces: nobody sees the span then.
        let _ = span.set_parent(parent.as_parent());
    }
}
