//! One connection's life: handshake, requests, GOAWAY, end.
//!
//! It ends when the client closes it, when its age and grace are over, when its
//! certificate is no longer believed, or with the drain: told by GOAWAY first,
//! cut at the deadline.

use std::convert::Infallible;
use std::future::{Future as _, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncBufReadExt;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::Service;

use super::accept::Shared;
use super::gather::gather;
use super::metrics::Counted;
use super::tls::TlsSource;
use crate::drain;
use crate::security::belief::Believed;
use crate::security::connection::Connection;
use crate::silence::end_when_silent;

/// How long a connection goes on whose client is no longer believed: its
/// permits are withdrawn at once, and its streams say so to it.
const DISTRUST_GRACE: Duration = Duration::from_secs(1);

/// A client's chain, and whether it is believed.
type Proof<T> = (<T as TlsSource>::Chain, Believed);

/// What a connection's task owns.
pub(super) struct Life<T, S> {
    pub(super) shared: Arc<Shared<T, S>>,
    pub(super) remote: SocketAddr,
    pub(super) drain: drain::Watch,
    /// Makes the drain wait for this connection.
    pub(super) guard: drain::Guard,
    pub(super) counted: Counted,
}

impl<T, S, B> Life<T, S>
where
    T: TlsSource,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(super) async fn run(mut self, tcp: TcpStream, handshake: Option<OwnedSemaphorePermit>) {
        // Before the handshake looks at what is believed: a change is not missed.
        let trust = self.shared.tls.trust_changes();
        let under_way = Counted::new(&self.shared.metrics.handshakes);
        let tls = self.handshake(tcp).await;
        drop((under_way, handshake));
        match tls {
            Ok(tls) => self.serve(tls, trust).await,
            Err(reason) => self.shared.metrics.handshake_failed(reason),
        }
        drop((self.counted, self.guard));
    }

    /// Shakes hands and waits for the client's first bytes: one that says
    /// nothing must not keep its place. The reason is a metric's label.
    async fn handshake(&mut self, tcp: TcpStream) -> Result<TlsStream<TcpStream>, &'static str> {
        // Without it small frames wait for the peer's acknowledgement.
        tcp.set_nodelay(true).map_err(|_| "closed")?;
        if let Some(after) = self.shared.limits.silent_end {
            end_when_silent(&tcp, after).map_err(|_| "closed")?;
        }
        let accept = TlsAcceptor::from(self.shared.tls.config()).accept(tcp);
        let speak = async {
            let mut tls = accept.await?;
            tls.fill_buf().await?;
            Ok::<_, std::io::Error>(tls)
        };
        let done = tokio::select! {
            done = timeout(self.shared.limits.handshake_timeout, speak) => done,
            () = self.drain.graceful() => return Err("draining"),
        };
        match done {
            Err(_) => Err("timeout"),
            Ok(Err(error)) => {
                tracing::debug!(remote = %self.remote, %error, "a handshake failed");
                Err(if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
                    "tls"
                } else {
                    "closed"
                })
            }
            Ok(Ok(tls)) => Ok(tls),
        }
    }

    /// Who it is, and what to check again when trust changes.
    fn admit(&self, tls: &rustls::ServerConnection) -> Option<(Connection, Option<Proof<T>>)> {
        match self.shared.tls.peer(tls) {
            Ok(peer) => {
                let (certificate, chain) = peer.unzip();
                let proof = chain.map(|chain| (chain, Believed::new()));
                let belief = proof.as_ref().map(|(_, believed)| believed.belief());
                Some((Connection { remote: self.remote, certificate, belief }, proof))
            }
            Err(refusal) => {
                tracing::info!(remote = %self.remote, %refusal, "a client was refused");
                self.shared.metrics.handshake_failed("peer");
                None
            }
        }
    }

    async fn serve(&mut self, tls: TlsStream<TcpStream>, mut trust: watch::Receiver<u64>) {
        let metrics = &self.shared.metrics;
        let Some((connection, proof)) = self.admit(tls.get_ref().1) else { return };
        let service = Requests { service: self.shared.service.clone(), connection };
        let (stream, flusher) = gather(tls);
        let mut http = pin!(self.shared.http.serve_connection(TokioIo::new(stream), service));

        let mut end = pin!(sleep(jittered(self.shared.limits.age)));
        let mut forced = self.drain.clone();
        let mut going = false;
        let mut draining = false;
        let mut cause = "age";
        loop {
            tokio::select! {
                done = poll_fn(|cx| {
                    let done = http.as_mut().poll(cx);
                    flusher.flush(cx);
                    done
                }) => {
                    return metrics.closed_by(if going || draining {
                        "goaway"
                    } else if done.is_ok() {
                        "client"
                    } else {
                        "error"
                    });
                }
                () = end.as_mut() => {
                    if going {
                        return metrics.closed_by(cause);
                    }
                    going = true;
                    http.as_mut().graceful_shutdown();
                    end.as_mut().reset(Instant::now() + self.shared.limits.age_grace);
                }
                () = self.drain.graceful(), if !draining => {
                    draining = true;
                    http.as_mut().graceful_shutdown();
                }
                () = forced.forced() => return metrics.closed_by("drain"),
                Ok(()) = trust.changed(), if proof.is_some() && cause == "age" => {
                    if let Some((chain, believed)) = &proof
                        && !self.shared.tls.recheck(chain)
                    {
                        (going, cause) = (true, "distrust");
                        believed.withdraw();
                        http.as_mut().graceful_shutdown();
                        end.as_mut().reset(Instant::now() + DISTRUST_GRACE);
                    }
                }
            }
        }
    }
}

/// ±10 %, so that connections made together do not end together.
fn jittered(age: Duration) -> Duration {
    age.mul_f64(rand::random_range(0.9..=1.1))
}

/// Hands a connection's requests to the service.
struct Requests<S> {
    service: S,
    connection: Connection,
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Requests<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = S::Future;

    fn call(&self, mut request: Request<Incoming>) -> S::Future {
        request.extensions_mut().insert(self.connection.clone());
        self.service.clone().call(request)
    }
}
