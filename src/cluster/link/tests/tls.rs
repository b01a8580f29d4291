//! A link over real TLS on loopback.

use std::time::SystemTime;

use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::super::network::TlsNetwork;
use super::kit::{World, identity, info, take};
use super::*;
use crate::clock;
use crate::config::Config;
use crate::security::Security;
use crate::security::mesh::{Mesh, node_of};

/// The mesh that development makes.
fn mesh(data: &std::path::Path) -> Arc<Mesh> {
    let mut config: Config =
        toml::from_str(include_str!("../../../../config/default.toml")).expect("good defaults");
    config.data_dir = data.to_path_buf();
    let mut registry = Registry::default();
    let security = Security::load(&config, data, Arc::new(clock::System), &mut registry);
    assert!(Mesh::check(&config, data, SystemTime::now()).is_empty());
    Mesh::load(&config, data, &security.expect("loaded")).expect("made")
}

#[tokio::test]
async fn a_job_crosses_mutual_tls() {
    let data = tempfile::tempdir().expect("a folder");
    let mesh = mesh(data.path());
    let world = World::new();
    let network = || Arc::new(TlsNetwork::new(mesh.clone()));
    let a = world.node_over(network(), identity("a"), 0, 1 << 20);
    let b = world.node_over(network(), identity("b"), 0, 1 << 20);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address").to_string();
    let (route, serving) = (b.links.service(), mesh.clone());
    let accepting = task::spawn("accepting", async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(tls) = TlsAcceptor::from(serving.server_config()).accept(tcp).await else {
                continue;
            };
            let peer = serving.peer(tls.get_ref().1).expect("a node");
            let name = node_of(&peer.principal).expect("a node");
            task::spawn("served", serve(route.clone(), tls, name));
        }
    });
    let infos = [info("a"), NodeInfo { mesh_address: address, ..info("b") }];
    a.links.peers_are(&infos);
    b.links.peers_are(&infos);
    a.linked("b").await;
    take(&b, 5, &[&a]);
    assert_eq!(a.send("m").await.expect("answered").expect("committed").seq, 1);
    accepting.abort();
}
