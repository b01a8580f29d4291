//! Handshakes of nodes.

use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::clock;
use crate::security::issue::{self, CertificateRequest, Issued};

fn authority() -> Issued {
    issue::authority("Mesh CA", Duration::from_secs(3600), false, SystemTime::now()).expect("made")
}

fn config(data: &Path) -> Config {
    let mut config: Config =
        toml::from_str(include_str!("../../../config/default.toml")).expect("good defaults");
    config.data_dir = data.to_path_buf();
    config
}

/// A node whose certificate names this principal and which believes this
/// authority, and the one that signed it.
fn node(data: &Path, signer: &Issued, believed: &Issued, principal: &str) -> Arc<Mesh> {
    let request = CertificateRequest {
        principal: Some(principal.parse().expect("a principal")),
        ttl: Duration::from_secs(600),
        dns: vec!["localhost".into()],
        ..CertificateRequest::default()
    };
    let issued = issue::sign(&signer.certificate, &signer.key, &request, SystemTime::now());
    let issued = issued.expect("signed");
    let mut config = config(data);
    let name = principal.replace(['/', '@'], "-");
    let write = |file: &str, content: &str| {
        let path = data.join(format!("{name}-{file}"));
        std::fs::write(&path, content).expect("written");
        Some(path)
    };
    config.mesh.cert_file = write("cert.pem", &issued.certificate);
    config.mesh.key_file = write("key.pem", issued.key.expose_secret());
    let own = Some(&signer.certificate).filter(|own| **own != believed.certificate);
    let bundle = believed.certificate.clone() + own.map_or("", String::as_str);
    config.mesh.ca_file = write("ca.pem", &bundle);
    config.mesh.trust_domain = Some("mesh.test".parse().expect("a trust domain"));
    load(&config).expect("it fits")
}

fn load(config: &Config) -> Result<Arc<Mesh>, Vec<SecurityProblem>> {
    let mut registry = Registry::default();
    let mut plain = config.clone();
    plain.profile = Profile::Development;
    let clock = Arc::new(clock::System);
    let security = Security::load(&plain, &config.data_dir, clock, &mut registry).expect("loaded");
    Mesh::load(config, &config.data_dir, &security)
}

/// One handshake: whom the accepting side sees, and what the dialing side says.
async fn shake(
    from: &Mesh,
    to: &Mesh,
    expected: &str,
) -> (Result<PeerCertificate, String>, Result<(), String>) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let accept = async {
        let accepted = TlsAcceptor::from(to.server_config()).accept(far).await;
        let mut tls = accepted.map_err(|error| error.to_string())?;
        tls.write_all(b"!").await.map_err(|error| error.to_string())?;
        let peer = to.peer(tls.get_ref().1).map_err(|error| error.to_string())?;
        Ok((peer, tls))
    };
    let dial = async {
        let config = from.client_config(expected).expect("a configuration");
        let dialed = TlsConnector::from(config).connect(Mesh::server_name(), near).await;
        let mut tls =
            dialed.map_err(|error| refusal_of(&error).unwrap_or_else(|| error.to_string()))?;
        // A refused client certificate is told after the handshake.
        tls.read_exact(&mut [0]).await.map(drop).map_err(|error| error.to_string())
    };
    let (accepted, dialed) = tokio::join!(accept, dial);
    (accepted.map(|(peer, _)| peer), dialed)
}

#[tokio::test]
async fn nodes_know_each_other_by_their_ids_alone() {
    let data = tempfile::tempdir().expect("a folder");
    let mesh = authority();
    let one = node(data.path(), &mesh, &mesh, "node/n1@mesh.test");
    let two = node(data.path(), &mesh, &mesh, "node/n2@mesh.test");
    let (seen, dialed) = shake(&one, &two, "n2").await;
    let seen = seen.expect("accepted");
    assert_eq!(seen.principal.as_str(), "node/n1@mesh.test");
    assert!(seen.roles.contains(Role::Node));
    assert_eq!(node_of(&seen.principal), Some(NodeName::One("n1".into())));
    assert_eq!(dialed, Ok(()));
    let (_, dialed) = shake(&one, &two, "n3").await;
    assert!(dialed.expect_err("another node").contains("another node"));
}

#[tokio::test]
async fn who_is_no_node_of_this_mesh_is_refused() {
    let data = tempfile::tempdir().expect("a folder");
    let (mesh, other) = (authority(), authority());
    let one = node(data.path(), &mesh, &mesh, "node/n1@mesh.test");
    // Signed by somebody else, although it believes the mesh.
    let stranger = node(data.path(), &other, &mesh, "node/n9@mesh.test");
    let (seen, dialed) = shake(&stranger, &one, "n1").await;
    assert!(seen.is_err() && dialed.is_err());
    assert!(shake(&one, &stranger, "n9").await.1.is_err());
    // No node: it cannot even load, so a client is made of another's parts.
    for principal in ["user/alice@mesh.test", "node/n1@else.test"] {
        let request = CertificateRequest {
            principal: Some(principal.parse().expect("a principal")),
            ttl: Duration::from_secs(600),
            ..CertificateRequest::default()
        };
        let now = SystemTime::now();
        let issued = issue::sign(&mesh.certificate, &mesh.key, &request, now).expect("signed");
        let identity = crate::security::material::server_identity(
            issued.certificate.as_bytes(),
            issued.key.expose_secret().as_bytes(),
            now,
            false,
            &tls::provider(),
        );
        let client = node(data.path(), &mesh, &mesh, "node/n4@mesh.test");
        let state = client.state.load();
        let key = identity.expect("a key").key;
        let spoilt = State { server: state.server.clone(), key, vouching: state.vouching.clone() };
        client.state.store(Arc::new(spoilt));
        let (seen, dialed) = shake(&client, &one, "n1").await;
        assert!(seen.is_err() && dialed.is_err(), "{principal}");
    }
}

#[tokio::test]
async fn development_makes_what_fits_any_node_and_a_torn_file_changes_nothing() {
    let data = tempfile::tempdir().expect("a folder");
    let mesh = load(&config(data.path())).expect("made");
    let again = load(&config(data.path())).expect("taken again");
    let (seen, dialed) = shake(&mesh, &again, "whoever").await;
    assert_eq!(node_of(&seen.expect("accepted").principal), Some(NodeName::Any));
    assert_eq!(dialed, Ok(()));

    let [certificate, _] = development::node_files(data.path());
    let good = std::fs::read_to_string(&certificate).expect("there");
    std::fs::write(&certificate, &good[..good.len() / 2]).expect("torn");
    let before = mesh.server_config();
    let mut reloader = mesh.reloader.lock().expect("not poisoned");
    assert!(!reloader.poll(SystemTime::now()).server);
    drop(reloader);
    assert!(Arc::ptr_eq(&before, &mesh.server_config()));
    std::fs::write(&certificate, &good).expect("whole");

    let mut production = config(data.path());
    production.profile = Profile::Production;
    let [cert, key] = development::node_files(data.path());
    production.mesh.cert_file = Some(cert);
    production.mesh.key_file = Some(key);
    production.mesh.ca_file = Some(development::dir(data.path()).join("ca.pem"));
    let problems = load(&production).expect_err("made for development");
    let keys: Vec<_> = problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["mesh.ca_file", "mesh.cert_file"]);
}

#[tokio::test]
async fn an_authority_that_leaves_the_bundle_takes_its_nodes_with_it() {
    let data = tempfile::tempdir().expect("a folder");
    let (mesh, next) = (authority(), authority());
    let one = node(data.path(), &mesh, &mesh, "node/n1@mesh.test");
    let two = node(data.path(), &mesh, &mesh, "node/n2@mesh.test");
    let state = two.state.load();
    let chain = state.key.cert.clone();
    assert!(one.believes_server(&chain, "n2") && !one.believes_server(&chain, "n3"));
    let trust = one.trust();
    let bundle = data.path().join("node-n1-mesh.test-ca.pem");
    std::fs::write(bundle, &next.certificate).expect("written");
    one.poll(SystemTime::now());
    assert!(trust.has_changed().expect("it is there"));
    assert!(!one.believes_server(&chain, "n2"));
}

#[tokio::test]
async fn a_certificate_of_another_node_is_refused_at_the_start_and_when_it_is_put_there_later() {
    let data = tempfile::tempdir().expect("a folder");
    let mesh = authority();
    drop(node(data.path(), &mesh, &mesh, "node/n1@mesh.test"));
    drop(node(data.path(), &mesh, &mesh, "node/n2@mesh.test"));
    let path = |name: &str| data.path().join(format!("node-{name}-mesh.test-cert.pem"));
    let key = |name: &str| data.path().join(format!("node-{name}-mesh.test-key.pem"));
    let mut config = config(data.path());
    config.node.id = Some("n1".into());
    config.mesh.trust_domain = Some("mesh.test".parse().expect("a trust domain"));
    config.mesh.ca_file = Some(data.path().join("node-n1-mesh.test-ca.pem"));
    (config.mesh.cert_file, config.mesh.key_file) = (Some(path("n2")), Some(key("n2")));
    let problems = load(&config).expect_err("it is n2's");
    assert_eq!(problems[0].key, "mesh.cert_file");
    assert!(problems[0].to_string().contains("names the node n2"), "{}", problems[0]);
    assert_eq!(Mesh::check(&config, data.path(), SystemTime::now()).len(), 1);

    (config.mesh.cert_file, config.mesh.key_file) = (Some(path("n1")), Some(key("n1")));
    let one = load(&config).expect("its own");
    let before = one.server_config();
    std::fs::copy(path("n2"), path("n1")).expect("copied");
    std::fs::copy(key("n2"), key("n1")).expect("copied");
    one.poll(SystemTime::now());
    assert!(Arc::ptr_eq(&before, &one.server_config()), "the last good one stays");
}
