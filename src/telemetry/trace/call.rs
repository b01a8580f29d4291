//! One call from its first layer to its last byte. Dropping it ends it, with
//! what is known by then: a caller that went away leaves CANCELLED.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, StatusCode};
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanKind, SpanRef, Status, TraceContextExt, TraceState, Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;
use tonic::Code;

use super::Calls;
use crate::telemetry::context::TraceContext;
use crate::telemetry::methods::{self, Method};
use crate::telemetry::red::{Red, RoleClass, code_name};

/// As much of a `tracestate` as its recommendation asks to keep.
const LONGEST_STATE: usize = 512;

#[derive(Debug)]
pub(super) struct Call {
    red: Arc<Red>,
    method: &'static Method,
    role: RoleClass,
    began: Instant,
    place: TraceContext,
    /// What runs for the call runs in this context; `None` without an exporter.
    traced: Option<Traced>,
    code: Option<Code>,
}

/// The call as the exporter will see it.
///
/// Its spans are made with the tracer itself: a span of `tracing` copies its
/// fields as texts and is looked up twice at each poll, which every call would
/// pay. What is below it finds its parent in the context all the same.
#[derive(Debug)]
struct Traced {
    tracer: SdkTracer,
    /// With the call's span; once a stream is open, with its place alone.
    context: Context,
    /// Whether the span told of the opening alone and has ended.
    open_stream: bool,
}

impl Call {
    pub(super) fn begin(red: Arc<Red>, path: &str, headers: &HeaderMap, calls: &Calls) -> Self {
        let method = methods::of(path);
        red.began(method);
        let given = if calls.propagate { given(headers) } else { None };
        let traced = calls.tracer.as_ref().map(|tracer| {
            let state = given.map(|_| state(headers)).unwrap_or_default();
            let parent = given.map_or_else(Context::new, |place| place.as_remote(state));
            let span = started(tracer, method.span_name, SpanKind::Server, method, &parent);
            Traced { tracer: tracer.clone(), context: span, open_stream: false }
        });
        // The caller's own place, handed through unchanged, when nobody exports.
        let own = traced.as_ref().and_then(|traced| place(&traced.context));
        Self {
            red,
            method,
            role: RoleClass::default(),
            began: Instant::now(),
            place: own.or(given).unwrap_or_else(TraceContext::fresh),
            traced,
            code: None,
        }
    }

    /// Does some of its work: the call is the one that this thread works on.
    pub(super) fn run<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let _place = self.place.enter();
        let _context = self.traced.as_ref().map(|traced| traced.context.clone().attach());
        self.role.during(work)
    }

    /// The headers are there: a call that was refused has its status in them.
    pub(super) fn opened(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.code = code_of(headers);
        if self.code.is_none() && status != StatusCode::OK {
            self.code = Some(Code::Unknown);
        }
        if self.method.streaming
            && self.code.is_none()
            && let Some(traced) = &mut self.traced
        {
            traced.open_stream = true;
            traced.context.span().end();
            traced.context = self.place.as_local();
        }
    }

    pub(super) fn trailers(&mut self, trailers: &HeaderMap) {
        self.code = self.code.or(code_of(trailers)).or(Some(Code::Unknown));
    }

    /// The service or the body broke.
    pub(super) fn failed(&mut self) {
        self.code = Some(Code::Internal);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let code = self.code.unwrap_or(Code::Cancelled);
        let took = self.began.elapsed();

        self.red.ended(self.method, self.role, code, took, Some(self.place));
        if let Some(traced) = &self.traced {
            traced.end(self.method, code);
        }
    }
}

impl Traced {
    fn end(&self, method: &'static Method, code: Code) {
        if self.open_stream {
            let (tracer, kind) = (&self.tracer, SpanKind::Internal);
            let end = started(tracer, method.end_name, kind, method, &self.context);
            ended(&end.span(), code);
        } else {
            ended(&self.context.span(), code);
        }
    }
}

/// Starts a span; a context that holds it. Whether it is recorded is decided
/// before anything is said of it.
fn started(
    tracer: &SdkTracer,
    name: &'static str,
    kind: SpanKind,
    method: &'static Method,
    parent: &Context,
) -> Context {
    let builder = SpanBuilder::from_name(name).with_kind(kind);
    let mut span = tracer.build_with_context(builder, parent);
    if span.is_recording() {
        span.set_attribute(KeyValue::new("rpc.system.name", "grpc"));
        span.set_attribute(KeyValue::new("rpc.method", method.attribute));
    }
    parent.with_span(span)
}

fn ended(span: &SpanRef<'_>, code: Code) {
    if !span.is_recording() {
        return;
    }
    let name = code_name(code);
    span.set_attribute(KeyValue::new("rpc.response.status_code", name));
    if is_fault(code) {
        span.set_attribute(KeyValue::new("error.type", name));
        span.set_status(Status::error(""));
    }
    span.end();
}

/// The codes that are the server's fault, as the conventions have it for spans
/// of kind server.
fn is_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

fn code_of(headers: &HeaderMap) -> Option<Code> {
    headers.get("grpc-status").map(|value| Code::from_bytes(value.as_bytes()))
}

/// The context's own place in its trace.
fn place(context: &Context) -> Option<TraceContext> {
    TraceContext::of(context.span().span_context())
}

/// The place that the caller gave.
fn given(headers: &HeaderMap) -> Option<TraceContext> {
    TraceContext::parse(headers.get("traceparent")?.to_str().ok()?)
}

/// What other tracing systems left with the caller; one that is no such list is
/// left out.
fn state(headers: &HeaderMap) -> TraceState {
    let given = headers.get("tracestate").and_then(|value| value.to_str().ok());
    given
        .filter(|text| text.len() <= LONGEST_STATE)
        .and_then(|text| text.parse().ok())
        .unwrap_or_default()
}
