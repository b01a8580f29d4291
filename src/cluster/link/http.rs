//! HTTP/2 as links use it.
//!
//! Windows are large and fixed: a link carries bursts, and windows that adapt
//! cost latency. A cut link must be noticed within seconds, so both sides ping.

use std::time::Duration;

use http::header::{CONTENT_TYPE, TE};
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2 as client;
use hyper::server::conn::http2 as server;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::AbortHandle;

use super::network::Stream;
use super::outbox::OutboxBody;
use super::serve::PATH;
use crate::cut::Executor;
use crate::task;

/// How much of one link may be on its way unread, bytes.
pub const STREAM_WINDOW: u32 = 2 * 1024 * 1024;

/// The same, of a connection.
pub const CONNECTION_WINDOW: u32 = 4 * STREAM_WINDOW;

/// The largest frame that is taken, bytes: a burst is few frames then.
pub const MAX_FRAME: u32 = 256 * 1024;

/// What HTTP/2 may hold to be sent, bytes.
pub const SEND_BUFFER: usize = 1024 * 1024;

/// How often a connection is pinged, and how long a ping may stay unanswered.
pub const KEEPALIVE: Duration = Duration::from_secs(1);

/// How long what was sent may stay unacknowledged: as long as HTTP/2's own pings,
/// which are data too, so that a socket without traffic needs no probes of its
/// own.
pub const UNACKNOWLEDGED: Duration = KEEPALIVE.saturating_mul(2);

/// A link's HTTP/2, as the side that accepts has it.
pub(super) fn accepting() -> server::Builder<Executor> {
    let mut http = server::Builder::new(Executor);
    http.timer(TokioTimer::new())
        .auto_date_header(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE);
    http
}

fn dialing() -> client::Builder<Executor> {
    let mut http = client::Builder::new(Executor);
    http.timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true);
    http
}

/// A call that was answered. Dropping it ends its connection.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) response: Response<Incoming>,
    pub(super) connection: Connection,
}

/// A connection's task. Dropping it ends the connection.
#[derive(Debug)]
pub(super) struct Connection {
    task: AbortHandle,
    /// Without it the connection would take itself for unused.
    _sender: client::SendRequest<OutboxBody>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Makes the call `Link`; returns when the other side has begun to answer.
pub(super) async fn open(
    stream: Box<dyn Stream>,
    body: OutboxBody,
) -> Result<Opened, hyper::Error> {
    let (mut sender, connection) = dialing().handshake(TokioIo::new(stream)).await?;
    let task = task::spawn("link connection", async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a link's connection broke");
        }
    });
    let task = task.abort_handle();
    let mut request = Request::new(body);
    *request.method_mut() = http::Method::POST;
    *request.version_mut() = http::Version::HTTP_2;
    *request.uri_mut() = http::Uri::from_static(URI);
    let headers = request.headers_mut();
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let answer = sender.send_request(request);
    let connection = Connection { task, _sender: sender };
    let response = answer.await?;
    Ok(Opened { response, connection })
}

/// The authority is nobody's name: a link's other end is known by its
/// certificate.
const URI: &str = "http://node/simpul.cluster.v1.LinkService/Link";

const _: () = assert!(URI.len() == PATH.len() + "http://node".len());
