//! What a node makes for itself when nothing is configured: a certificate
//! authority, a server certificate and a token key, in `dev/` of the data
//! directory.
//!
//! Whoever can read the folder can be anyone, so it is the owner's alone
//! (0700, private files 0600), and everything in it carries a mark inside that
//! production refuses. All local nodes and commands share it: it is made under
//! a lock, in another folder that is renamed when it is complete.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ED25519};
use rustix::fs::{FlockOperation, flock};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};

use super::issue::{self, CertificateRequest, IssueError};
use super::material::Facts;
use super::token::DEVELOPMENT_MEMBER;
use crate::principal::{Principal, Role, TrustDomain};

/// The `iss` of tokens signed with the development key.
pub const ISSUER: &str = "simpul-development";

/// The roles of `--as` when no other is asked for.
pub const DEFAULT_ROLES: [Role; 2] = [Role::Customer, Role::Merchant];

const AUTHORITY_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const SERVER_TTL: Duration = Duration::from_secs(90 * 24 * 3600);

/// The server certificate is renewed when less is left.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Each file and its permissions.
const FILES: [(&str, u32); 6] = [
    ("ca.pem", 0o644),
    ("ca-key.pem", 0o600),
    ("server.pem", 0o644),
    ("server-key.pem", 0o600),
    ("token-key.pem", 0o600),
    ("jwks.json", 0o644),
];

/// Why there is no development material.
#[derive(Debug, thiserror::Error)]
pub enum DevelopmentError {
    /// It could not be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// Somebody removed files.
    #[error("{0} is incomplete; remove it and start the node to have a new one made")]
    Incomplete(PathBuf),
    /// A token that could not be signed.
    #[error("the token cannot be signed: {0}")]
    Token(#[from] jsonwebtoken::errors::Error),
}

/// What a development token says.
#[derive(Debug, Clone)]
pub struct TokenRequest<'a> {
    /// Whom it names.
    pub principal: &'a Principal,
    /// What its bearer may do.
    pub roles: &'a [Role],
    /// For whom it is: `auth.audience`.
    pub audience: &'a str,
    /// How long it holds.
    pub ttl: Duration,
}

/// The folder.
pub fn dir(data_dir: &Path) -> PathBuf {
    data_dir.join("dev")
}

/// Makes the material unless it is there, and renews the server's certificate
/// when little is left of it. Returns whether it was made now.
pub fn ensure(
    data_dir: &Path,
    node_id: Option<&str>,
    now: SystemTime,
) -> Result<bool, DevelopmentError> {
    issue::make_private_dir(data_dir)?;
    let lock_path = data_dir.join("dev.lock");
    let lock = File::create(&lock_path).map_err(issue::file_error(&lock_path))?;
    flock(&lock, FlockOperation::LockExclusive)
        .map_err(|error| issue::file_error(&lock_path)(error.into()))?;
    let dir = dir(data_dir);
    if !dir.exists() {
        make(data_dir, &dir, node_id, now)?;
        return Ok(true);
    }
    look(data_dir)?;
    if little_is_left(&dir, now)? {
        renew_server(&dir, node_id, now)?;
    }
    Ok(false)
}

/// Has the data directory of another node of this machine use the same folder:
/// the nodes then believe each other, and each other's clients.
pub fn share(data_dir: &Path, other: &Path) -> Result<(), DevelopmentError> {
    issue::make_private_dir(other)?;
    let link = dir(other);
    match std::os::unix::fs::symlink(dir(data_dir), &link) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(issue::file_error(&link)(error).into())
        }
        _ => Ok(()),
    }
}

/// Whether the folder is complete; changes nothing.
pub(super) fn look(data_dir: &Path) -> Result<(), DevelopmentError> {
    let dir = dir(data_dir);
    if FILES.iter().any(|(name, _)| !dir.join(name).is_file()) {
        return Err(DevelopmentError::Incomplete(dir));
    }
    Ok(())
}

/// Renews the server's certificate when little is left of it; costs a look at
/// one file otherwise.
pub(super) fn renew(
    data_dir: &Path,
    node_id: Option<&str>,
    now: SystemTime,
) -> Result<(), DevelopmentError> {
    if little_is_left(&dir(data_dir), now)? {
        ensure(data_dir, node_id, now)?;
    }
    Ok(())
}

fn little_is_left(dir: &Path, now: SystemTime) -> Result<bool, DevelopmentError> {
    ends_soon(&dir.join("server.pem"), now)
}

fn ends_soon(certificate: &Path, now: SystemTime) -> Result<bool, DevelopmentError> {
    let present = issue::read(certificate)?;
    let facts = CertificateDer::from_pem_slice(present.as_bytes())
        .ok()
        .and_then(|der| Facts::of(&der).ok());
    Ok(facts.is_none_or(|facts| facts.not_after <= now + RENEW_BEFORE))
}

/// Complete or not at all.
fn make(
    data_dir: &Path,
    dir: &Path,
    node_id: Option<&str>,
    now: SystemTime,
) -> Result<(), DevelopmentError> {
    let half = data_dir.join("dev.making");
    if half.exists() {
        // Left by a process that died; the lock is ours.
        std::fs::remove_dir_all(&half).map_err(issue::file_error(&half))?;
    }
    issue::make_private_dir(&half)?;
    let authority = issue::authority("Simpul development CA", AUTHORITY_TTL, true, now)?;
    let request = server_request(node_id);
    let server = issue::sign(&authority.certificate, &authority.key, &request, now)?;
    let token_key = KeyPair::generate_for(&PKCS_ED25519).map_err(IssueError::from)?;
    let contents = [
        authority.certificate.clone().into_bytes(),
        authority.key.expose_secret().as_bytes().to_vec(),
        server.certificate.into_bytes(),
        server.key.expose_secret().as_bytes().to_vec(),
        token_key.serialize_pem().into_bytes(),
        jwks(&token_key).into_bytes(),
    ];
    for ((name, mode), content) in FILES.iter().zip(contents) {
        issue::write_new(&half.join(name), &content, *mode)?;
    }
    let synced = File::open(&half).and_then(|dir| dir.sync_all());
    synced.map_err(issue::file_error(&half))?;
    std::fs::rename(&half, dir).map_err(issue::file_error(dir))?;
    tracing::warn!(
        folder = %dir.display(),
        "MADE A DEVELOPMENT CERTIFICATE AUTHORITY AND TOKEN KEY: whoever can read this folder \
         can be anyone here; production refuses them"
    );
    Ok(())
}

/// Gives the server's key a new certificate, by one rename.
fn renew_server(
    dir: &Path,
    node_id: Option<&str>,
    now: SystemTime,
) -> Result<(), DevelopmentError> {
    let path = dir.join("server.pem");
    let authority = issue::read(&dir.join("ca.pem"))?;
    let authority_key = SecretString::from(issue::read(&dir.join("ca-key.pem"))?.to_string());
    let key =
        KeyPair::from_pem(&issue::read(&dir.join("server-key.pem"))?).map_err(IssueError::from)?;
    let request = server_request(node_id);
    let fresh = issue::sign_key(&authority, &authority_key, &request, &key, now)?;
    let beside = dir.join("server.pem.new");
    let _ = std::fs::remove_file(&beside);
    issue::write_new(&beside, fresh.as_bytes(), 0o644)?;
    std::fs::rename(&beside, &path).map_err(issue::file_error(&path))?;
    tracing::info!("renewed the development server certificate");
    Ok(())
}

/// Makes the certificate with which nodes of this machine prove themselves to
/// each other, unless it is there and holds long enough. It is made apart from
/// the rest, for nodes that form a cluster, in a folder that [`ensure`] made.
/// Its two files are renamed into place one after the other: a reader in
/// between sees a key that is not the certificate's and looks again.
pub(super) fn ensure_node(
    data_dir: &Path,
    domain: &TrustDomain,
    now: SystemTime,
) -> Result<(), DevelopmentError> {
    let dir = dir(data_dir);
    let [path, key_path] = node_files(data_dir);
    if key_path.is_file() && path.is_file() && !ends_soon(&path, now)? {
        return Ok(());
    }
    let lock_path = data_dir.join("dev.lock");
    let lock = File::create(&lock_path).map_err(issue::file_error(&lock_path))?;
    flock(&lock, FlockOperation::LockExclusive)
        .map_err(|error| issue::file_error(&lock_path)(error.into()))?;
    if key_path.is_file() && path.is_file() && !ends_soon(&path, now)? {
        // Another node made it while this one waited for the lock.
        return Ok(());
    }
    let authority = issue::read(&dir.join("ca.pem"))?;
    let authority_key = SecretString::from(issue::read(&dir.join("ca-key.pem"))?.to_string());
    let request = CertificateRequest {
        any_node: Some(domain.clone()),
        ttl: SERVER_TTL,
        development: true,
        ..CertificateRequest::default()
    };
    let node = issue::sign(&authority, &authority_key, &request, now)?;
    let key = node.key.expose_secret().as_bytes();
    for (path, content, mode) in
        [(&key_path, key, 0o600), (&path, node.certificate.as_bytes(), 0o644)]
    {
        let beside = path.with_extension("pem.new");
        let _ = std::fs::remove_file(&beside);
        issue::write_new(&beside, content, mode)?;
        std::fs::rename(&beside, path).map_err(issue::file_error(path))?;
    }
    Ok(())
}

/// The node certificate and its key.
pub(super) fn node_files(data_dir: &Path) -> [PathBuf; 2] {
    let dir = dir(data_dir);
    [dir.join("node.pem"), dir.join("node-key.pem")]
}

fn server_request(node_id: Option<&str>) -> CertificateRequest {
    // A name with an underscore or a trailing dot is no DNS name.
    let is_dns = |id: &&str| {
        id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') && !id.ends_with('-')
    };
    let names = node_id.filter(is_dns).into_iter().chain(["localhost"]);
    CertificateRequest {
        principal: None,
        any_node: None,
        dns: names.map(str::to_owned).collect::<BTreeSet<_>>().into_iter().collect(),
        ips: vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        ttl: SERVER_TTL,
        development: true,
    }
}

fn key_id(key: &[u8]) -> String {
    let thumbprint = super::trust::thumbprint(key);
    let short = thumbprint.get(..12).unwrap_or_default();
    format!("{ISSUER}-{}", URL_SAFE_NO_PAD.encode(short))
}

fn jwks(key: &KeyPair) -> String {
    let public = key.public_key_raw();
    let set = serde_json::json!({
        DEVELOPMENT_MEMBER: true,
        "keys": [{
            "kty": "OKP",
            "crv": "Ed25519",
            "alg": "EdDSA",
            "use": "sig",
            "kid": key_id(public),
            "x": URL_SAFE_NO_PAD.encode(public),
            DEVELOPMENT_MEMBER: true,
        }],
    });
    format!("{set:#}\n")
}

/// Signs a token with the key in the data directory.
pub fn sign_token(
    data_dir: &Path,
    request: &TokenRequest<'_>,
) -> Result<SecretString, DevelopmentError> {
    let path = dir(data_dir).join("token-key.pem");
    let key = KeyPair::from_pem(&issue::read(&path)?).map_err(IssueError::from)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let end = now.checked_add(request.ttl).ok_or(IssueError::Time)?;
    let claims = serde_json::json!({
        "iss": ISSUER,
        "sub": request.principal.id(),
        "kind": request.principal.kind(),
        "aud": request.audience,
        "iat": now.as_secs(),
        "nbf": now.as_secs(),
        "exp": end.as_secs(),
        "jti": crate::id::fresh().to_string(),
        "roles": request.roles,
    });
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some(key_id(key.public_key_raw()));
    let signed =
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ed_der(key.serialized_der()))?;
    Ok(signed.into())
}
