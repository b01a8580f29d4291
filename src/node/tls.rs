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
    type Chain = (PeerChain, Arc<PeerCertificate>);

    fn config(&self) -> Arc<rustls::ServerConfig> {
        self.0.server_config()
    }

    fn peer(
        &self,
        connection: &rustls::ServerConnection,
    ) -> Result<Option<(Arc<PeerCertificate>, Self::Chain)>, Refusal> {
        let peer = self.0.peer(connection)?.map(Arc::new);
        let proven = peer.zip(PeerChain::of(connection));
        Ok(proven.map(|(peer, chain)| (peer.clone(), (chain, peer))))
    }

    fn trust_changes(&self) -> watch::Receiver<u64> {
        self.0.trust()
    }

    fn recheck(&self, (chain, before): &Self::Chain) -> bool {
        let same =
            |now: PeerCertificate| (&now.principal, now.roles) == (&before.principal, before.roles);
        self.0.recheck(chain).is_ok_and(same)
    }
}
