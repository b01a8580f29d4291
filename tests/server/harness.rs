//! A node's public listener around two small services, and a raw client.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Extensions, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use simpul::config::Config;
use simpul::config::schema::Traffic;
use simpul::drain;
use simpul::principal::{Kind, Principal, Roles};
use simpul::proto::identity::v1 as identity;
use simpul::readiness::Readiness;
use simpul::refusal::Refusal;
use simpul::security::connection::PeerCertificate;
use simpul::server::bind::Listener;
use simpul::server::routes::Routes;
use simpul::server::stack::Layers;
use simpul::server::tls::TlsSource;
use simpul::server::{accept, health, metrics, reflection};
use simpul::traffic::methods::{HEALTH, Methods, REFLECTION};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Status;
use tonic::body::Body;
use tower::layer::util::Identity;

pub(crate) const WHO_AM_I: &str = "/simpul.identity.v1.IdentityService/WhoAmI";
pub(crate) const HISTORY: &str = "/simpul.transaction.v1.TransactionService/GetTransactionHistory";
pub(crate) const CHECK: &str = "/grpc.health.v1.Health/Check";

/// Longer than anything here takes; a test that gets there has failed.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// Waits, but not for ever.
pub(crate) async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(LONG, what).await.expect("it takes too long")
}

pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    /// Calls that came to a handler.
    pub(crate) handled: Arc<AtomicUsize>,
    /// Makes every open history stream send one more message.
    pub(crate) poke: watch::Sender<u32>,
    pub(crate) drain: drain::Drain,
    pub(crate) trust: Arc<Trust>,
    client: Arc<rustls::ClientConfig>,
    pub(crate) serving: JoinHandle<()>,
}

pub(crate) fn traffic() -> Traffic {
    let config: Config =
        toml::from_str(include_str!("../../config/default.toml")).expect("the defaults");
    config.traffic
}

fn alice(_: &Extensions) -> Option<&Principal> {
    static ALICE: std::sync::LazyLock<Option<Principal>> = std::sync::LazyLock::new(|| {
        Principal::new(Kind::User, "alice", &"example.org".parse().ok()?).ok()
    });
    ALICE.as_ref()
}

fn trace() -> Option<String> {
    Some("07".repeat(16))
}

impl Node {
    pub(crate) async fn start(traffic: Traffic) -> Self {
        let handled = Arc::new(AtomicUsize::new(0));
        let (poke, poked) = watch::channel(0);
        let (trust, client) = certificates();
        let trust = Arc::new(trust);
        let (drain, watching) = drain::channel();
        let names =
            ["simpul.identity.v1.IdentityService", "simpul.transaction.v1.TransactionService"];
        let count = handled.clone();
        let history = move |request: Request<Body>| {
            count.fetch_add(1, Ordering::SeqCst);
            let panics = request.headers().contains_key("x-panic");
            let poked = poked.clone();
            async move { Ok::<_, Infallible>(stream(poked, panics)) }
        };
        let who_am_i = identity::identity_service_server::IdentityServiceServer::new(WhoAmI {
            handled: handled.clone(),
        })
        .max_decoding_message_size(traffic.max_message_bytes);
        let routes = Routes::builder()
            .service(who_am_i)
            .service(health::server(Readiness::new(), watching.clone(), &names))
            .service(reflection::v1(&names).expect("descriptors"))
            .service(reflection::v1alpha(&names).expect("descriptors"))
            .method(HISTORY, tower::service_fn(history))
            .build();
        let methods = Methods::mounted(&[names[0], names[1], HEALTH, REFLECTION[0], REFLECTION[1]])
            .expect("descriptors");
        let layers = Layers::new(&traffic, Arc::new(methods), alice, trace);
        let service = layers.around(&Identity::new(), &Identity::new(), routes);
        let any = "127.0.0.1:0".parse().expect("address");
        let listener = Listener::bind("listen.public", any).await.expect("a free port");
        let address = listener.address();
        let limits = accept::Limits::from(&traffic);
        let metrics = metrics::Metrics::default();
        let serving = simpul::task::spawn(
            "public listener",
            accept::serve(listener, trust.clone(), limits, service, metrics, watching),
        );
        Self { address, handled, poke, drain, trust, client, serving }
    }

    pub(crate) async fn defaults() -> Self {
        Self::start(traffic()).await
    }

    pub(crate) fn handled(&self) -> usize {
        self.handled.load(Ordering::SeqCst)
    }

    pub(crate) async fn tls(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").expect("name");
        TlsConnector::from(self.client.clone()).connect(name, tcp).await
    }

    pub(crate) async fn connect(&self) -> Client {
        let tls = soon(self.tls()).await.expect("handshake");
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        Client::over(tls).await
    }
}

/// One message at once and one for each poke.
fn stream(poked: watch::Receiver<u32>, panics: bool) -> Response<Body> {
    let messages =
        futures_util::stream::unfold((poked, true), move |(mut poked, first)| async move {
            if !first {
                assert!(!panics, "the body was asked to panic");
                poked.changed().await.ok()?;
            }
            Some((Ok::<_, Status>(Frame::data(Bytes::from(framed(&[])))), (poked, false)))
        });
    let mut response = Response::new(Body::new(StreamBody::new(messages)));
    response
        .headers_mut()
        .insert("content-type", http::HeaderValue::from_static("application/grpc"));
    response
}

struct WhoAmI {
    handled: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl identity::identity_service_server::IdentityService for WhoAmI {
    async fn who_am_i(
        &self,
        request: tonic::Request<identity::WhoAmIRequest>,
    ) -> Result<tonic::Response<identity::WhoAmIResponse>, Status> {
        self.handled.fetch_add(1, Ordering::SeqCst);
        match request.metadata().get("x-do").map(|value| value.as_bytes()) {
            Some(b"panic") => panic!("the handler was asked to panic"),
            Some(b"hang") => std::future::pending().await,
            _ => Ok(tonic::Response::new(identity::WhoAmIResponse::default())),
        }
    }
}

/// Certificates of this test, and whether the client's is believed.
pub(crate) struct Trust {
    config: Arc<rustls::ServerConfig>,
    pub(crate) believed: AtomicBool,
    pub(crate) changes: watch::Sender<u64>,
}

impl TlsSource for Trust {
    type Chain = Vec<CertificateDer<'static>>;

    fn config(&self) -> Arc<rustls::ServerConfig> {
        self.config.clone()
    }

    fn peer(
        &self,
        connection: &rustls::ServerConnection,
    ) -> Result<Option<(Arc<PeerCertificate>, Self::Chain)>, Refusal> {
        let Some(chain) = connection.peer_certificates() else { return Ok(None) };
        let certificate = Arc::new(PeerCertificate {
            principal: alice(&Extensions::new()).expect("principal").clone(),
            roles: Roles::NONE,
            not_after: std::time::SystemTime::now() + LONG,
            thumbprint: [0; 32],
        });
        Ok(Some((certificate, chain.to_vec())))
    }

    fn trust_changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn recheck(&self, chain: &Self::Chain) -> bool {
        !chain.is_empty() && self.believed.load(Ordering::SeqCst)
    }
}

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn certificates() -> (Trust, Arc<rustls::ClientConfig>) {
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().expect("key");
    let authority = params.self_signed(&key).expect("authority");
    let issuer = rcgen::Issuer::new(params, key);
    let issue = |name: &str| -> Pair {
        let key = rcgen::KeyPair::generate().expect("key");
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        let certificate = params.signed_by(&key, &issuer).expect("certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("key");
        (vec![certificate.der().clone()], key)
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der().clone()).expect("root");
    let roots = Arc::new(roots);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .allow_unauthenticated()
        .build()
        .expect("verifier");
    let (chain, key) = issue("localhost");
    let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("version")
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .expect("server certificate");
    server.alpn_protocols = vec![b"h2".to_vec()];
    let (chain, key) = issue("client");
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .expect("client certificate");
    client.alpn_protocols = vec![b"h2".to_vec()];
    let trust = Trust {
        config: Arc::new(server),
        believed: AtomicBool::new(true),
        changes: watch::channel(0).0,
    };
    (trust, Arc::new(client))
}

/// A raw HTTP/2 client.
pub(crate) struct Client {
    send: h2::client::SendRequest<Bytes>,
    /// Ends when the connection does.
    pub(crate) connection: JoinHandle<Result<(), h2::Error>>,
}

pub(crate) struct Answer {
    pub(crate) http: StatusCode,
    pub(crate) data: Vec<u8>,
    /// From the trailers, or from the headers of a trailers-only answer.
    pub(crate) status: Option<Status>,
}

impl Answer {
    pub(crate) fn code(&self) -> Option<tonic::Code> {
        self.status.as_ref().map(Status::code)
    }

    pub(crate) fn reason(&self) -> Option<String> {
        use tonic_types::StatusExt;
        let details = self.status.as_ref()?.get_error_details();
        let info = details.error_info()?.clone();
        // Every failure names its trace, whoever made it.
        let trace = details.request_info().map(|info| info.request_id.as_str());
        assert_eq!(trace, Some("07".repeat(16).as_str()));
        assert_eq!(info.domain, "simpul");
        Some(info.reason)
    }
}

impl Client {
    pub(crate) async fn over<IO>(io: IO) -> Self
    where
        IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (send, connection) = soon(h2::client::handshake(io)).await.expect("preface");
        Self { send, connection: simpul::task::spawn("client", connection) }
    }

    /// Sends headers alone.
    pub(crate) async fn begin(
        &self,
        request: Request<()>,
    ) -> (h2::client::ResponseFuture, h2::SendStream<Bytes>) {
        let mut send = soon(self.send.clone().ready()).await.expect("a connection");
        send.send_request(request, false).expect("a stream")
    }

    /// Sends headers and data; answers with the response's beginning.
    pub(crate) async fn open(
        &self,
        request: Request<()>,
        data: Vec<u8>,
    ) -> Result<Response<h2::RecvStream>, h2::Error> {
        let mut send = soon(self.send.clone().ready()).await?;
        let (response, mut body) = send.send_request(request, false)?;
        // The node may have answered and reset before it read everything.
        let _ = body.send_data(data.into(), true);
        soon(response).await
    }

    pub(crate) async fn call(
        &self,
        request: Request<()>,
        data: Vec<u8>,
    ) -> Result<Answer, h2::Error> {
        collect(self.open(request, data).await?).await
    }

    /// A whole call that must be answered.
    pub(crate) async fn ask(&self, request: Request<()>) -> Answer {
        self.call(request, framed(&[])).await.expect("an answer")
    }
}

pub(crate) async fn next(body: &mut h2::RecvStream) -> Option<Result<Bytes, h2::Error>> {
    let data = soon(body.data()).await;
    if let Some(Ok(data)) = &data {
        body.flow_control().release_capacity(data.len()).expect("capacity");
    }
    data
}

pub(crate) async fn collect(response: Response<h2::RecvStream>) -> Result<Answer, h2::Error> {
    let (head, mut body) = response.into_parts();
    let mut data = Vec::new();
    while let Some(chunk) = next(&mut body).await {
        data.extend_from_slice(&chunk?);
    }
    let trailers = soon(body.trailers()).await?;
    let status = Status::from_header_map(trailers.as_ref().unwrap_or(&head.headers));
    Ok(Answer { http: head.status, data, status })
}

/// A call as gRPC writes it.
pub(crate) fn request(path: &str) -> http::request::Builder {
    Request::post(format!("https://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

pub(crate) fn call(path: &str) -> Request<()> {
    request(path).body(()).expect("request")
}

/// gRPC's prefix and the message.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("length");
    [&[0], length.to_be_bytes().as_slice(), message].concat()
}
