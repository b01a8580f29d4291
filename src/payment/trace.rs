//! The caller's trace context through the outbox: what a payment causes later
//! belongs to the trace of whoever asked for it.

use std::collections::HashMap;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

const HEADER: &str = "traceparent";

/// The current span's W3C traceparent; empty when it is not traced.
pub(super) fn current() -> String {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut carrier);
    carrier.remove(HEADER).unwrap_or_default()
}

/// Makes the span a child of a stored context or, where its parent may have
/// ended long ago in another process, a root linked to it.
pub(super) fn restore(span: &Span, traceparent: &str, child: bool) {
    let carrier = HashMap::from([(HEADER.to_owned(), traceparent.to_owned())]);
    let context = TraceContextPropagator::new().extract(&carrier);
    let origin = context.span().span_context().clone();
    if !origin.is_valid() {
        return;
    }
    if child {
        // Refused only for a span that nobody exports.
        let _ = span.set_parent(context);
    } else {
        span.add_link(origin);
    }
}
