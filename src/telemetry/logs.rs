//! How a log line looks: for people, or one JSON object. Each has the trace and
//! span id of the call that is being handled, whether spans exist or not.

use std::fmt;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use super::context;

/// The format of every line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lines {
    pub(super) human: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        spans: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if self.human { human(spans, writer, event) } else { json(spans, writer, event) }
    }
}

fn human<S, N>(
    spans: &FmtContext<'_, S, N>,
    mut writer: Writer<'_>,
    event: &Event<'_>,
) -> fmt::Result
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    let metadata = event.metadata();
    SystemTime.format_time(&mut writer)?;
    let (dim, plain) = if writer.has_ansi_escapes() { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
    write!(writer, " {:>5} {dim}{}{plain} ", metadata.level(), metadata.target())?;
    for span in spans.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
        write!(writer, "{dim}{}", span.name())?;
        if let Some(fields) = span.extensions().get::<FormattedFields<N>>()
            && !fields.is_empty()
        {
            write!(writer, "{{{fields}}}")?;
        }
        write!(writer, ":{plain} ")?;
    }
    spans.field_format().format_fields(writer.by_ref(), event)?;
    if let Some(context) = context::current() {
        write!(writer, " {dim}trace_id={}{plain}", context.trace_id())?;
    }
    writeln!(writer)
}

fn json<S, N>(
    spans: &FmtContext<'_, S, N>,
    mut writer: Writer<'_>,
    event: &Event<'_>,
) -> fmt::Result
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    let metadata = event.metadata();
    let mut time = String::new();
    SystemTime.format_time(&mut Writer::new(&mut time))?;
    let mut line = Map::new();
    event.record(&mut Fields(&mut line));
    // The line's own names win over fields of the same name.
    line.insert("time".into(), time.into());
    line.insert("level".into(), metadata.level().as_str().into());
    line.insert("target".into(), metadata.target().into());
    if let Some(context) = context::current() {
        line.insert("trace_id".into(), context.trace_id().into());
        line.insert("span_id".into(), context.span_id().into());
    }
    let scope: Vec<Value> = spans
        .event_scope()
        .into_iter()
        .flat_map(|scope| scope.from_root())
        .map(|span| Value::from(span.name()))
        .collect();
    if !scope.is_empty() {
        line.insert("spans".into(), scope.into());
    }
    writeln!(writer, "{}", Value::Object(line))
}

/// Takes an event's fields into a JSON object.
pub(super) struct Fields<'a>(pub(super) &'a mut Map<String, Value>);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }
}
