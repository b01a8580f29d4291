//! The accept loop's view of certificates and trust.

use std::sync::Arc;

use tokio::sync::watch;

use crate::refusal::Refusal;
use crate::security::connection::PeerCertificate;
use crate::security::{PeerChain, Security};
use crate::server::tls::TlsSource;

/// Certificates and trust as they are now.
#[derive(Debug)]
pub(super) struct Tls(pub(super) Arc<Security>);

impl TlsSource for Tls {
    type Chain = PeerChain;

    fn config(&self) -> Arc<rustls::ServerConfig> {
        self.0.server_config()
    }

    fn peer(
        &self,
        connection: &rustls::ServerConnection,
    ) -> Result<Option<(Arc<PeerCertificate>, PeerChain)>, Refusal> {
        Ok(self.0.peer(connection)?.map(Arc::new).zip(PeerChain::of(connection)))
    }

    fn trust_changes(&self) -> watch::Receiver<u64> {
        self.0.trust()
    }

    fn recheck(&self, chain: &PeerChain) -> bool {
        self.0.recheck(chain).is_ok()
    }
}
