//! The admin listener: plaintext, read-only, without user data.
//!
//! Over HTTP/1.1 or h2c: `/metrics`, `/livez`, `/readyz` (503 with the names
//! that are pending) and gRPC health, which is what Kubernetes' probe can speak.
//! Everything else is 404. It has small limits of its own and a drain of its
//! own: it answers until the node is gone.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tonic::body::Body;
use tonic_health::pb::health_server::HealthServer;
use tower::Service;

use super::bind::Listener;
use super::exposition;
use super::health::NodeHealth;
use crate::readiness::Readiness;
use crate::{drain, task};

const MAX_CONNECTIONS: usize = 64;
const MAX_STREAMS: u32 = 16;
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// What the listener shows.
#[derive(Debug, Clone)]
pub struct Admin {
    /// The node's metrics.
    pub metrics: Arc<Registry>,
    /// What is pending.
    pub readiness: Readiness,
    /// gRPC health, with this listener's drain.
    pub health: HealthServer<NodeHealth>,
}

/// Serves until the drain's end is asked for; open connections get the drain's
/// time to finish.
pub async fn serve(listener: Listener, admin: Admin, drain: drain::Watch) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut stop = drain.clone();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.graceful() => return,
            accepted = listener.socket.accept() => accepted,
        };
        let Ok((tcp, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let (admin, drain, guard) = (admin.clone(), drain.clone(), drain.guard());
        task::spawn("admin connection", async move {
            connection(tcp, admin, drain).await;
            drop((place, guard));
        });
    }
}

async fn connection(tcp: TcpStream, admin: Admin, drain: drain::Watch) {
    let mut stop = drain.clone();
    let h2 = tokio::select! {
        h2 = tokio::time::timeout(PATIENCE, speaks_h2(&tcp)) => h2,
        () = stop.graceful() => return,
    };
    let Ok(Ok(h2)) = h2 else { return };
    let service = service_fn(move |request| {
        let mut admin = admin.clone();
        async move { Ok::<_, Infallible>(admin.answer(request).await) }
    });
    let io = TokioIo::new(tcp);
    if h2 {
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEADER_BYTES)
            .keep_alive_interval(PATIENCE)
            .keep_alive_timeout(PATIENCE);
        let http = std::pin::pin!(http.serve_connection(io, service));
        drive(http, |http| http.graceful_shutdown(), drain).await;
    } else {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .max_buf_size(MAX_HEADER_BYTES as usize);
        let http = std::pin::pin!(http.serve_connection(io, service));
        drive(http, |http| http.graceful_shutdown(), drain).await;
    }
}

/// Whether HTTP/2's preface comes: no method of HTTP/1 begins with `PRI`.
async fn speaks_h2(tcp: &TcpStream) -> std::io::Result<bool> {
    let mut start = [0; 3];
    loop {
        let seen = tcp.peek(&mut start).await?;
        if seen == start.len() || seen == 0 || start.get(..seen) != b"PRI".get(..seen) {
            return Ok(start == *b"PRI");
        }
        // One or two bytes of it: peek would return at once for ever.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn drive<C: Future>(
    mut http: Pin<&mut C>,
    shut_down: impl Fn(Pin<&mut C>),
    mut drain: drain::Watch,
) {
    let mut forced = drain.clone();
    let mut draining = false;
    loop {
        tokio::select! {
            _ = http.as_mut() => return,
            () = drain.graceful(), if !draining => {
                draining = true;
                shut_down(http.as_mut());
            }
            () = forced.forced() => return,
        }
    }
}

impl Admin {
    async fn answer(&mut self, request: Request<Incoming>) -> Response<Body> {
        let read = matches!(*request.method(), Method::GET | Method::HEAD);
        match request.uri().path() {
            "/metrics" if read => self.metrics(&request),
            "/livez" if read => text(StatusCode::OK, "ok\n".to_owned()),
            "/readyz" if read => self.ready(),
            path if path.starts_with("/grpc.health.v1.Health/") && is_call(&request) => {
                match self.health.call(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            }
            _ => text(StatusCode::NOT_FOUND, "not found\n".to_owned()),
        }
    }

    fn metrics<T>(&self, request: &Request<T>) -> Response<Body> {
        let mut accepted = request.headers().get_all(ACCEPT).iter();
        let openmetrics =
            accepted.any(|it| it.to_str().is_ok_and(|it| it.contains(exposition::OPENMETRICS)));
        let mut shown = String::new();
        match prometheus_client::encoding::text::encode(&mut shown, &self.metrics) {
            Ok(()) if !openmetrics => {
                with_type(StatusCode::OK, exposition::CLASSIC, exposition::classic(&shown))
            }
            Ok(()) => with_type(StatusCode::OK, OPENMETRICS, shown),
            Err(_) => {
                text(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be shown\n".to_owned())
            }
        }
    }

    fn ready(&self) -> Response<Body> {
        let pending = self.readiness.pending();
        if pending.is_empty() {
            return text(StatusCode::OK, "ok\n".to_owned());
        }
        let listed = pending.iter().map(|name| format!("pending: {name}\n")).collect();
        text(StatusCode::SERVICE_UNAVAILABLE, listed)
    }
}

fn is_call<T>(request: &Request<T>) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    request.method() == Method::POST
        && content_type.is_some_and(|it| it.starts_with(b"application/grpc"))
}

fn text(status: StatusCode, body: String) -> Response<Body> {
    with_type(status, TEXT, body)
}

fn with_type(status: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
