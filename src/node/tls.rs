//! The accept loop's view of certificates and trust.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use crate::refusal::Refusal;
use crate::security::connection::PeerCertificate;
use crate::security::{PeerChain, Security};
use crate::server::tls::TlsSource;

/// Certificates and trust as they are now.
#[derive(Debug)]
pub(super) struct Tls(pub(super) Arc<Security>);

impl TlsSource for Tls {
    fn config(&self) -> Arc<rustls::ServerConfig> {
        self.0.server_config()
    }

    fn peer(
        &self,
        connection: &rustls::ServerConnection,
    ) -> Result<Option<Arc<PeerCertificate>>, Refusal> {
        Ok(self.0.peer(connection)?.map(Arc::new))
    }

    fn trust_changes(&self) -> watch::Receiver<u64> {
        self.0.trust()
    }

    fn recheck(&self, chain: &[CertificateDer<'static>]) -> bool {
        self.0.recheck(&PeerChain::from(chain)).is_ok()
    }
}
