//! The public listener's TLS: version 1.3 alone, HTTP/2 alone, and a client
//! certificate optional or required.
//!
//! Each change of certificates or bundles makes a whole new configuration with
//! ticket keys of its own, so that no session outlives the trust in which it
//! began. What a resumed handshake skips, [`super::Security::peer`] makes up for.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{ServerConnection, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};

use super::trust::Trust;
use crate::config::schema::ClientAuth;

/// The provider of every handshake; given explicitly, so that nothing depends
/// on what else the process installed.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The listener's configuration.
pub(super) fn server_config(
    key: Arc<CertifiedKey>,
    trust: &Trust,
    client_auth: ClientAuth,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<ServerConfig>, String> {
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?;
    let builder = if trust.union().is_empty() {
        builder.with_no_client_auth()
    } else {
        let verifier =
            WebPkiClientVerifier::builder_with_provider(trust.union().clone(), provider.clone());
        let verifier = match client_auth {
            ClientAuth::Optional => verifier.allow_unauthenticated(),
            ClientAuth::Required => verifier,
        };
        builder.with_client_cert_verifier(verifier.build().map_err(|error| error.to_string())?)
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.ticketer =
        rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|error| error.to_string())?;
    // One ticket serves one resumption; clients keep one connection.
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// Runs a handshake in memory, so that the first client does not pay for the
/// tables and keys that the first signature sets up. The client believes
/// nobody and breaks off after the server's part is done.
pub(super) fn warm_up(config: &Arc<ServerConfig>, provider: &Arc<CryptoProvider>) {
    let Ok(builder) = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
    else {
        return;
    };
    let mut client = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec()];
    let Ok(name) = "localhost".try_into() else { return };
    let (Ok(mut client), Ok(mut server)) =
        (ClientConnection::new(Arc::new(client), name), ServerConnection::new(config.clone()))
    else {
        return;
    };
    let mut wire = Vec::new();
    if client.write_tls(&mut wire).is_ok() && server.read_tls(&mut wire.as_slice()).is_ok() {
        // How it ends does not matter.
        let _ = server.process_new_packets();
    }
}
