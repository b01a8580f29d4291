//! The mesh's certificates and authorities change while links and streams are
//! open.

use simpul::proto::chat::v1::join::From;

use crate::cluster::{Cluster, Database, Writer, check, log};
use crate::pki::{Authority, MeshFiles, knock};
use crate::support::{Node, eventually};
use crate::talk::{Session, room};

const CERTIFICATE: &str = "simpul_reload_failing{source=\"mesh.cert_file\"}";
const BUNDLE: &str = "simpul_reload_failing{source=\"mesh.ca_file\"}";

fn principal(at: usize) -> String {
    format!("node/n{at}@dev.simpul")
}

async fn two_nodes(test: &str) -> Option<(Cluster, Vec<MeshFiles>, Authority)> {
    nodes(test, 2, "90days").await
}

/// Nodes with certificates of an authority that hold so long, and what they read
/// them from.
async fn nodes(
    test: &str,
    count: usize,
    time: &str,
) -> Option<(Cluster, Vec<MeshFiles>, Authority)> {
    let database = Some(Database::new(test).await?);
    let dirs = tempfile::tempdir().expect("a directory");
    let first = Authority::new(dirs.path(), "first");
    let mut cluster = Cluster { database, nodes: Vec::new(), dirs };
    let mut files = Vec::new();
    for at in 0..count {
        let own = MeshFiles::new(&cluster.dirs.path().join(format!("mesh-of-n{at}")));
        own.certificate(&first.issue_for(&format!("n{at}"), &principal(at), time));
        own.bundle(&[&first]);
        cluster.add(&own.env());
        files.push(own);
    }
    cluster.spread().await;
    Some((cluster, files, first))
}

/// A room of the second node, which is written to and read through the first.
async fn across(cluster: &Cluster, alice: &str) -> (String, Session, Writer) {
    let mut name = None;
    for at in 0..64 {
        let candidate = format!("lobby-{at}");
        if cluster.owner_of(&candidate).await == 1 {
            name = Some(candidate);
            break;
        }
    }
    let name = name.expect("the second node owns a partition");
    room(cluster.nodes[0].channel().await, alice, &name, &[]).await;
    let channel = cluster.nodes[0].channel().await;
    let session = Session::join(channel, alice, &name, From::Earliest(true)).await;
    let writer = Writer::start(&[&cluster.nodes[0]], alice, &name, "m", true).await;
    writer.more(10).await;
    (name, session, writer)
}

/// What the writer had acknowledged stands, and the stream that was open all the
/// time has shown it.
async fn judge(
    cluster: &Cluster,
    alice: &str,
    name: &str,
    mut session: Session,
    acknowledged: &[(String, u64)],
) {
    let all = log(&cluster.nodes[0], alice, name).await;
    check(&all, acknowledged);
    for expected in &all {
        assert_eq!(session.message().await.seq, expected.seq);
    }
}

async fn becomes(node: &Node, metric: &str, value: f64) {
    eventually(metric, async || (node.metric(metric) == value).then_some(())).await;
}

fn said(node: &Node) -> String {
    std::fs::read_to_string(node.dir().join("node.log")).expect("a log")
}

/// How often a node lost its links to another one.
fn links_lost(node: &Node) -> usize {
    said(node).matches("the link is gone").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mesh_changes_its_authority_under_open_streams_and_nobody_notices() {
    let Some((cluster, files, first)) = two_nodes("a new authority").await else { return };
    let alice = cluster.token("alice", &[]);
    let (name, session, writer) = across(&cluster, &alice).await;
    let second = Authority::new(cluster.dirs.path(), "second");
    let both = [&first, &second];

    // Both are believed, then the certificates are changed, then the first
    // authority goes.
    files.iter().for_each(|own| own.bundle(&both));
    let new: Vec<_> = (0..2).map(|at| second.issue(&format!("n{at}"), &principal(at))).collect();
    for node in &cluster.nodes {
        let address = node.address("mesh");
        eventually("both authorities are believed", async || {
            knock(&address, Some(&new[0])).await.ok()
        })
        .await;
    }
    let shown = "simpul_certificate_lifetime_seconds{source=\"mesh.cert_file\"}";
    for (at, own) in files.iter().enumerate() {
        let before = cluster.nodes[at].metric(shown);
        own.certificate(&new[at]);
        eventually("the new certificate is used", async || {
            (cluster.nodes[at].metric(shown) > before).then_some(())
        })
        .await;
    }
    writer.more(10).await;
    let links: Vec<_> = cluster.nodes.iter().map(links_lost).collect();
    files.iter().for_each(|own| own.bundle(&[&second]));
    let old = first.issue("late", &principal(0));
    for node in &cluster.nodes {
        let address = node.address("mesh");
        eventually("the first authority is believed no more", async || {
            knock(&address, Some(&old)).await.err()
        })
        .await;
    }
    // What was open with it ended, and was made anew with the new ones.
    for (node, before) in cluster.nodes.iter().zip(links) {
        eventually("its links were ended", async || (links_lost(node) > before).then_some(()))
            .await;
    }
    cluster.spread().await;
    writer.more(20).await;
    for node in &cluster.nodes {
        assert_eq!(node.metric(CERTIFICATE), 0.0);
        assert_eq!(node.metric(BUNDLE), 0.0);
    }
    let acknowledged = writer.stop().await;
    judge(&cluster, &alice, &name, session, &acknowledged).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_mesh_files_are_not_taken_and_a_metric_says_so() {
    let Some((cluster, files, first)) = two_nodes("wrong mesh files").await else { return };
    let alice = cluster.token("alice", &[]);
    let (name, session, writer) = across(&cluster, &alice).await;
    let (node, own) = (&cluster.nodes[1], &files[1]);
    let good = first.issue("good", &principal(1));

    own.put("cert.pem", b"-----BEGIN CERTIFICATE-----\nAAAA");
    becomes(node, CERTIFICATE, 1.0).await;
    own.certificate(&good);
    becomes(node, CERTIFICATE, 0.0).await;
    // Whole, but another node's.
    own.certificate(&first.issue("other", &principal(0)));
    becomes(node, CERTIFICATE, 1.0).await;
    eventually("the log says why", async || {
        said(node).contains("names the node n0, but this node is n1").then_some(())
    })
    .await;
    own.certificate(&good);
    becomes(node, CERTIFICATE, 0.0).await;
    // Of an authority that nobody believes.
    let stranger = Authority::new(cluster.dirs.path(), "stranger");
    own.certificate(&stranger.issue("n1", &principal(1)));
    becomes(node, CERTIFICATE, 1.0).await;
    eventually("the log says why", async || {
        said(node).contains("no authority of mesh.ca_file vouches for it").then_some(())
    })
    .await;
    own.certificate(&good);
    becomes(node, CERTIFICATE, 0.0).await;
    // A bundle of what is no authority.
    own.put("ca.pem", &std::fs::read(&good[0]).expect("a chain"));
    becomes(node, BUNDLE, 1.0).await;
    writer.more(10).await;
    own.bundle(&[&first]);
    becomes(node, BUNDLE, 0.0).await;

    writer.more(10).await;
    let seen = cluster.seen_by(0).await;
    assert!(seen.links.iter().all(|link| link.connections > 0), "{:?}", seen.links);
    let acknowledged = writer.stop().await;
    judge(&cluster, &alice, &name, session, &acknowledged).await;
    cluster.end().await;
}

/// One node has its certificate of an authority of its own; the other ceases to
/// believe that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_authority_is_withdrawn_is_cut_off_from_the_mesh() {
    let test = "a withdrawn authority";
    let Some((mut cluster, mut files, first)) = nodes(test, 1, "90days").await else { return };
    let second = Authority::new(cluster.dirs.path(), "second");
    let own = second.issue("n1", &principal(1));
    files.push(MeshFiles::new(&cluster.dirs.path().join("mesh-of-n1")));
    files.iter().for_each(|files| files.bundle(&[&first, &second]));
    files[1].certificate(&own);
    cluster.add(&files[1].env());
    cluster.spread().await;
    let alice = cluster.token("alice", &[]);
    let (name, session, writer) = across(&cluster, &alice).await;

    files[0].bundle(&[&first]);
    let address = cluster.nodes[0].address("mesh");
    eventually("the node is not let in", async || knock(&address, Some(&own)).await.err()).await;
    eventually("no link stands in either direction, and both say why", async || {
        for node in 0..2 {
            let links = cluster.seen_by(node).await.links;
            let cut = links.iter().all(|link| link.connections == 0 && !link.problem.is_empty());
            if !cut {
                return None;
            }
        }
        let refused = "simpul_link_refused_total{reason=\"certificate\"}";
        cluster.nodes.iter().all(|node| node.metric(refused) > 0.0).then_some(())
    })
    .await;
    // The store still carries what people write.
    writer.more(5).await;
    files[0].bundle(&[&first, &second]);
    cluster.spread().await;
    writer.more(10).await;
    let acknowledged = writer.stop().await;
    judge(&cluster, &alice, &name, session, &acknowledged).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_does_not_outlive_the_certificates_at_its_ends() {
    let test = "certificates that end";
    let Some((cluster, files, first)) = nodes(test, 2, "25s").await else { return };
    let alice = cluster.token("alice", &[]);
    for (at, own) in files.iter().enumerate() {
        own.certificate(&first.issue(&format!("next-n{at}"), &principal(at)));
    }
    let (name, session, writer) = across(&cluster, &alice).await;
    for node in &cluster.nodes {
        eventually("its links were ended", async || (links_lost(node) > 0).then_some(())).await;
    }
    cluster.spread().await;
    writer.more(10).await;
    let acknowledged = writer.stop().await;
    judge(&cluster, &alice, &name, session, &acknowledged).await;
    cluster.end().await;
}
