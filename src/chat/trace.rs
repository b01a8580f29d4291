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

/// What messages go through, as the conventions for messaging call it.
const SYSTEM: &str = "simpul";

/// The span of a message that is sent here, below what runs now.
pub(crate) fn sending(room: &str) -> Span {
    tracing::info_span!(
        "chat.send",
        otel.kind = "producer",
        messaging.system = SYSTEM,
        messaging.operation.name = "send",
        "messaging.operation.type" = "send",
        messaging.destination.name = room,
    )
}

/// The span of a message that another node, or a letter, brought to its owner.
pub(crate) fn ordering(room: &str) -> Span {
    tracing::info_span!(
        parent: None,
        "chat.order",
        otel.kind = "consumer",
        messaging.system = SYSTEM,
        messaging.operation.name = "order",
        "messaging.operation.type" = "receive",
        messaging.destination.name = room,
    )
}

/// The span of a group that becomes durable, below that of one of its messages.
pub(crate) fn committing(first: &Span, messages: usize) -> Span {
    tracing::info_span!(
        parent: first,
        "chat.commit",
        messaging.system = SYSTEM,
        messaging.operation.name = "commit",
        messaging.batch.message_count = messages,
    )
}

/// The span of an entry that readers of this node are woken for.
pub(crate) fn delivering(room: &str, seq: u64, readers: usize) -> Span {
    tracing::info_span!(
        parent: None,
        "chat.deliver",
        otel.kind = "consumer",
        messaging.system = SYSTEM,
        messaging.operation.name = "deliver",
        "messaging.operation.type" = "process",
        messaging.destination.name = room,
        messaging.message.id = seq,
        readers,
    )
}

/// Puts a span below what another node said; one that is no `traceparent`
/// leaves it as it is.
pub(crate) fn below(span: &Span, traceparent: &str) {
    if let Some(parent) = TraceContext::parse(traceparent) {
        // Refused only where nobody exports traces: nobody sees the span then.
        let _ = span.set_parent(parent.as_parent());
    }
}
