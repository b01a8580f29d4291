//! Makes certificate authorities and certificates: for `simpul cert`, for the
//! development material, and for tests. All keys are ECDSA on P-256.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::material::DEVELOPMENT_OID;
use crate::principal::{Kind, Principal, TrustDomain};

/// How far a certificate reaches back, for clocks that are behind.
const BACKDATED: Duration = Duration::from_secs(300);

/// Why nothing was made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// A file cannot be read or written.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The authority's files, or a name, are not what they should be.
    #[error("cannot make the certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The time is out of the range of certificates.
    #[error("the certificate's end is out of range")]
    Time,
}

/// A certificate with its key, PEM.
#[derive(Debug)]
pub struct Issued {
    /// The certificate, then its issuer where there is one.
    pub certificate: String,
    /// Its private key.
    pub key: SecretString,
}

/// What a certificate is for.
#[derive(Debug, Clone, Default)]
pub struct CertificateRequest {
    /// Whom it names, as a SPIFFE id; it may then prove a client.
    pub principal: Option<Principal>,
    /// It may prove any node of this trust domain (the SPIFFE path `/node`);
    /// with it there is no principal.
    pub any_node: Option<TrustDomain>,
    /// The DNS names at which its holder serves.
    pub dns: Vec<String>,
    /// The addresses at which its holder serves.
    pub ips: Vec<IpAddr>,
    /// How long it holds.
    pub ttl: Duration,
    /// Marks it as made for development.
    pub development: bool,
}

/// The SPIFFE id of a principal, by the default patterns.
pub fn spiffe_id(principal: &Principal) -> String {
    let kind = match principal.kind() {
        Kind::User => "user",
        Kind::Service => "service",
        Kind::Node => "node",
    };
    format!("spiffe://{}/{kind}/{}", principal.trust_domain(), principal.id())
}

/// Makes an authority. It signs certificates of holders only.
pub fn authority(
    name: &str,
    ttl: Duration,
    development: bool,
    now: SystemTime,
) -> Result<Issued, IssueError> {
    let mut params = params(name, ttl, development, now)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem().into() })
}

/// Makes a certificate with a fresh key, signed by an authority given as PEM.
pub fn sign(
    authority: &str,
    authority_key: &SecretString,
    request: &CertificateRequest,
    now: SystemTime,
) -> Result<Issued, IssueError> {
    let key = KeyPair::generate()?;
    let certificate = sign_key(authority, authority_key, request, &key, now)?;
    Ok(Issued { certificate, key: key.serialize_pem().into() })
}

/// Makes a certificate for a key that exists.
pub(super) fn sign_key(
    authority: &str,
    authority_key: &SecretString,
    request: &CertificateRequest,
    key: &KeyPair,
    now: SystemTime,
) -> Result<String, IssueError> {
    let any_node = request.any_node.as_ref().map(|domain| format!("spiffe://{domain}/node"));
    let name = match (&request.principal, request.dns.first()) {
        (Some(principal), _) => principal.to_string(),
        (None, Some(dns)) => dns.clone(),
        (None, None) if any_node.is_some() => "node".to_owned(),
        (None, None) => "Simpul".to_owned(),
    };
    let mut params = params(&name, request.ttl, request.development, now)?;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let is_node = any_node.is_some()
        || request.principal.as_ref().is_some_and(|principal| principal.kind() == Kind::Node);
    if let Some(id) = request.principal.as_ref().map(spiffe_id).or(any_node) {
        params.subject_alt_names.push(SanType::URI(id.try_into()?));
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
    }
    for dns in &request.dns {
        params.subject_alt_names.push(SanType::DnsName(dns.as_str().try_into()?));
    }
    params.subject_alt_names.extend(request.ips.iter().copied().map(SanType::IpAddress));
    // A node proves itself in both directions.
    if is_node || !request.dns.is_empty() || !request.ips.is_empty() {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    let signing_key = KeyPair::from_pem(authority_key.expose_secret())?;
    let issuer = Issuer::from_ca_cert_pem(authority, signing_key)?;
    Ok(params.signed_by(key, &issuer)?.pem())
}

/// `simpul cert init`: makes `ca.pem` and `ca-key.pem` in a folder. Overwrites
/// nothing.
pub fn init(dir: &Path, name: &str, ttl: Duration) -> Result<Issued, IssueError> {
    make_private_dir(dir)?;
    let issued = authority(name, ttl, false, SystemTime::now())?;
    write_new(&dir.join("ca-key.pem"), issued.key.expose_secret().as_bytes(), 0o600)?;
    write_new(&dir.join("ca.pem"), issued.certificate.as_bytes(), 0o644)?;
    Ok(issued)
}

/// `simpul cert issue`: makes `<name>.pem` and `<name>-key.pem` in the folder of
/// an authority that [`init`] made. Overwrites nothing.
pub fn issue(
    dir: &Path,
    name: &str,
    request: &CertificateRequest,
) -> Result<(PathBuf, PathBuf), IssueError> {
    let authority = read(&dir.join("ca.pem"))?;
    let key = SecretString::from(read(&dir.join("ca-key.pem"))?.to_string());
    let issued = sign(&authority, &key, request, SystemTime::now())?;
    let (certificate, key) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}-key.pem")));
    write_new(&key, issued.key.expose_secret().as_bytes(), 0o600)?;
    write_new(&certificate, issued.certificate.as_bytes(), 0o644)?;
    Ok((certificate, key))
}

fn params(
    name: &str,
    ttl: Duration,
    development: bool,
    now: SystemTime,
) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since = now.duration_since(UNIX_EPOCH).map_err(|_| IssueError::Time)?;
    let end = since.checked_add(ttl).ok_or(IssueError::Time)?;
    // The year 9999 is the last that a certificate can name.
    if end.as_secs() > 253_402_300_799 {
        return Err(IssueError::Time);
    }
    params.not_before = epoch + since.saturating_sub(BACKDATED);
    params.not_after = epoch + end;
    params.distinguished_name = DistinguishedName::new();
    if development {
        params.distinguished_name.push(DnType::OrganizationName, "Simpul development");
        // An ASN.1 NULL: that the extension is there says everything.
        let marker = CustomExtension::from_oid_content(&DEVELOPMENT_OID, vec![5, 0]);
        params.custom_extensions.push(marker);
    }
    let shown: String = name.chars().take(64).collect();
    params.distinguished_name.push(DnType::CommonName, shown);
    Ok(params)
}

pub(super) fn file_error(path: &Path) -> impl FnOnce(io::Error) -> IssueError + use<> {
    let path = path.to_path_buf();
    move |error| IssueError::File { path, error }
}

pub(super) fn read(path: &Path) -> Result<Zeroizing<String>, IssueError> {
    std::fs::read_to_string(path).map(Zeroizing::new).map_err(file_error(path))
}

pub(super) fn make_private_dir(dir: &Path) -> Result<(), IssueError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(file_error(dir))
}

/// Writes a file that is not there yet, with these permissions from the start,
/// onto the disk.
pub(super) fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), IssueError> {
    let write = || -> io::Result<()> {
        let mut file: File =
            OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(file_error(path))
}
