//! Handshakes on loopback.

use std::io;

use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

type Peer = Result<Option<PeerCertificate>, PeerError>;

fn client(authority: &Issued, certificate: Option<&Issued>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let der = CertificateDer::from_pem_slice(authority.certificate.as_bytes()).expect("PEM");
    roots.add(der).expect("an authority");
    let builder = ClientConfig::builder_with_provider(super::super::tls::provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match certificate {
        None => builder.with_no_client_auth(),
        Some(issued) => {
            let chain =
                vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes()).expect("PEM")];
            let key = PrivateKeyDer::from_pem_slice(issued.key.expose_secret().as_bytes());
            builder.with_client_auth_cert(chain, key.expect("a key")).expect("they match")
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// One connection: how the handshake went, whom the server sees, and the chain.
async fn connect(
    security: &Security,
    client: &Arc<ClientConfig>,
) -> io::Result<(HandshakeKind, Peer, Option<PeerChain>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let acceptor = TlsAcceptor::from(security.server_config());
    let connector = TlsConnector::from(client.clone());
    let serve = async {
        let (tcp, _) = listener.accept().await?;
        let mut tls = acceptor.accept(tcp).await?;
        // The ticket goes with it.
        tls.write_all(b"!").await?;
        tls.flush().await?;
        let connection = tls.get_ref().1;
        assert_eq!(connection.alpn_protocol(), Some(&b"h2"[..]));
        Ok::<_, io::Error>((security.peer(connection), PeerChain::of(connection), tls))
    };
    let call = async {
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let mut tls = connector.connect(name, TcpStream::connect(address).await?).await?;
        tls.read_exact(&mut [0]).await?;
        let kind = tls.get_ref().1.handshake_kind();
        kind.ok_or_else(|| io::Error::other("no handshake"))
    };
    let ((peer, chain, _tls), kind) = tokio::try_join!(serve, call)?;
    Ok((kind, peer, chain))
}

fn name(peer: Peer) -> Result<Option<String>, PeerError> {
    peer.map(|peer| peer.map(|peer| peer.principal.to_string()))
}

#[tokio::test]
async fn a_resumed_client_is_known_and_judged_by_the_bundles_of_now() {
    let company = Company::new();
    let security = load(&company.config()).expect("all is well");
    let alice = client_certificate(&company.authority, "user/alice@corp.test");
    let client = client(&company.authority, Some(&alice));
    let known = Ok(Some("user/alice@corp.test".to_owned()));

    let (kind, peer, chain) = connect(&security, &client).await.expect("connected");
    assert_eq!((kind, name(peer)), (HandshakeKind::Full, known.clone()));
    let (kind, peer, _) = connect(&security, &client).await.expect("connected");
    assert_eq!((kind, name(peer)), (HandshakeKind::Resumed, known));

    let chain = chain.expect("it gave a certificate");
    assert!(security.recheck(&chain).is_ok());
    let mut trust = security.trust();
    company.write("ca.pem", &authority().certificate);
    security.poll(SystemTime::now());
    assert!(trust.has_changed().expect("the sender lives"));
    trust.mark_unchanged();
    // Open connections are found out, and the ticket is worth nothing.
    assert_eq!(security.recheck(&chain).err(), Some(PeerError::Untrusted));
    assert!(connect(&security, &client).await.is_err());
}

#[tokio::test]
async fn a_chain_that_comes_to_prove_other_roles_does_not_prove_the_same() {
    let company = Company::new();
    let partner = authority();
    company.write("partner.pem", &partner.certificate);
    let mut config = company.config();
    let mut second = config.auth.ca[0].clone();
    second.file = company.path("partner.pem");
    (second.roles, second.default_roles) = (vec![Role::Auditor], vec![Role::Auditor]);
    config.auth.ca.push(second);
    let security = load(&config).expect("all is well");
    let alice = client_certificate(&company.authority, "user/alice@corp.test");
    let client = client(&company.authority, Some(&alice));
    let (_, peer, chain) = connect(&security, &client).await.expect("connected");
    let (peer, chain) = (peer.expect("believed").expect("somebody"), chain.expect("a chain"));
    assert!(security.still_proves(&chain, &peer));
    // The same authority, believed for something else from now on.
    company.write("ca.pem", &partner.certificate);
    company.write("partner.pem", &company.authority.certificate);
    security.poll(SystemTime::now());
    let now = security.recheck(&chain).expect("it is still believed");
    assert_eq!(now.roles, [Role::Auditor].into_iter().collect());
    assert!(!security.still_proves(&chain, &peer), "it goes on as what it was");
}

#[tokio::test]
async fn a_ticket_does_not_outlive_its_certificate() {
    let company = Company::new();
    let security = load(&company.config()).expect("all is well");
    let alice = client_certificate(&company.authority, "user/alice@corp.test");
    let client = client(&company.authority, Some(&alice));
    let (_, _, chain) = connect(&security, &client).await.expect("connected");
    let later = SystemTime::now() + Duration::from_secs(601);
    let judged = security.serving.load().trust.verify(&chain.expect("a certificate"), later);
    assert_eq!(judged.err(), Some(PeerError::Expired));
}

#[tokio::test]
async fn certificates_that_may_not_name_whom_they_name_are_refused() {
    let company = Company::new();
    let security = load(&company.config()).expect("all is well");
    for (principal, error) in [
        ("service/shop@corp.test", IdentityError::Kind),
        ("node/n1@corp.test", IdentityError::Path),
        ("user/alice@else.test", IdentityError::TrustDomain),
    ] {
        let certificate = client_certificate(&company.authority, principal);
        let client = client(&company.authority, Some(&certificate));
        let (_, peer, _) = connect(&security, &client).await.expect("connected");
        assert_eq!(name(peer), Err(PeerError::Identity(error)), "{principal}");
    }
    let stranger = client_certificate(&authority(), "user/alice@corp.test");
    let client = client(&company.authority, Some(&stranger));
    assert!(connect(&security, &client).await.is_err(), "a stranger's authority");
}

#[tokio::test]
async fn a_certificate_is_optional_or_required() {
    let company = Company::new();
    let mut config = company.config();
    let without = client(&company.authority, None);
    let security = load(&config).expect("all is well");
    let (_, peer, _) = connect(&security, &without).await.expect("connected");
    assert_eq!(name(peer), Ok(None));

    config.tls.client_auth = ClientAuth::Required;
    let security = load(&config).expect("all is well");
    assert!(connect(&security, &without).await.is_err());
}

#[tokio::test]
async fn a_development_client_certificate_is_believed() {
    let data = tempfile::tempdir().expect("a folder");
    let security = load(&config(data.path())).expect("made");
    let service: Principal = "service/shop@dev.simpul".parse().expect("a principal");
    let ca = std::fs::read_to_string(security.ca_file().expect("made")).expect("there");
    let key = std::fs::read_to_string(data.path().join("dev/ca-key.pem")).expect("there");
    let request = CertificateRequest {
        principal: Some(service.clone()),
        ttl: Duration::from_secs(3600),
        development: true,
        ..CertificateRequest::default()
    };
    let issued = issue::sign(&ca, &key.into(), &request, SystemTime::now()).expect("issued");
    let authority = Issued { certificate: ca, key: String::new().into() };
    let client = client(&authority, Some(&issued));
    let (_, peer, _) = connect(&security, &client).await.expect("connected");
    let peer = peer.expect("believed").expect("somebody");
    assert_eq!(peer.principal, service);
    assert_eq!(peer.roles, development::DEFAULT_ROLES.into_iter().collect());
}
