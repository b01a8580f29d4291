//! How links reach other nodes: TLS over TCP, or whatever a simulation has.
//!
//! The code of links knows streams and who is at their other end, nothing of
//! sockets and certificates.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::http::UNACKNOWLEDGED;
pub use super::verdict::Verdict;
use super::verdict::Watched;
use crate::security::mesh::{self, Mesh};
use crate::silence;

/// A connection's bytes.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection that was made.
pub struct Dialed {
    /// Its bytes.
    pub stream: Box<dyn Stream>,
    /// Completes when the other end is no longer believed.
    pub distrusted: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Whether the other end believes this node, as far as it has said so.
    pub verdict: Verdict,
}

impl std::fmt::Debug for Dialed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialed").finish_non_exhaustive()
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Somebody said that nothing listens there.
    #[error("nothing listens at {0}")]
    Refused(String),
    /// Who answered is not the node that it should be; the sentence says why.
    #[error("{0}")]
    Identity(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// Dials nodes.
#[async_trait]
pub trait Network: Send + Sync + std::fmt::Debug {
    /// Connects to a node at its address, `host:port`, and makes sure that it
    /// is that node. Cancel safe.
    async fn dial(&self, node: &str, address: &str) -> Result<Dialed, DialError>;
}

/// Mutual TLS over TCP.
#[derive(Debug)]
pub struct TlsNetwork {
    mesh: Arc<Mesh>,
}

/// How long the system goes on trying a connection that is not answered.
const CONNECT: Duration = Duration::from_secs(1);

/// How long a handshake may take after that.
const HANDSHAKE: Duration = Duration::from_secs(2);

impl TlsNetwork {
    /// With the node's own certificate and the mesh bundle.
    pub fn new(mesh: Arc<Mesh>) -> Self {
        Self { mesh }
    }
}

#[async_trait]
impl Network for TlsNetwork {
    async fn dial(&self, node: &str, address: &str) -> Result<Dialed, DialError> {
        let failed =
            |error: &dyn std::fmt::Display| DialError::Failed(format!("{address}: {error}"));
        // Before anything is looked at: a change meanwhile is not missed.
        let trust = self.mesh.trust();
        let tcp = tokio::time::timeout(CONNECT, TcpStream::connect(address))
            .await
            .map_err(|_| failed(&"no answer"))?
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::ConnectionRefused => DialError::Refused(address.to_owned()),
                _ => failed(&error),
            })?;
        tcp.set_nodelay(true).map_err(|error| failed(&error))?;
        silence::end_when_silent(&tcp, UNACKNOWLEDGED).map_err(|error| failed(&error))?;
        let config = self.mesh.client_config(node).map_err(|error| failed(&error))?;
        // No host name is checked, and none is sent: pods' addresses change.
        let connector = TlsConnector::from(config).connect(Mesh::server_name(), tcp);
        let tls = tokio::time::timeout(HANDSHAKE, connector)
            .await
            .map_err(|_| failed(&"no TLS handshake in time"))?
            .map_err(|error| match mesh::refusal_of(&error) {
                Some(why) => DialError::Identity(format!("{address}: {why}")),
                None => failed(&error),
            })?;
        let chain = tls.get_ref().1.peer_certificates().map(<[_]>::to_vec).unwrap_or_default();
        let believing = self.mesh.clone();
        let expected = node.to_owned();
        let distrusted =
            Box::pin(async move { believing.distrusted(trust, &chain, &expected).await });
        let verdict = Verdict::default();
        let stream = Box::new(Watched::new(tls, verdict.clone()));
        Ok(Dialed { stream, distrusted, verdict })
    }
}
