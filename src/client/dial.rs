//! TLS to a node: TLS 1.3, HTTP/2 by ALPN, a client certificate when there is
//! one. Errors say which step failed, since each has another remedy.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// How long a connection may take to come about, TCP and TLS together.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Between nothing and the first answer of the node.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DialError {
    /// `HOST:PORT` is not one, or the name has no address.
    #[error("{0}")]
    Address(String),
    /// The files are not what they should be.
    #[error("{0}")]
    Material(String),
    /// Nobody listens, or the network is in the way.
    #[error("cannot connect to {server}: {why}")]
    Connect {
        /// `HOST:PORT`.
        server: String,
        /// The system's words.
        why: String,
    },
    /// No answer in time.
    #[error("{0} did not answer in time")]
    Timeout(String),
    /// The node's certificate is not believed, or it does not believe ours.
    #[error("no secure connection to {server}: {error}")]
    Tls {
        /// `HOST:PORT`.
        server: String,
        /// What rustls says.
        error: rustls::Error,
    },
    /// The other side does not speak HTTP/2.
    #[error("{0} does not speak HTTP/2")]
    NotHttp2(String),
}

/// The host and port of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl std::str::FromStr for Address {
    type Err = DialError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            DialError::Address(
                "a server is HOST:PORT. Example: simpul.example:7443 or [::1]:7443".to_owned(),
            )
        };
        let text = text.strip_prefix("https://").unwrap_or(text);
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match inner {
            Some(host) => host,
            None if host.contains(':') => return Err(wrong()),
            None => host,
        };
        let port = port.parse().map_err(|_| wrong())?;
        if host.is_empty() || host.contains('/') {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The client's side of TLS, from PEM texts: who may vouch for the node, and
/// the client's own certificate chain and key.
pub fn client_config(
    ca_pem: &[u8],
    identity: Option<(&[u8], &[u8])>,
) -> Result<ClientConfig, DialError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem) {
        let certificate = certificate.map_err(|_| material("the CA file is not PEM"))?;
        roots.add(certificate).map_err(|error| material(format!("the CA file: {error}")))?;
    }
    if roots.is_empty() {
        return Err(material("the CA file holds no certificate"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| material(error.to_string()))?
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
                .collect::<Result<_, _>>()
                .map_err(|_| material("the client certificate is not PEM"))?;
            let key = PrivateKeyDer::from_pem_slice(key)
                .map_err(|_| material("the client's private key is not PEM"))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| material(format!("the client certificate: {error}")))?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Connects and shakes hands once. The name is what the node's certificate must
/// have; the host when absent.
pub async fn dial(
    address: &Address,
    server_name: Option<&str>,
    tls: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, DialError> {
    let dialing = async {
        let tcp =
            TcpStream::connect((address.host.as_str(), address.port)).await.map_err(|error| {
                DialError::Connect { server: address.to_string(), why: error.to_string() }
            })?;
        // Small frames go out at once; a system without the option still works.
        let _ = tcp.set_nodelay(true);
        let name = server_name.unwrap_or(&address.host).to_owned();
        let name = ServerName::try_from(name)
            .map_err(|_| DialError::Address("the server's name is not a DNS name".to_owned()))?;
        let stream = TlsConnector::from(tls).connect(name, tcp).await.map_err(|error| {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            match inner {
                Some(inner) => DialError::Tls { server: address.to_string(), error: inner.clone() },
                None => DialError::Connect { server: address.to_string(), why: error.to_string() },
            }
        })?;
        match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Ok(stream),
            _ => Err(DialError::NotHttp2(address.to_string())),
        }
    };
    match tokio::time::timeout(DIAL_TIMEOUT, dialing).await {
        Ok(dialed) => dialed,
        Err(_) => Err(DialError::Timeout(address.to_string())),
    }
}

/// A channel whose first connection stands already. It dials again by itself
/// when that ends. The stream window bounds what a chat reader has under way,
/// so that what is urgent is not stuck behind it.
pub async fn channel(
    address: &Address,
    server_name: Option<&str>,
    tls: Arc<ClientConfig>,
) -> Result<Channel, DialError> {
    let endpoint = endpoint(address)?;
    let (to, name) = (address.clone(), server_name.map(str::to_owned));
    let connector = tower::service_fn(move |_: Uri| {
        let (to, name, tls) = (to.clone(), name.clone(), tls.clone());
        async move { dial(&to, name.as_deref(), tls).await.map(TokioIo::new) }
    });
    endpoint.connect_with_connector(connector).await.map_err(|error| dial_error(address, &error))
}

/// How long a node with a call open may say nothing until it is asked whether it
/// is there, and how long it may take to answer: one that is frozen closes nothing.
/// A connection without an open call is not looked after and costs nothing.
const SILENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(2));

/// The same where the caller asks by itself.
const LONG_SILENCE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// How HTTP/2 is spoken with a node. The address gives the requests' authority.
pub(super) fn endpoint(address: &Address) -> Result<Endpoint, DialError> {
    spoken(address, SILENCE)
}

/// The same for streams that are looked after by what is said on them.
pub(super) fn quiet_endpoint(address: &Address) -> Result<Endpoint, DialError> {
    spoken(address, LONG_SILENCE)
}

fn spoken(
    address: &Address,
    (silence, answer): (Duration, Duration),
) -> Result<Endpoint, DialError> {
    let uri = |scheme: &str| {
        format!("{scheme}://{address}")
            .parse::<Uri>()
            .map_err(|_| DialError::Address("the server's name cannot stand in a URI".to_owned()))
    };
    // TLS is the connector's own: tonic refuses `https` here when it was built
    // with a TLS of its own, so that only requests carry the true scheme.
    Ok(Endpoint::from(uri("http")?)
        .origin(uri("https")?)
        .initial_stream_window_size(128 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .http2_keep_alive_interval(silence)
        .keep_alive_timeout(answer)
        .keep_alive_while_idle(false))
}

/// The [`DialError`] inside a transport error.
pub(super) fn dial_error(address: &Address, error: &tonic::transport::Error) -> DialError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut last = String::new();
    while let Some(inner) = cause {
        if let Some(dial) = inner.downcast_ref::<DialError>() {
            return dial.clone();
        }
        last = inner.to_string();
        cause = inner.source();
    }
    DialError::Connect { server: address.to_string(), why: last }
}

fn material(what: impl Into<String>) -> DialError {
    DialError::Material(what.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for (text, host, port, back) in [
            ("localhost:7443", "localhost", 7443, "localhost:7443"),
            ("[::1]:1", "::1", 1, "[::1]:1"),
            ("https://a.example:443", "a.example", 443, "a.example:443"),
        ] {
            let address: Address = text.parse().expect("an address");
            assert_eq!((address.host.as_str(), address.port), (host, port));
            assert_eq!(address.to_string(), back);
        }
        for bad in ["", "localhost", ":7443", "a:b", "::1:7443", "a:70000", "a/b:1"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }

    #[test]
    fn material_that_is_no_pem_is_named() {
        let error = client_config(b"nothing", None).expect_err("no certificate");
        assert_eq!(error.to_string(), "the CA file holds no certificate");
    }

    #[tokio::test]
    async fn a_port_without_a_listener_is_a_connect_error() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        let key = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("made");
        let tls = client_config(key.cert.pem().as_bytes(), None).expect("a CA");
        let address = Address { host: "127.0.0.1".to_owned(), port };
        let error = channel(&address, None, Arc::new(tls)).await.expect_err("nobody listens");
        assert!(matches!(error, DialError::Connect { .. }), "{error:?}");
    }
}
