//! What the accept loop asks of whoever holds certificates and trust.

use std::sync::Arc;

use tokio::sync::watch;

use crate::refusal::Refusal;
use crate::security::connection::PeerCertificate;

/// Whom a client's certificate names, and what it presented.
pub type Peer<C> = (Arc<PeerCertificate>, C);

/// The source of TLS: the node's own certificate and what it believes, both as
/// they are now. Implemented over `security`.
pub trait TlsSource: Send + Sync + 'static {
    /// What a client presented, kept to look at it again.
    type Chain: Send + Sync + 'static;

    /// What the next handshake uses. Asked for each time, so that a reload
    /// needs nothing else. ALPN must be h2 alone.
    fn config(&self) -> Arc<rustls::ServerConfig>;

    /// The client of a finished handshake: its certificate, verified again when
    /// the session was resumed (resumption skips the verifier).
    fn peer(
        &self,
        connection: &rustls::ServerConnection,
    ) -> Result<Option<Peer<Self::Chain>>, Refusal>;

    /// Counts what is believed: whenever it changes, open connections that
    /// showed a certificate are checked again.
    fn trust_changes(&self) -> watch::Receiver<u64>;

    /// Whether what a client presented still proves the same.
    fn recheck(&self, chain: &Self::Chain) -> bool;
}
