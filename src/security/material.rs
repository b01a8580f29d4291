//! Reads certificates and keys, and refuses what must not be served or
//! believed: torn files, a key that is not the certificate's, certificates
//! whose time is over or has not begun, and in production whatever carries the
//! mark of development.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The arcs of the X.509 extension that marks development certificates. They
/// lie under 2.25, where numbers are random and nobody registers them; each
/// fits 31 bits, because Go's X.509 parser takes no larger one.
pub(super) const DEVELOPMENT_OID: [u64; 3] = [2, 25, 1_238_249_607];

/// Why a file is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum MaterialError {
    /// Not PEM, or cut short.
    #[error("is not whole PEM")]
    Pem,
    /// PEM without what is needed.
    #[error("holds no certificate")]
    NoCertificate,
    /// PEM without a key.
    #[error("the key file holds no private key in PEM")]
    NoKey,
    /// A certificate that does not parse.
    #[error("holds a certificate that cannot be read")]
    Certificate,
    /// The key is another certificate's, or of an unknown sort.
    #[error("the private key is not the certificate's")]
    Mismatch,
    /// Over.
    #[error("the certificate's time is over")]
    Expired,
    /// Not begun.
    #[error("the certificate's time has not begun")]
    NotYetValid,
    /// Made by a development node.
    #[error("was made for development; production does not take it")]
    Development,
    /// A bundle of what are not authorities.
    #[error("holds a certificate that is no certificate authority")]
    NotAuthority,
}

/// What the listener proves itself with.
#[derive(Debug, Clone)]
pub(super) struct ServerIdentity {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) not_after: SystemTime,
}

/// A bundle's certificates.
#[derive(Debug, Clone)]
pub(super) struct Authorities {
    pub(super) roots: Arc<RootCertStore>,
    /// When the first of those that are valid now ends.
    pub(super) not_after: SystemTime,
}

/// Reads the node's chain and key.
pub(super) fn server_identity(
    chain: &[u8],
    key: &[u8],
    now: SystemTime,
    production: bool,
    provider: &CryptoProvider,
) -> Result<ServerIdentity, MaterialError> {
    let chain = certificates(chain)?;
    let mut not_after = None;
    for certificate in &chain {
        let facts = Facts::of(certificate)?;
        facts.check(now, production)?;
        not_after = earlier(not_after, facts.not_after);
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| MaterialError::NoKey)?;
    let key = CertifiedKey::from_der(chain, key, provider).map_err(|_| MaterialError::Mismatch)?;
    let not_after = not_after.ok_or(MaterialError::NoCertificate)?;
    Ok(ServerIdentity { key: Arc::new(key), not_after })
}

/// Reads a bundle of authorities. One whose time is over may stand beside its
/// successor; a bundle of nothing else is refused.
pub(super) fn authorities(
    bundle: &[u8],
    now: SystemTime,
    production: bool,
) -> Result<Authorities, MaterialError> {
    let mut roots = RootCertStore::empty();
    let mut not_after = None;
    let mut refused = MaterialError::NoCertificate;
    for certificate in certificates(bundle)? {
        let facts = Facts::of(&certificate)?;
        if !facts.authority {
            return Err(MaterialError::NotAuthority);
        }
        match facts.check(now, production) {
            Ok(()) => not_after = earlier(not_after, facts.not_after),
            Err(MaterialError::Development) => return Err(MaterialError::Development),
            Err(error) => refused = error,
        }
        roots.add(certificate).map_err(|_| MaterialError::Certificate)?;
    }
    let not_after = not_after.ok_or(refused)?;
    Ok(Authorities { roots: Arc::new(roots), not_after })
}

fn earlier(first: Option<SystemTime>, second: SystemTime) -> Option<SystemTime> {
    Some(first.map_or(second, |first| first.min(second)))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, MaterialError> {
    // The reader skips text between sections, so that a torn one would be
    // overlooked: every begin needs its end.
    let text = std::str::from_utf8(pem).map_err(|_| MaterialError::Pem)?;
    if text.matches("-----BEGIN ").count() != text.matches("-----END ").count() {
        return Err(MaterialError::Pem);
    }
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let read = read.map_err(|_| MaterialError::Pem)?;
    if read.is_empty() { Err(MaterialError::NoCertificate) } else { Ok(read) }
}

/// What is asked of any certificate.
pub(super) struct Facts {
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
    pub(super) development: bool,
    pub(super) authority: bool,
}

impl Facts {
    pub(super) fn of(der: &[u8]) -> Result<Self, MaterialError> {
        let (rest, parsed) =
            X509Certificate::from_der(der).map_err(|_| MaterialError::Certificate)?;
        if !rest.is_empty() {
            return Err(MaterialError::Certificate);
        }
        let marker = DEVELOPMENT_OID.map(|arc| arc.to_string()).join(".");
        Ok(Self {
            not_before: time(parsed.validity().not_before.timestamp()),
            not_after: time(parsed.validity().not_after.timestamp()),
            development: parsed.extensions().iter().any(|e| e.oid.to_id_string() == marker),
            authority: parsed.is_ca(),
        })
    }

    fn check(&self, now: SystemTime, production: bool) -> Result<(), MaterialError> {
        if production && self.development {
            Err(MaterialError::Development)
        } else if now > self.not_after {
            Err(MaterialError::Expired)
        } else if now < self.not_before {
            Err(MaterialError::NotYetValid)
        } else {
            Ok(())
        }
    }
}

fn time(seconds: i64) -> SystemTime {
    let seconds = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    UNIX_EPOCH.checked_add(seconds).unwrap_or(UNIX_EPOCH)
}
