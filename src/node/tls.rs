//! The accept loop's view of certificates and trust.

use std::sync::Arc;

use tokio::sync::watch;

use crate::refusal::Refusal;
use crate::security::connection::PeerCertificate;
use crate::security::mesh::Mesh;
use crate::security::{PeerChain, Security};
use crate::server::tls::{Peer, TlsSource};

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
    ) -> Result<Option<Peer<Self::Chain>>, Refusal> {
        let certificate = self.0.peer(connection)?.map(Arc::new);
        let shown = certificate.zip(PeerChain::of(connection));
        Ok(shown.map(|(certificate, chain)| (certificate.clone(), (chain, certificate))))
    }

    fn trust_changes(&self) -> watch::Receiver<u64> {
        self.0.trust()
    }

    fn recheck(&self, (chain, certificate): &Self::Chain) -> bool {
        self.0.still_proves(chain, certificate)
    }
}

/// The mesh's certificates and trust as they are now.
#[derive(Debug)]
pub(super) struct MeshTls(pub(super) Arc<Mesh>);

impl TlsSource for MeshTls {
    type Chain = (PeerChain, Arc<PeerCertificate>);

    fn config(&self) -> Arc<rustls::ServerConfig> {
        self.0.server_config()
    }

    fn peer(
        &self,
        connection: &rustls::ServerConnection,
    ) -> Result<Option<Peer<Self::Chain>>, Refusal> {
        let certificate = Arc::new(self.0.peer(connection)?);
        let shown =
            PeerChain::of(connection).map(|chain| (certificate.clone(), (chain, certificate)));
        Ok(shown)
    }

    fn trust_changes(&self) -> watch::Receiver<u64> {
        self.0.trust()
    }

    fn recheck(&self, (chain, certificate): &Self::Chain) -> bool {
        self.0.still_proves(chain, certificate)
    }
}
