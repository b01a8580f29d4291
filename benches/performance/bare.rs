//! Bare tonic over the same TLS: what the layers are measured against.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use simpul::proto::identity::v1::identity_service_server::{
    IdentityService, IdentityServiceServer,
};
use simpul::proto::identity::v1::{WhoAmIRequest, WhoAmIResponse};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status};

struct Bare;

#[tonic::async_trait]
impl IdentityService for Bare {
    async fn who_am_i(
        &self,
        _: Request<WhoAmIRequest>,
    ) -> Result<Response<WhoAmIResponse>, Status> {
        Ok(Response::new(WhoAmIResponse {
            principal: "user/alice@dev.simpul".to_owned(),
            roles: vec![1, 2],
            proof: 2,
            expires_at: Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 0 }),
            acting_service: String::new(),
            node_id: "node-00000000".to_owned(),
        }))
    }
}

struct Stream(TlsStream<TcpStream>);

impl Connected for Stream {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Serves with the certificate in `dir` (`server.pem`, `server-key.pem`) and
/// writes its address to `address` there. Where `clients.pem` stands there,
/// clients must prove themselves with a certificate of that authority.
pub async fn serve(dir: &str) {
    // As every program has one. Without any, the libraries' spans are handed to
    // `log`, a tenth of all instructions of a call.
    let nobody = tracing::subscriber::NoSubscriber::default();
    tracing::subscriber::set_global_default(nobody).expect("the first");
    let dir = Path::new(dir);
    let chain = CertificateDer::pem_file_iter(dir.join("server.pem"))
        .expect("a file")
        .collect::<Result<Vec<_>, _>>()
        .expect("certificates");
    let key = PrivateKeyDer::from_pem_file(dir.join("server-key.pem")).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3");
    let clients = dir.join("clients.pem");
    let builder = if clients.exists() {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(clients).expect("PEM")).expect("an authority");
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_single_cert(chain, key).expect("a certificate");
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    std::fs::write(dir.join("address"), format!("{address}\n")).expect("written");
    let incoming =
        futures_util::stream::unfold((listener, acceptor), |(listener, acceptor)| async {
            let (stream, _) = listener.accept().await.ok()?;
            let _ = stream.set_nodelay(true);
            let accepted = acceptor.accept(stream).await.map(Stream);
            Some((accepted, (listener, acceptor)))
        });
    let mut signal =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).expect("signals");
    let end = async move {
        signal.recv().await;
    };
    tonic::transport::Server::builder()
        .add_service(IdentityServiceServer::new(Bare))
        .serve_with_incoming_shutdown(incoming, end)
        .await
        .expect("it serves");
}
