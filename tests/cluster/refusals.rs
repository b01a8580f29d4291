//! What does not belong to the cluster does not get in.

use std::sync::Arc;

use simpul::client::dial as connect;
use tokio::io::AsyncReadExt;

use crate::cluster::Cluster;
use crate::support::command;

/// Starts a node that must refuse; what it says.
fn refused(cluster: &Cluster, dir: &str, id: &str, more: &[(&str, &str)]) -> String {
    let dir = cluster.dir(dir);
    let output = command(&dir)
        .env("SIMPUL_LISTEN__PUBLIC", "127.0.0.1:0")
        .env("SIMPUL_LISTEN__MESH", "127.0.0.1:0")
        .env("SIMPUL_LISTEN__ADMIN", "127.0.0.1:0")
        .envs(cluster.env(id, more))
        .output()
        .expect("the binary starts");
    assert!(!output.status.success(), "it must not start");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_refused_at_start_with_the_key_and_the_reason() {
    let Some(cluster) = Cluster::start("refusals", 1).await else { return };
    let twin = refused(&cluster, "twin", "n0", &[]);
    assert!(twin.contains("node.id: another node with the id n0 is alive at 127.0.0.1:"), "{twin}");
    let split = refused(&cluster, "split", "n7", &[("SIMPUL_CHAT__PARTITIONS", "64")]);
    assert!(split.contains("partition"), "{split}");
    let shared = refused(&cluster, "shared", "n8", &[("SIMPUL_CLUSTER__SHARED_FILE", "true")]);
    assert!(shared.contains("cluster.shared_file"), "{shared}");
    let seen = cluster.seen_by(0).await;
    assert_eq!(seen.nodes.len(), 1, "nothing was damaged");
    assert_eq!(seen.nodes[0].partitions, 32);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_certificate_does_not_open_the_mesh_port() {
    let Some(cluster) = Cluster::start("a user on the mesh port", 1).await else { return };
    let node = &cluster.nodes[0];
    let (chain, key) = node.certificate("alice");
    let ca = std::fs::read(node.info["ca_file"].as_str().expect("a file")).expect("the CA");
    for identity in [None, Some((chain.as_slice(), key.as_slice()))] {
        let tls = Arc::new(connect::client_config(&ca, identity).expect("PEM"));
        let mesh = node.address("mesh").parse().expect("an address");
        // In TLS 1.3 the client may believe for a moment that it is through.
        if let Ok(mut stream) = connect::dial(&mesh, Some("localhost"), tls).await {
            let mut said = Vec::new();
            let read = tokio::time::timeout(crate::support::LONG, stream.read_to_end(&mut said));
            assert!(read.await.expect("an end").is_err(), "{said:?}");
        }
    }
    cluster.end().await;
}
