//! Which certificate authorities are believed, and for what.
//!
//! The handshake verifies a client's chain against all bundles together; that
//! says only that *some* authority vouches for it. Whose principal it is, is
//! decided here, bundle by bundle, and decided again after every handshake: a
//! resumed one skips the verifier, and the bundles may have changed since.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ServerConnection, WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::connection::PeerCertificate;
use super::material::{Authorities, Facts};
use super::spiffe::{self, IdentityError, Patterns};
use crate::principal::{Kind, Principal, Roles, TrustDomain};
use crate::refusal::{Reason, Refusal};

/// Why a client certificate proves nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// A certificate is required.
    #[error("a client certificate is required")]
    Missing,
    /// Over.
    #[error("the client certificate's time is over")]
    Expired,
    /// No authority that is believed vouches for it.
    #[error("no authority that is believed vouches for the client certificate")]
    Untrusted,
    /// It names nobody whom its authority may assert.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl From<PeerError> for Refusal {
    fn from(error: PeerError) -> Self {
        let reason = match error {
            PeerError::Missing => Reason::CredentialsMissing,
            PeerError::Expired => Reason::CertificateExpired,
            PeerError::Untrusted | PeerError::Identity(_) => Reason::CertificateInvalid,
        };
        Refusal::new(reason, error.to_string())
    }
}

/// The certificates that a client presented, kept to look at them again.
#[derive(Debug, Clone)]
pub struct PeerChain(Arc<[CertificateDer<'static>]>);

impl PeerChain {
    /// Of a connection whose handshake is done; `None` without a certificate.
    pub fn of(connection: &ServerConnection) -> Option<Self> {
        let chain = connection.peer_certificates().filter(|chain| !chain.is_empty())?;
        Some(Self(chain.iter().map(|der| der.clone().into_owned()).collect()))
    }

    /// The holder's certificate, and those that lead to an authority.
    pub(super) fn parts(&self) -> Option<(&CertificateDer<'static>, &[CertificateDer<'static>])> {
        self.0.split_first()
    }
}

/// What one bundle may say.
#[derive(Debug, Clone)]
pub(super) struct BundleRules {
    pub(super) domain: TrustDomain,
    pub(super) kinds: Vec<Kind>,
    pub(super) roles: Roles,
    pub(super) default_roles: Roles,
    pub(super) patterns: Patterns,
}

#[derive(Debug)]
struct Bundle {
    rules: BundleRules,
    verifier: Arc<dyn ClientCertVerifier>,
}

/// All bundles, as they are now.
#[derive(Debug)]
pub(super) struct Trust {
    bundles: Vec<Bundle>,
    bindings: Arc<HashMap<Principal, Roles>>,
    union: Arc<RootCertStore>,
}

impl Trust {
    pub(super) fn new(
        bundles: Vec<(BundleRules, Authorities)>,
        bindings: Arc<HashMap<Principal, Roles>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let mut union = RootCertStore::empty();
        let mut made = Vec::new();
        for (rules, authorities) in bundles {
            union.extend(authorities.roots.roots.iter().cloned());
            let roots = authorities.roots.clone();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build();
            let verifier = verifier.map_err(|error| error.to_string())?;
            made.push(Bundle { rules, verifier });
        }
        Ok(Self { bundles: made, bindings, union: Arc::new(union) })
    }

    /// The authorities of all bundles; empty when nobody's certificates are
    /// believed.
    pub(super) fn union(&self) -> &Arc<RootCertStore> {
        &self.union
    }

    /// Whom the chain proves now. The first bundle that vouches for it and may
    /// assert its principal decides.
    pub(super) fn verify(
        &self,
        chain: &PeerChain,
        now: SystemTime,
    ) -> Result<PeerCertificate, PeerError> {
        let (leaf, intermediates) = chain.0.split_first().ok_or(PeerError::Missing)?;
        let facts = Facts::of(leaf).map_err(|_| IdentityError::Certificate)?;
        if now > facts.not_after {
            return Err(PeerError::Expired);
        }
        let at = unix(now);
        let mut refused = PeerError::Untrusted;
        for bundle in &self.bundles {
            if bundle.verifier.verify_client_cert(leaf, intermediates, at).is_err() {
                continue;
            }
            match self.identify(bundle, leaf) {
                Ok((principal, roles)) => {
                    let not_after = end(&facts, intermediates, now);
                    return Ok(PeerCertificate {
                        principal,
                        roles,
                        not_after,
                        thumbprint: thumbprint(leaf),
                    });
                }
                Err(error) => refused = error.into(),
            }
        }
        Err(refused)
    }

    fn identify(&self, bundle: &Bundle, leaf: &[u8]) -> Result<(Principal, Roles), IdentityError> {
        let rules = &bundle.rules;
        let uri = spiffe::uri(leaf)?;
        let principal = spiffe::principal(&uri, &rules.domain, &rules.kinds, &rules.patterns)?;
        let wanted = self.bindings.get(&principal).copied().unwrap_or(rules.default_roles);
        Ok((principal, wanted.intersection(rules.roles)))
    }
}

/// When a chain ends; refused when that is over.
pub(super) fn end_of(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: SystemTime,
) -> Result<SystemTime, PeerError> {
    let facts = Facts::of(leaf).map_err(|_| IdentityError::Certificate)?;
    if now > facts.not_after {
        Err(PeerError::Expired)
    } else {
        Ok(end(&facts, intermediates, now))
    }
}

/// When the chain ends: with its leaf, or with an intermediate before it. One
/// that is already over took no part in the proof.
fn end(leaf: &Facts, intermediates: &[CertificateDer<'_>], now: SystemTime) -> SystemTime {
    intermediates
        .iter()
        .filter_map(|der| Facts::of(der).ok())
        .map(|facts| facts.not_after)
        .filter(|end| *end >= now)
        .fold(leaf.not_after, SystemTime::min)
}

/// The time as verifiers want it.
pub(super) fn unix(now: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// SHA-256 of a certificate.
pub(super) fn thumbprint(der: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}
