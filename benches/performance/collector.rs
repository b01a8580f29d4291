//! An OTLP receiver that takes everything and keeps a count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use opentelemetry_proto::tonic::collector::trace::v1 as pb;
use pb::trace_service_server::{TraceService, TraceServiceServer};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

/// Counts the spans that came.
#[derive(Debug, Clone, Default)]
pub struct Collector(Arc<AtomicU64>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<pb::ExportTraceServiceRequest>,
    ) -> Result<Response<pb::ExportTraceServiceResponse>, Status> {
        let spans = request.get_ref().resource_spans.iter().flat_map(|of| &of.scope_spans);
        let count: usize = spans.map(|of| of.spans.len()).sum();
        self.0.fetch_add(count as u64, Ordering::Relaxed);
        Ok(Response::new(pb::ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Listens on a free port; the collector and its URL.
    pub async fn listen() -> (Self, String) {
        let collector = Self::default();
        let service = TraceServiceServer::new(collector.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        simpul::task::spawn("collector", async move {
            let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
            let server = tonic::transport::Server::builder().add_service(service);
            server.serve_with_incoming(incoming).await.expect("it serves");
        });
        (collector, url)
    }

    pub fn spans(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
