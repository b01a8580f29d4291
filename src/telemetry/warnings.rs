//! Our own warnings as events of the call that they were said in.
//!
//! Inside a span of `tracing` its own layer does that; a call's span is not one
//! (see [`super::trace`]), so what is said directly below it is added here.

use std::fmt;

use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, KeyValue, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context as At;
use tracing_subscriber::registry::LookupSpan;

/// To be filtered like the layer of the spans: a span that is not exported is
/// none here.
#[derive(Debug)]
pub(super) struct Warnings;

impl<S> Layer<S> for Warnings
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_event(&self, event: &Event<'_>, at: At<'_, S>) {
        if at.event_span(event).is_some() {
            return;
        }
        Context::map_current(|context| {
            let span = context.span();
            if span.is_recording() {
                let mut said = Said::default();
                event.record(&mut said);
                let level = event.metadata().level().as_str();
                said.attributes.push(KeyValue::new("level", level));
                span.add_event(said.message, said.attributes);
            }
        });
    }
}

/// An event's fields.
#[derive(Default)]
struct Said {
    message: String,
    attributes: Vec<KeyValue>,
}

impl Said {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.attributes.push(KeyValue::new(field.name(), value));
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" { self.message = text } else { self.put(field, text) }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message = value.to_owned();
        } else {
            self.put(field, value.to_owned());
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
}
