//! An OTLP receiver for the tests.

use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value::StringValue;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::support::with_token;

/// A collector that keeps every span.
#[derive(Debug, Clone, Default)]
pub struct Collector {
    spans: Arc<Mutex<Vec<(String, Span)>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut kept = self.spans.lock().expect("not poisoned");
        for from in request.into_inner().resource_spans {
            let node = from.resource.as_ref().map(instance).unwrap_or_default();
            let spans = from.scope_spans.into_iter().flat_map(|scope| scope.spans);
            kept.extend(spans.map(|span| (node.clone(), span)));
        }
        drop(kept);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Listens on a free port; returns the collector and its URL.
    pub async fn listen() -> (Collector, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let collector = Collector::default();
        let service = TraceServiceServer::new(collector.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        simpul::task::spawn("collector", async move {
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.expect("it serves");
        });
        (collector, url)
    }

    pub fn spans(&self) -> Vec<Span> {
        let spans = self.spans.lock().expect("not poisoned");
        spans.iter().map(|(_, span)| span.clone()).collect()
    }

    /// The id of the node that sent a span.
    pub fn sent_by(&self, span: &Span) -> String {
        let spans = self.spans.lock().expect("not poisoned");
        let found = spans.iter().find(|(_, other)| other.span_id == span.span_id);
        found.map(|(node, _)| node.clone()).unwrap_or_default()
    }

    /// The spans of one trace.
    pub fn trace(&self, id: &str) -> Vec<Span> {
        self.spans().into_iter().filter(|span| hex(&span.trace_id) == id).collect()
    }
}

/// The text of a span's attribute.
pub fn attribute<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
    let found = span.attributes.iter().find(|pair| pair.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        StringValue(text) => Some(text),
        _ => None,
    }
}

/// Which node a resource is.
fn instance(resource: &Resource) -> String {
    let found = resource.attributes.iter().find(|pair| pair.key == "service.instance.id");
    match found.and_then(|pair| pair.value.as_ref()?.value.as_ref()) {
        Some(StringValue(id)) => id.clone(),
        _ => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The spans on the way from a span up to the one that has `root` as parent.
pub fn chain(spans: &[Span], from: &Span, root: &str) -> Option<Vec<Span>> {
    let mut chain = vec![from.clone()];
    let mut at = from;
    while hex(&at.parent_span_id) != root {
        at = spans.iter().find(|span| span.span_id == at.parent_span_id)?;
        chain.push(at.clone());
    }
    Some(chain)
}

/// The names on that way.
pub fn ancestry(spans: &[Span], from: &Span, root: &str) -> Option<Vec<String>> {
    let chain = chain(spans, from, root)?;
    Some(chain.into_iter().map(|span| span.name).collect())
}

/// The trace that callers begin, and their span.
pub const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
pub const PARENT: &str = "b7ad6b7169203331";

/// A call within that trace.
pub fn traced<T>(message: T, token: &str) -> Request<T> {
    let mut request = with_token(message, token);
    let value = format!("00-{TRACE}-{PARENT}-01").parse().expect("ASCII");
    request.metadata_mut().insert("traceparent", value);
    request
}
