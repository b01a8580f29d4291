//! Which trace the running code belongs to, and its way over hops that no gRPC
//! header crosses: the outbox, a message's way through the log.
//!
//! Two places know it. With an exporter it is the current span's context. A
//! thread-local of ours knows the call that is being polled here: it serves
//! without an exporter, and where a span has ended while its stream goes on.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Task, Poll};

use opentelemetry::trace::{SpanContext, TraceContextExt, TraceState};
use opentelemetry::{Context, SpanId, TraceFlags, TraceId};
use pin_project_lite::pin_project;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

thread_local! {
    static CURRENT: Cell<Option<TraceContext>> = const { Cell::new(None) };
}

/// A place in a trace, as W3C's traceparent has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace: u128,
    span: u64,
    flags: u8,
}

impl TraceContext {
    /// Reads a `traceparent`. None when it is not one: a caller's mistake there
    /// must not fail its call.
    pub fn parse(traceparent: &str) -> Option<Self> {
        let mut parts = traceparent.split('-');
        let (version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let lengths = (version.len(), trace.len(), span.len(), flags.len()) == (2, 32, 16, 2);
        // A later version may have more parts; the first one has none.
        let whole = version != "ff" && (version != "00" || parts.next().is_none());
        let lower = |b: u8| b.is_ascii_digit() || matches!(b, b'a'..=b'f' | b'-');
        if !lengths || !whole || !traceparent.bytes().take(55).all(lower) {
            return None;
        }
        let context = Self {
            trace: u128::from_str_radix(trace, 16).ok()?,
            span: u64::from_str_radix(span, 16).ok()?,
            flags: u8::from_str_radix(flags, 16).ok()?,
        };
        (context.trace != 0 && context.span != 0).then_some(context)
    }

    /// A trace that begins here and is exported nowhere.
    pub(crate) fn fresh() -> Self {
        Self { trace: rand::random::<u128>() | 1, span: rand::random::<u64>() | 1, flags: 0 }
    }

    /// Of a span's context, when that is a valid one.
    pub(crate) fn of(span: &SpanContext) -> Option<Self> {
        span.is_valid().then(|| Self {
            trace: u128::from_be_bytes(span.trace_id().to_bytes()),
            span: u64::from_be_bytes(span.span_id().to_bytes()),
            flags: span.trace_flags().to_u8(),
        })
    }

    /// The trace id, 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }

    /// The span id, 16 hexadecimal digits.
    pub fn span_id(&self) -> String {
        format!("{:016x}", self.span)
    }

    /// Whether its spans are recorded, and so can be found by its trace id.
    pub fn is_recorded(&self) -> bool {
        TraceFlags::new(self.flags).is_sampled()
    }

    /// As the parent of a span that is made here, from another process.
    pub(crate) fn as_parent(&self) -> Context {
        self.as_remote(TraceState::default())
    }

    /// The same with what other tracing systems left.
    pub(crate) fn as_remote(self, state: TraceState) -> Context {
        self.context(true, state)
    }

    /// As the parent of a span that is made here, of a span of this process.
    pub(crate) fn as_local(self) -> Context {
        self.context(false, TraceState::default())
    }

    fn context(self, remote: bool, state: TraceState) -> Context {
        let (trace, span) = (self.trace.to_be_bytes(), self.span.to_be_bytes());
        let (trace, span) = (TraceId::from_bytes(trace), SpanId::from_bytes(span));
        let place = SpanContext::new(trace, span, TraceFlags::new(self.flags), remote, state);
        Context::new().with_remote_span_context(place)
    }

    /// Makes it the current one of this thread until the guard is dropped.
    pub(crate) fn enter(self) -> Entered {
        Entered(CURRENT.replace(Some(self)))
    }
}

/// The `traceparent` form.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

/// Restores what was current before.
#[must_use]
pub(crate) struct Entered(Option<TraceContext>);

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

/// The place in the trace of the code that runs now.
pub fn current() -> Option<TraceContext> {
    let of_span = Context::map_current(|context| {
        context.has_active_span().then(|| TraceContext::of(context.span().span_context()))
    });
    of_span.flatten().or_else(|| CURRENT.get())
}

/// The trace id of the call that is handled now, for error details and rows.
pub fn trace_id() -> Option<String> {
    current().map(|context| context.trace_id())
}

/// The current place as a `traceparent`, to be stored or sent along.
pub fn current_traceparent() -> Option<String> {
    current().map(|context| context.to_string())
}

/// Runs a future in a span that goes on the stored trace, so that its spans,
/// log lines and [`current_traceparent`] belong to it, exporter or not.
pub fn follow<F: Future>(traceparent: Option<&str>, span: Span, inner: F) -> Followed<F> {
    let parent = traceparent.and_then(TraceContext::parse);
    if let Some(parent) = &parent {
        let _ = span.set_parent(parent.as_parent());
    }
    Followed { inner, span, context: parent }
}

/// Links a span to the stored place, as the one of another attempt at the same.
pub fn link(span: &Span, traceparent: &str) {
    if let Some(place) = TraceContext::parse(traceparent) {
        span.add_link(place.as_parent().span().span_context().clone());
    }
}

pin_project! {
    /// The future of [`follow`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Followed<F> {
        #[pin]
        inner: F,
        span: Span,
        context: Option<TraceContext>,
    }
}

impl<F: Future> Future for Followed<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let _context = this.context.map(TraceContext::enter);
        let _span = this.span.enter();
        this.inner.poll(task)
    }
}
