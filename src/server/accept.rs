//! The accept loop of the public listener.
//!
//! It is our own because only so can the node reload certificates between two
//! handshakes, know the peer, send GOAWAY by age, end in bounded time and cap
//! the handshakes under way. Handshakes over the cap wait in the system's
//! accept queue; connections over theirs are closed at once, so that a client
//! tries elsewhere instead of hanging.
//!
//! No error of accept() ends the loop: a full file table passes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::TokioTimer;
use tokio::sync::Semaphore;
use tower::Service;

use super::bind::Listener;
use super::connection::Life;
use super::metrics::{Counted, Metrics};
use super::tls::TlsSource;
use crate::cluster::link;
use crate::config::schema::Traffic;
use crate::cut::Executor;
use crate::{drain, task};

/// One message of the largest size and its prefix pass without a pause; a chat
/// client's frames gain nothing from more, and what a client may send ahead of
/// a slow handler is bounded by it.
const STREAM_WINDOW: u32 = 128 * 1024;

/// Several busy streams; the most that one connection may hold unread.
const CONNECTION_WINDOW: u32 = 512 * 1024;

/// What HTTP/2 may hold of one response: what urgent frames cannot overtake.
/// hyper's default is 400 KiB.
const SEND_BUFFER: usize = 32 * 1024;

/// The least that HTTP/2 permits. Larger frames would let one stream hold up
/// the others of its connection for longer.
const MAX_FRAME: u32 = 16 * 1024;

/// How long the loop rests after an error that retrying at once would repeat.
const REST: Duration = Duration::from_millis(100);

/// Longer than any connection lives: later times do not fit into every clock.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What bounds connections.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections open at once.
    pub connections: usize,
    /// Handshakes under way at once.
    pub handshakes: usize,
    /// How long one may take.
    pub handshake_timeout: Duration,
    /// Streams of one connection.
    pub streams: u32,
    /// The largest list of request headers, bytes.
    pub header_bytes: u32,
    /// The age at which a connection gets GOAWAY, ±10 %.
    pub age: Duration,
    /// How long its streams may then go on.
    pub age_grace: Duration,
    /// How often a connection is pinged.
    pub keepalive_interval: Duration,
    /// How long a ping may stay unanswered.
    pub keepalive_timeout: Duration,
    /// How much may be on its way.
    pub windows: Windows,
    /// After how long the system ends connections whose other end acknowledges
    /// nothing. Never those of clients: one that stalls, and opens its window
    /// later, may.
    pub silent_end: Option<Duration>,
}

/// How much of a connection may be on its way, bytes.
#[derive(Debug, Clone, Copy)]
pub struct Windows {
    /// Of one stream, unread.
    pub stream: u32,
    /// Of all streams, unread.
    pub connection: u32,
    /// The largest frame that is taken.
    pub frame: u32,
    /// What HTTP/2 may hold of one response.
    pub send_buffer: usize,
}

/// Those of clients.
const CLIENTS: Windows = Windows {
    stream: STREAM_WINDOW,
    connection: CONNECTION_WINDOW,
    frame: MAX_FRAME,
    send_buffer: SEND_BUFFER,
};

impl From<&Traffic> for Limits {
    fn from(traffic: &Traffic) -> Self {
        Self {
            connections: traffic.max_connections.min(Semaphore::MAX_PERMITS),
            handshakes: traffic.max_handshakes.clamp(1, Semaphore::MAX_PERMITS),
            handshake_timeout: traffic.handshake_timeout,
            streams: traffic.max_streams_per_connection,
            header_bytes: traffic.max_header_bytes,
            age: traffic.max_connection_age.min(FOR_EVER),
            age_grace: traffic.connection_age_grace.min(FOR_EVER),
            keepalive_interval: traffic.keepalive_interval,
            keepalive_timeout: traffic.keepalive_timeout,
            windows: CLIENTS,
            silent_end: None,
        }
    }
}

impl Limits {
    /// Of the mesh listener: links live as long as both nodes, carry bursts, and
    /// a cut one must be noticed soon.
    pub fn mesh(traffic: &Traffic) -> Self {
        Self {
            age: FOR_EVER,
            age_grace: FOR_EVER,
            keepalive_interval: link::KEEPALIVE,
            keepalive_timeout: link::KEEPALIVE,
            windows: Windows {
                stream: link::STREAM_WINDOW,
                connection: link::CONNECTION_WINDOW,
                frame: link::MAX_FRAME,
                send_buffer: link::SEND_BUFFER,
            },
            silent_end: Some(link::UNACKNOWLEDGED),
            ..Self::from(traffic)
        }
    }

    /// h2's own limits on streams that a client opens and resets stay on.
    fn http(&self) -> http2::Builder<Executor> {
        let mut http = http2::Builder::new(Executor);
        http.timer(TokioTimer::new())
            .auto_date_header(false)
            .initial_stream_window_size(self.windows.stream)
            .initial_connection_window_size(self.windows.connection)
            .max_frame_size(self.windows.frame)
            .max_send_buf_size(self.windows.send_buffer)
            .max_concurrent_streams(self.streams)
            // The layers refuse what is over the bound, with a reason; what is
            // twice as large does not get so far.
            .max_header_list_size(self.header_bytes.saturating_mul(2))
            .keep_alive_interval(self.keepalive_interval)
            .keep_alive_timeout(self.keepalive_timeout);
        http
    }
}

/// What every connection shares.
pub(super) struct Shared<T, S> {
    pub(super) tls: Arc<T>,
    pub(super) http: http2::Builder<Executor>,
    pub(super) service: S,
    pub(super) limits: Limits,
    pub(super) metrics: Metrics,
}

/// Serves until the drain begins; connections then go on in their own tasks and
/// hold the drain's guards. Each request carries
/// [`crate::security::connection::Connection`] in its extensions.
///
/// The service must always be ready, as the layers of `traffic` and
/// [`super::routes::Routes`] are: a clone of it is called for each request
/// without asking.
pub async fn serve<T, S, B>(
    listener: Listener,
    tls: Arc<T>,
    limits: Limits,
    service: S,
    metrics: Metrics,
    drain: drain::Watch,
) where
    T: TlsSource,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let handshakes = Arc::new(Semaphore::new(limits.handshakes));
    let connections = Arc::new(Semaphore::new(limits.connections));
    let http = limits.http();
    let shared = Arc::new(Shared { tls, http, service, limits, metrics });
    let mut stop = drain.clone();
    loop {
        let next = async {
            // The semaphore is never closed.
            let handshake = handshakes.clone().acquire_owned().await.ok();
            (handshake, listener.socket.accept().await)
        };
        let (handshake, accepted) = tokio::select! {
            biased;
            () = stop.graceful() => return,
            next = next => next,
        };
        let (tcp, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                shared.metrics.accept_errors.inc();
                rest(&error).await;
                continue;
            }
        };
        let Ok(place) = connections.clone().try_acquire_owned() else {
            shared.metrics.refused.inc();
            continue;
        };
        let life = Life {
            shared: shared.clone(),
            remote,
            guard: drain.guard(),
            drain: drain.clone(),
            counted: Counted::new(&shared.metrics.connections),
        };
        task::spawn("connection", async move {
            life.run(tcp, handshake).await;
            drop(place);
        });
    }
}

/// A connection that broke before it was accepted is nobody's trouble; what the
/// process lacks (files, memory) needs time to come back.
async fn rest(error: &std::io::Error) {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    if !matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
        tracing::warn!(%error, "cannot accept connections; trying again");
        tokio::time::sleep(REST).await;
    }
}
