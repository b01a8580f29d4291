//! The pipeline as a whole: calls through the layer, an OTLP receiver at the
//! other end, log lines in a buffer.

mod sampling;
mod settings;
mod tls;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span as SentSpan;
use tokio::sync::{mpsc, watch};
use tower::{Layer as _, ServiceExt, service_fn};

use super::*;
use crate::principal::{Kind, Principal, Role, Roles};
use crate::security::permit::{Caller, Permit, Proof, Validity};

const UNARY: &str = "/simpul.identity.v1.IdentityService/WhoAmI";
const STREAM: &str = "/simpul.chat.v1.ChatService/Chat";
const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Log lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no panic").clone()).expect("text")
    }
}

/// An OTLP receiver that keeps what it gets.
#[derive(Clone)]
struct Receiver(mpsc::Sender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let _ = self.0.send(request.into_inner()).await;
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn receiver() -> (String, mpsc::Receiver<ExportTraceServiceRequest>) {
    let (sender, receiver) = mpsc::channel(64);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let server = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(Receiver(sender)))
        .serve_with_incoming(incoming);
    crate::task::spawn("receiver", server);
    (format!("http://{address}"), receiver)
}

/// The next spans, by name.
async fn spans(receiver: &mut mpsc::Receiver<ExportTraceServiceRequest>) -> Vec<SentSpan> {
    let sent = tokio::time::timeout(Duration::from_secs(10), receiver.recv()).await;
    let sent = sent.expect("in time").expect("an export");
    let scopes = sent.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).collect()
}

fn config() -> Config {
    let args = crate::config::LoadArgs::default();
    crate::config::load(&args).expect("sound").config.telemetry
}

/// The pipeline in force for this thread.
fn pipeline(env: &[(&str, &str)]) -> (tracing::dispatcher::DefaultGuard, Telemetry, Lines) {
    let env: Vec<_> =
        env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let lines = Lines::default();
    let sink = lines.clone();
    let instance = Instance { node_id: "node-1", incarnation: "inc-1" };
    let (dispatch, telemetry, warnings) =
        build(&config(), instance, &env, false, move || sink.clone()).expect("built");
    assert!(warnings.is_empty(), "{warnings:?}");
    (tracing::dispatcher::set_default(&dispatch), telemetry, lines)
}

fn request(path: &str) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = path.parse().expect("a path");
    request.headers_mut().insert("traceparent", HeaderValue::from_static(GIVEN));
    request.headers_mut().insert("authorization", HeaderValue::from_static("Bearer planted-token"));
    // What strangers say of themselves is not taken over.
    request.headers_mut().insert("baggage", HeaderValue::from_static("user=planted-baggage"));
    request.headers_mut().insert("tracestate", HeaderValue::from_static("vendor=kept"));
    request
}

fn trailers(status: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    trailers.insert("grpc-message", HeaderValue::from_static("planted-message"));
    trailers
}

/// Calls through the layer; the handler logs, and its inner span does too.
async fn unary(layer: &trace::TraceLayer, path: &str, status: &'static str) -> Option<String> {
    let seen = Arc::new(Mutex::new(None));
    let kept = seen.clone();
    let service = layer.layer(service_fn(move |_: Request<Empty<Bytes>>| {
        *kept.lock().expect("no panic") = context::current_traceparent();
        tracing::warn!("handled");
        tracing::info_span!("append").in_scope(|| tracing::info!(room = "lobby", "inside"));
        async move {
            let body = Full::new(Bytes::from_static(b"planted-body"));
            let body = body.with_trailers(std::future::ready(Some(Ok(trailers(status)))));
            Ok::<_, std::convert::Infallible>(Response::new(body))
        }
    }));
    let response = service.oneshot(request(path)).await.expect("infallible");
    response.into_body().collect().await.expect("a body");
    seen.lock().expect("no panic").clone()
}

fn attribute<'a>(span: &'a SentSpan, key: &str) -> Option<&'a str> {
    use opentelemetry_proto::tonic::common::v1::any_value::Value::StringValue;
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        StringValue(text) => Some(text),
        _ => None,
    }
}

#[tokio::test]
async fn a_call_is_one_exported_trace_with_its_callers_and_its_log_lines_name_it() {
    let (endpoint, mut receiver) = receiver().await;
    let (_guard, telemetry, lines) =
        pipeline(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint), ("OTEL_BSP_SCHEDULE_DELAY", "50")]);
    let mut registry = metrics::registry();
    telemetry.register(&mut registry);
    let layer = trace::TraceLayer::new(red::Red::registered(&mut registry), telemetry.calls());
    let inner = unary(&layer, UNARY, "13").await.expect("a traceparent");
    assert!(inner.starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{inner}");

    let mut sent = spans(&mut receiver).await;
    sent.sort_by_key(|span| span.name.len());
    let names: Vec<_> = sent.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["append", "simpul.identity.v1.IdentityService/WhoAmI"]);
    let (child, root) = (&sent[0], &sent[1]);
    assert_eq!(root.parent_span_id, 0xb7ad6b7169203331_u64.to_be_bytes());
    assert_eq!(root.trace_id, 0x0af7651916cd43dd8448eb211c80319c_u128.to_be_bytes());
    assert_eq!(child.parent_span_id, root.span_id);
    assert_eq!(root.kind, 2, "server");
    assert_eq!(root.trace_state, "vendor=kept");
    assert_eq!(attribute(root, "rpc.system.name"), Some("grpc"));
    assert_eq!(attribute(root, "rpc.response.status_code"), Some("INTERNAL"));
    assert_eq!(attribute(root, "error.type"), Some("INTERNAL"));
    assert_eq!(root.status.as_ref().map(|status| status.code), Some(2), "error");
    let said: Vec<_> = root.events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(said, ["handled"], "a warning is an event of the call");

    let text = lines.text();
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("one object a line");
        assert_eq!(line["trace_id"], "0af7651916cd43dd8448eb211c80319c", "{line}");
    }
    assert_eq!(text.lines().count(), 2);
    telemetry.shutdown(Duration::from_secs(5)).await;
    let metrics = metrics::encode(&registry);
    assert!(metrics.contains("simpul_trace_spans_exported_total 2"), "{metrics}");
    let exemplar = "# {trace_id=\"0af7651916cd43dd8448eb211c80319c\"}";
    assert_eq!(metrics.matches(exemplar).count(), 1, "{metrics}");
    let everything = format!("{text}{sent:?}{metrics}");
    assert!(!everything.contains("planted"), "{everything}");
}

#[tokio::test]
async fn a_streams_span_is_exported_while_it_is_open_and_its_end_is_told_below_it() {
    let (endpoint, mut receiver) = receiver().await;
    let (_guard, telemetry, _) = pipeline(&[
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &endpoint),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
    ]);
    let mut registry = metrics::registry();
    let layer = trace::TraceLayer::new(red::Red::registered(&mut registry), telemetry.calls());
    let (frames, receive) = mpsc::channel::<Result<http_body::Frame<Bytes>, tonic::Status>>(1);
    let mut receive = Some(receive);
    let service = layer.layer(service_fn(move |_: Request<Empty<Bytes>>| {
        let stream = tokio_stream::wrappers::ReceiverStream::new(receive.take().expect("once"));
        async move { Ok::<_, std::convert::Infallible>(Response::new(StreamBody::new(stream))) }
    }));
    let response = service.oneshot(request(STREAM)).await.expect("infallible");
    let opened = spans(&mut receiver).await;
    assert_eq!(opened.len(), 1);
    assert_eq!(opened[0].name, "simpul.chat.v1.ChatService/Chat");
    assert!(
        metrics::encode(&registry)
            .contains("simpul_rpc_open{method=\"simpul.chat.v1.ChatService/Chat\"} 1")
    );

    let frame = http_body::Frame::trailers(trailers("16"));
    frames.send(Ok(frame)).await.expect("sent");
    drop(frames);
    let _ = response.into_body().collect().await.expect("a body");
    let ended = spans(&mut receiver).await;
    assert_eq!(ended[0].name, "simpul.chat.v1.ChatService/Chat end");
    assert_eq!(ended[0].parent_span_id, opened[0].span_id);
    assert_eq!(attribute(&ended[0], "rpc.response.status_code"), Some("UNAUTHENTICATED"));
    assert!(ended[0].status.as_ref().is_none_or(|status| status.code != 2), "not our fault");
    telemetry.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn an_exporter_that_hangs_holds_nothing_up_and_drops_are_counted() {
    // It takes connections and never answers.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let (_guard, telemetry, _) = pipeline(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "4"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4"),
        ("OTEL_BSP_SCHEDULE_DELAY", "600000"),
    ]);
    let mut registry = metrics::registry();
    telemetry.register(&mut registry);
    let layer = trace::TraceLayer::new(red::Red::registered(&mut registry), telemetry.calls());
    let began = std::time::Instant::now();
    for _ in 0..200 {
        unary(&layer, UNARY, "0").await;
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let dropped: u64 = metrics::encode(&registry)
        .lines()
        .find_map(|line| line.strip_prefix("simpul_trace_spans_dropped_total "))
        .and_then(|count| count.parse().ok())
        .expect("counted");
    // 400 spans; four wait and at most two batches of four are on their way.
    assert!((388..=396).contains(&dropped), "{dropped}");
    let began = std::time::Instant::now();
    telemetry.shutdown(Duration::from_millis(300)).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    drop(listener);
}

#[tokio::test]
async fn without_an_exporter_there_are_no_spans_and_lines_have_the_callers_trace_id() {
    let (_guard, telemetry, lines) = pipeline(&[]);
    let mut registry = metrics::registry();
    let red = red::Red::registered(&mut registry);
    let seen = unary(&trace::TraceLayer::new(red.clone(), telemetry.calls()), UNARY, "0").await;
    assert_eq!(seen.as_deref(), Some(GIVEN), "handed through unchanged");
    let text = lines.text();
    assert_eq!(text.matches("0af7651916cd43dd8448eb211c80319c").count(), 2, "{text}");
    assert!(!text.contains("spans"), "{text}");
    assert!(tracing::info_span!("append").is_disabled());
    let deaf = trace::Calls { tracer: None, propagate: false };
    let fresh = unary(&trace::TraceLayer::new(red, deaf), UNARY, "0").await.expect("fresh");
    assert!(TraceContext::parse(&fresh).is_some() && !fresh.contains("0af7651916cd43dd"));
    assert_eq!(trace_id(), None, "nothing is left behind");
}

#[tokio::test]
async fn a_stored_place_is_gone_on_from_with_and_without_an_exporter() {
    let work = async {
        tokio::task::yield_now().await;
        trace_id()
    };
    let (guard, _, _) = pipeline(&[]);
    let span = tracing::info_span!("send");
    let seen = context::follow(Some(GIVEN), span, work).await;
    assert_eq!(seen.as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
    drop(guard);

    let (endpoint, mut receiver) = receiver().await;
    let (_guard, telemetry, _) = pipeline(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]);
    let span = tracing::info_span!("send");
    let seen = context::follow(Some(GIVEN), span, async { trace_id() }).await;
    assert_eq!(seen.as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
    telemetry.shutdown(Duration::from_secs(5)).await;
    let sent = spans(&mut receiver).await;
    assert_eq!(sent[0].parent_span_id, 0xb7ad6b7169203331_u64.to_be_bytes());
}

#[tokio::test]
async fn calls_are_counted_by_known_method_role_class_and_code() {
    let mut registry = metrics::registry();
    let calls = Telemetry::none().calls();
    let layer = trace::TraceLayer::new(red::Red::registered(&mut registry), calls);
    let domain = "dev.simpul".parse().expect("a domain");
    let caller = Caller {
        principal: Principal::new(Kind::User, "sari", &domain).expect("a principal"),
        roles: [Role::Support].into_iter().fold(Roles::default(), Roles::with),
        acting_service: None,
        proof: Proof::Token,
    };
    let permit = Permit::new(caller, Validity::until(SystemTime::now(), None));
    let (never, _) = watch::channel(());
    for path in [UNARY, "/planted.Service/Method", "/planted.Service/Other"] {
        let permit = permit.clone();
        let service = red::NoteRoleLayer.layer(service_fn(|_: Request<Empty<Bytes>>| async {
            let mut response = Response::new(Full::new(Bytes::new()));
            response.headers_mut().insert("grpc-status", HeaderValue::from_static("5"));
            Ok::<_, std::convert::Infallible>(response)
        }));
        let authorized = service.map_request(move |mut request: Request<_>| {
            request.extensions_mut().insert(permit.clone());
            request
        });
        let response = layer.layer(authorized).oneshot(request(path)).await.expect("infallible");
        drop(response);
    }
    // A caller that goes away before the answer.
    let gone = never.subscribe();
    let service = layer.layer(service_fn(move |_: Request<Empty<Bytes>>| {
        let mut gone = gone.clone();
        async move {
            let _ = gone.changed().await;
            Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::new())))
        }
    }));
    let left = tokio::time::timeout(Duration::from_millis(10), service.oneshot(request(UNARY)));
    assert!(left.await.is_err());
    let text = metrics::encode(&registry);
    for line in [
        "simpul_rpc_calls_total{method=\"simpul.identity.v1.IdentityService/WhoAmI\",role=\"staff\",code=\"NOT_FOUND\"} 1",
        "simpul_rpc_calls_total{method=\"simpul.identity.v1.IdentityService/WhoAmI\",role=\"none\",code=\"CANCELLED\"} 1",
        "simpul_rpc_calls_total{method=\"unknown\",role=\"staff\",code=\"NOT_FOUND\"} 2",
        "simpul_rpc_duration_seconds_count{method=\"unknown\",role=\"staff\"} 2",
        "simpul_rpc_open{method=\"unknown\"} 0",
        "simpul_build_info{version=\"0.1.0\"} 1",
        "# EOF",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    for name in ["resident_memory_bytes", "open_fds", "cpu_seconds_total", "start_time_seconds"] {
        assert!(text.contains(&format!("\nsimpul_process_{name} ")), "{name} in {text}");
    }
    assert!(!text.contains("planted"), "{text}");
}
