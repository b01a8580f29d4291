//! One call from its first layer to its last byte. Dropping it ends it, with
//! what is known by then: a caller that went away leaves CANCELLED.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, StatusCode};
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::Code;
use tracing::Span;
use tracing::field::Empty;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::telemetry::context::TraceContext;
use crate::telemetry::methods::{self, Method};
use crate::telemetry::red::{Red, RoleClass, code_name};

#[derive(Debug)]
pub(super) struct Call {
    red: Arc<Red>,
    method: &'static Method,
    role: RoleClass,
    began: Instant,
    context: TraceContext,
    span: Span,
    /// Whether the span told of the opening alone and has ended.
    open_stream: bool,
    code: Option<Code>,
}

impl Call {
    pub(super) fn begin(red: Arc<Red>, path: &str, headers: &HeaderMap, propagate: bool) -> Self {
        let method = methods::of(path);
        red.began(method);
        let span = tracing::info_span!(
            target: "simpul::rpc",
            parent: None,
            "rpc",
            "otel.name" = method.name,
            "otel.kind" = "server",
            "otel.status_code" = Empty,
            "rpc.system.name" = "grpc",
            "rpc.method" = method.name,
            "rpc.response.status_code" = Empty,
            "error.type" = Empty,
        );
        let context = place(&span, headers, propagate);
        Self {
            red,
            method,
            role: RoleClass::default(),
            began: Instant::now(),
            context,
            span,
            open_stream: false,
            code: None,
        }
    }

    /// Does some of its work: the call is the one that this thread works on.
    pub(super) fn run<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let _context = self.context.enter();
        let _span = self.span.enter();
        self.role.during(work)
    }

    /// The headers are there: a call that was refused has its status in them.
    pub(super) fn opened(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.code = code_of(headers);
        if self.code.is_none() && status != StatusCode::OK {
            self.code = Some(Code::Unknown);
        }
        if self.method.streaming && self.code.is_none() {
            self.open_stream = true;
            self.span = Span::none();
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
        self.red.ended(self.method, self.role, code, self.began.elapsed());
        if self.open_stream {
            let span = tracing::info_span!(
                target: "simpul::rpc",
                parent: None,
                "rpc end",
                "otel.name" = self.method.end_name,
                "otel.kind" = "internal",
                "otel.status_code" = Empty,
                "rpc.system.name" = "grpc",
                "rpc.method" = self.method.name,
                "rpc.response.status_code" = Empty,
                "error.type" = Empty,
            );
            if !span.is_disabled() {
                let _ = span.set_parent(self.context.as_parent());
            }
            self.span = span;
        }
        if !self.span.is_disabled() {
            let name = code_name(code);
            self.span.record("rpc.response.status_code", name);
            if is_fault(code) {
                self.span.record("error.type", name);
                self.span.record("otel.status_code", "ERROR");
            }
        }
    }
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

/// The call's place: its span's, when there is an exporter; the caller's, which
/// is then handed through unchanged; or a fresh one.
fn place(span: &Span, headers: &HeaderMap, propagate: bool) -> TraceContext {
    if !span.is_disabled() {
        if propagate {
            let parent = TraceContextPropagator::new()
                .extract_with_context(&opentelemetry::Context::new(), &Headers(headers));
            let _ = span.set_parent(parent);
        }
        if let Some(own) = TraceContext::of(span.context().span().span_context()) {
            return own;
        }
    }
    let given = headers.get("traceparent").filter(|_| propagate);
    given
        .and_then(|value| value.to_str().ok())
        .and_then(TraceContext::parse)
        .unwrap_or_else(TraceContext::fresh)
}

/// The headers as the propagator reads them.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
