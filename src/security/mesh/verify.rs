//! The verifiers of mesh handshakes: the chain to the mesh bundle by rustls' own
//! verifier, then the SPIFFE id.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::principal::TrustDomain;
use crate::security::IdentityError;
use crate::security::spiffe::{self, NodeName};

/// What both verifiers share.
#[derive(Debug)]
pub(super) struct Vouching {
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
    algorithms: WebPkiSupportedAlgorithms,
    domain: TrustDomain,
}

impl Vouching {
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        domain: TrustDomain,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let clients =
            WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build();
        let clients = clients.map_err(|error| error.to_string())?;
        let algorithms = provider.signature_verification_algorithms;
        Ok(Self { roots, clients, algorithms, domain })
    }

    /// Which node a certificate names.
    pub(super) fn name(&self, leaf: &[u8]) -> Result<NodeName, IdentityError> {
        spiffe::node(&spiffe::uri(leaf)?, &self.domain)
    }

    /// Whether the mesh's authority vouches for one that opens connections.
    pub(super) fn chain(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        self.clients.verify_client_cert(leaf, intermediates, now).map(drop)
    }

    /// Whether a certificate proves the node that was dialed.
    pub(super) fn server(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        node: &str,
        now: UnixTime,
    ) -> Result<(), Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        match self.name(leaf) {
            Ok(name) if name.covers(node) => Ok(()),
            Ok(_) => Err(refused(IdentityError::OtherNode)),
            Err(error) => Err(refused(error)),
        }
    }
}

fn refused(error: IdentityError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

/// On the side that dials: whoever answers must be this node.
#[derive(Debug)]
pub(super) struct Dialing {
    pub(super) vouching: Arc<Vouching>,
    pub(super) node: Arc<str>,
}

impl ServerCertVerifier for Dialing {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.vouching.server(end_entity, intermediates, &self.node, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.vouching.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.vouching.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.vouching.algorithms.supported_schemes()
    }
}

/// On the side that accepts: whoever connects must be a node.
#[derive(Debug)]
pub(super) struct Accepting {
    pub(super) vouching: Arc<Vouching>,
}

impl ClientCertVerifier for Accepting {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.vouching.clients.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.vouching.chain(end_entity, intermediates, now)?;
        self.vouching.name(end_entity).map_err(refused)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.vouching.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.vouching.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.vouching.algorithms.supported_schemes()
    }
}
