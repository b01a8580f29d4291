//! Authorities and certificates of the tests' own, made by the command line, and
//! a knock at a mesh listener.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::{LONG, cli_in};

/// An authority in a folder.
#[derive(Debug)]
pub struct Authority(PathBuf);

impl Authority {
    /// Makes one.
    pub fn new(dir: &Path, name: &str) -> Self {
        let authority = Self(dir.join(name));
        authority.cert(&["init", "--name", name]);
        authority
    }

    fn cert(&self, args: &[&str]) {
        let dir = self.0.to_str().expect("UTF-8");
        let (command, rest) = args.split_first().expect("a command");
        let args = [&["cert", *command][..], rest, &["--dir", dir]].concat();
        let output = cli_in(self.0.parent().expect("a folder"), &args, "");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {said}");
    }

    /// Makes a certificate for a principal: the files of chain and key.
    pub fn issue(&self, name: &str, principal: &str) -> [PathBuf; 2] {
        self.cert(&["issue", name, "--principal", principal]);
        self.files(name)
    }

    /// The same, for so long.
    pub fn issue_for(&self, name: &str, principal: &str, time: &str) -> [PathBuf; 2] {
        self.cert(&["issue", name, "--principal", principal, "--ttl", time]);
        self.files(name)
    }

    /// Makes a certificate for a server's address.
    pub fn server(&self, name: &str, ip: &str) -> [PathBuf; 2] {
        self.cert(&["issue", name, "--ip", ip]);
        self.files(name)
    }

    fn files(&self, name: &str) -> [PathBuf; 2] {
        [self.0.join(format!("{name}.pem")), self.0.join(format!("{name}-key.pem"))]
    }

    /// The file of its own certificate.
    pub fn ca(&self) -> PathBuf {
        self.0.join("ca.pem")
    }
}

/// The mesh files of one node: what its configuration names, and what may be
/// replaced while it runs.
#[derive(Debug)]
pub struct MeshFiles(PathBuf);

impl MeshFiles {
    /// In a folder of their own.
    pub fn new(dir: &Path) -> Self {
        std::fs::create_dir_all(dir).expect("a folder");
        Self(dir.to_owned())
    }

    /// Puts a certificate with its key there.
    pub fn certificate(&self, [chain, key]: &[PathBuf; 2]) {
        // The key first: torn in between, the two do not fit and are not taken.
        self.put("key.pem", &std::fs::read(key).expect("a key"));
        self.put("cert.pem", &std::fs::read(chain).expect("a chain"));
    }

    /// Puts these authorities there, and no other.
    pub fn bundle(&self, authorities: &[&Authority]) {
        let all: Vec<u8> =
            authorities.iter().flat_map(|one| std::fs::read(one.ca()).expect("a CA")).collect();
        self.put("ca.pem", &all);
    }

    /// Puts something there, whole or not at all.
    pub fn put(&self, name: &str, content: &[u8]) {
        let new = self.0.join("new");
        std::fs::write(&new, content).expect("written");
        std::fs::rename(new, self.0.join(name)).expect("in its place");
    }

    /// What a node's environment says of them.
    pub fn env(&self) -> Vec<(&'static str, &'static str)> {
        let path = |name: &str| -> &'static str {
            Box::leak(self.0.join(name).display().to_string().into_boxed_str())
        };
        vec![
            ("SIMPUL_MESH__CERT_FILE", path("cert.pem")),
            ("SIMPUL_MESH__KEY_FILE", path("key.pem")),
            ("SIMPUL_MESH__CA_FILE", path("ca.pem")),
            ("SIMPUL_TLS__RELOAD_INTERVAL", "100ms"),
        ]
    }
}

/// Takes whoever answers: the knock is about the one who knocks.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Knocks at a mesh listener with a certificate or without one: whether it is
/// let in, up to the first bytes of HTTP/2, or what the refusal says.
pub async fn knock(address: &str, identity: Option<&[PathBuf; 2]>) -> Result<(), String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)));
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some([chain, key]) => {
            let chain = CertificateDer::pem_file_iter(chain).expect("a chain");
            let chain = chain.collect::<Result<Vec<_>, _>>().expect("PEM");
            let key = PrivateKeyDer::from_pem_file(key).expect("a key");
            builder.with_client_auth_cert(chain, key).expect("they fit")
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(address).await.expect("it listens");
    let name = ServerName::try_from("node").expect("a name");
    let asking = async {
        let mut tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        // The preface and empty settings; in TLS 1.3 the client may believe for a
        // moment that it is through.
        tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
        tls.flush().await?;
        tls.read_u8().await
    };
    let answer = tokio::time::timeout(LONG, asking).await.expect("an answer or an end");
    answer.map(drop).map_err(|error| error.to_string())
}
