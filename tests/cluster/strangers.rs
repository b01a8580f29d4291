//! Who knocks at the mesh listener, and nodes that share the store but do not
//! belong to the cluster.

use simpul::proto::chat::v1::join::From;

use crate::cluster::{Cluster, Database, Writer, check, log, refused};
use crate::pki::{Authority, MeshFiles, knock};
use crate::support::{Node, eventually};
use crate::talk::{Session, room};

/// The trust domain of development, which the tests keep.
const DOMAIN: &str = "dev.simpul";

const AT_THE_DOOR: &str = "simpul_link_handshake_failures_total{reason=\"tls\"}";

fn refused_for(node: &Node, cause: &str) -> f64 {
    node.metric(&format!("simpul_link_refused_total{{reason=\"{cause}\"}}"))
}

/// A cluster whose nodes have certificates of an authority, each of its own name.
async fn cluster_of(test: &str, nodes: usize) -> Option<(Cluster, Authority)> {
    let database = Some(Database::new(test).await?);
    let dirs = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(dirs.path(), "mesh");
    let mut cluster = Cluster { database, nodes: Vec::new(), dirs };
    for at in 0..nodes {
        let files = files(&cluster, &authority, &format!("n{at}"), &format!("n{at}"));
        cluster.add(&files.env());
    }
    cluster.spread().await;
    Some((cluster, authority))
}

/// Mesh files in a folder with a certificate that names a node.
fn files(cluster: &Cluster, authority: &Authority, folder: &str, names: &str) -> MeshFiles {
    let files = MeshFiles::new(&cluster.dirs.path().join(format!("mesh-of-{folder}")));
    let principal = format!("node/{names}@{DOMAIN}");
    files.certificate(&authority.issue(&format!("{folder}-{names}"), &principal));
    files.bundle(&[authority]);
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_certificate_of_a_node_of_this_mesh_opens_its_listener() {
    let Some((cluster, mesh)) = cluster_of("who knocks at the mesh", 1).await else { return };
    let node = &cluster.nodes[0];
    let address = node.address("mesh");
    let one = mesh.issue("one", &format!("node/n7@{DOMAIN}"));
    knock(&address, Some(&one)).await.expect("a node is let in");
    assert_eq!(node.metric(AT_THE_DOOR), 0.0);

    let other = Authority::new(cluster.dirs.path(), "other");
    let strangers = [
        ("nobody", None),
        ("a user", Some(mesh.issue("user", &format!("user/alice@{DOMAIN}")))),
        ("a service", Some(mesh.issue("service", &format!("service/shop@{DOMAIN}")))),
        ("another trust domain", Some(mesh.issue("domain", "node/n7@else.test"))),
        ("another authority", Some(other.issue("node", &format!("node/n7@{DOMAIN}")))),
    ];
    for (count, (who, identity)) in strangers.iter().enumerate() {
        let said = knock(&address, identity.as_ref()).await.expect_err(who);
        assert!(!said.is_empty(), "{who}");
        eventually("it is counted", async || {
            (node.metric(AT_THE_DOOR) == (count + 1) as f64).then_some(())
        })
        .await;
    }
    // The node's own user certificates prove nobody here either.
    let (chain, key) = node.certificate("alice");
    let user = ["chain", "key"].map(|name| cluster.dirs.path().join(name));
    std::fs::write(&user[0], chain).expect("written");
    std::fs::write(&user[1], key).expect("written");
    knock(&address, Some(&user)).await.expect_err("a user of the public listener");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_a_certificate_that_is_not_its_own_does_not_start() {
    let Some((cluster, mesh)) = cluster_of("others' certificates", 1).await else { return };
    let two = files(&cluster, &mesh, "n5", "n2");
    let said = cluster.refused("n5", "n5", &two.env());
    assert!(said.contains("mesh.cert_file: "), "{said}");
    assert!(said.contains("names the node n2, but this node is n5 (node.id)"), "{said}");

    let elsewhere = files(&cluster, &mesh, "n6", "n6");
    elsewhere.certificate(&mesh.issue("elsewhere", "node/n6@else.test"));
    let said = cluster.refused("n6", "n6", &elsewhere.env());
    assert!(said.contains("mesh.cert_file: ") && said.contains("trust domain"), "{said}");

    // Its own mesh fits together, but it is another one.
    let mut env = elsewhere.env();
    env.push(("SIMPUL_MESH__TRUST_DOMAIN", "else.test"));
    let said = cluster.refused("n6", "n6", &env);
    assert!(said.contains("the node n0 is alive at"), "{said}");
    assert!(said.contains("trust domain is not that"), "{said}");

    elsewhere.certificate(&mesh.issue("user", &format!("user/n6@{DOMAIN}")));
    let said = cluster.refused("n6", "n6", &elsewhere.env());
    assert!(said.contains("mesh.cert_file: ") && said.contains("is not a node's"), "{said}");

    let seen = cluster.seen_by(0).await;
    assert_eq!(seen.nodes.len(), 1, "nobody else took part");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_no_other_one_believes_does_not_start() {
    let Some((cluster, mesh)) = cluster_of("nobody believes", 2).await else { return };
    let other = Authority::new(cluster.dirs.path(), "other");
    let files = MeshFiles::new(&cluster.dirs.path().join("mesh-of-n7"));
    let tried = |what: &str, issuer: &Authority, bundle: &[&Authority]| {
        files.certificate(&issuer.issue(what, &format!("node/n7@{DOMAIN}")));
        files.bundle(bundle);
        let (code, said) = refused(&cluster.dir("n7"), &cluster.env("n7", &files.env()));
        // Not 64: it may be the others who are wrong, and put right any moment.
        assert_eq!(code, 69, "{what}: {said}");
        assert!(said.contains("mesh.cert_file, mesh.ca_file: the node n"), "{what}: {said}");
        assert!(said.contains("do not believe each other: "), "{what}: {said}");
        said
    };
    let said = tried("not-believed", &other, &[&mesh, &other]);
    assert!(said.contains("it refuses this node's certificate: "), "{said}");
    tried("elsewhere", &other, &[&other]);
    // What does not even fit its own bundle is refused before anybody is asked.
    files.certificate(&mesh.issue("not-vouched", &format!("node/n7@{DOMAIN}")));
    files.bundle(&[&other]);
    let (code, said) = refused(&cluster.dir("n7"), &cluster.env("n7", &files.env()));
    assert_eq!(code, 64, "{said}");
    assert!(said.contains("mesh.cert_file: no authority of mesh.ca_file vouches"), "{said}");
    let seen = cluster.seen_by(0).await;
    assert_eq!(seen.nodes.len(), 2, "nobody else took part");
    assert!(seen.links.iter().all(|link| link.connections > 0), "{seen:?}");
    cluster.end().await;
}

/// All nodes ended without a word, and something else has the address of one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_at_the_address_of_a_dead_node_keeps_nobody_from_starting() {
    let Some((mut cluster, mesh)) = cluster_of("an address of the dead", 2).await else { return };
    cluster.nodes.iter_mut().for_each(Node::kill);
    let stranger = Node::start();
    let database = cluster.database.as_ref().expect("a database");
    let moved = format!("UPDATE node SET mesh_address = '{}'", stranger.address("public"));
    database.sql(&moved).await;
    let files = files(&cluster, &mesh, "n2", "n2");
    cluster.add(&files.env());
    cluster.nodes.rotate_right(1);
    eventually("the new node owns every partition", async || {
        let seen = cluster.seen_by(0).await;
        seen.nodes.iter().any(|node| node.node_id == "n2" && node.partitions == 32).then_some(())
    })
    .await;
    let failed = stranger.metric("simpul_server_handshake_failures_total{reason=\"tls\"}");
    assert!(failed > 0.0, "nobody knocked there");
    cluster.end().await;
}

/// It reaches a store that does not say whose it is, as one that only the
/// release before has used, and takes part there; no link is made, both sides say
/// why, and what people write stands all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_cluster_on_the_same_store_gets_no_link() {
    let Some(mut cluster) = Cluster::start("another cluster", 1).await else { return };
    let alice = cluster.token("alice", &[]);
    room(cluster.nodes[0].channel().await, &alice, "lobby", &[]).await;
    let writer = Writer::start(&[&cluster.nodes[0]], &alice, "lobby", "old", false).await;
    writer.more(10).await;
    let database = cluster.database.as_ref().expect("a database");
    database.sql("DELETE FROM meta WHERE key IN ('cluster_name', 'trust_domain')").await;
    cluster.add(&[("SIMPUL_CLUSTER__NAME", "another")]);
    eventually("both sides refuse the links and count it", async || {
        let refused = cluster.nodes.iter().all(|node| refused_for(node, "cluster") > 0.0);
        refused.then_some(())
    })
    .await;
    let told = eventually("the status says why", async || {
        let seen = cluster.seen_by(0).await;
        let link = seen.links.iter().find(|link| link.node_id == "n1")?;
        (link.connections == 0 && link.problem.contains("cluster")).then(|| link.problem.clone())
    })
    .await;
    assert!(told.contains("cluster another"), "{told}");
    let said = std::fs::read_to_string(cluster.nodes[0].dir().join("node.log")).expect("a log");
    assert!(said.contains("the nodes do not fit") && said.contains("cluster another"), "{said}");
    writer.more(10).await;
    let acknowledged = writer.stop().await;
    check(&log(&cluster.nodes[0], &alice, "lobby").await, &acknowledged);

    // It goes, and everything is as before.
    cluster.nodes.remove(1).kill();
    let channel = cluster.nodes[0].channel().await;
    let mut session = Session::join(channel, &alice, "lobby", From::Latest(true)).await;
    eventually("the first node owns every partition again", async || {
        let seen = cluster.seen_by(0).await;
        seen.nodes.iter().any(|node| node.node_id == "n0" && node.partitions == 32).then_some(())
    })
    .await;
    session.send("lobby", "last", "still here").await;
    session.sent().await;
    cluster.end().await;
}

/// The same of another trust domain: what the store cannot tell, the nodes do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_trust_domain_on_the_same_store_does_not_start() {
    let Some((cluster, mesh)) = cluster_of("another trust domain", 1).await else { return };
    let database = cluster.database.as_ref().expect("a database");
    database.sql("DELETE FROM meta WHERE key IN ('cluster_name', 'trust_domain')").await;
    let files = files(&cluster, &mesh, "n1", "n1");
    files.certificate(&mesh.issue("else", "node/n1@else.test"));
    let mut env = files.env();
    env.push(("SIMPUL_MESH__TRUST_DOMAIN", "else.test"));
    let said = cluster.refused("n1", "n1", &env);
    assert!(said.contains("the node n0 is alive at"), "{said}");
    assert!(said.contains("trust domain"), "{said}");
    let claims = database.number("SELECT count(*) FROM meta WHERE key = 'trust_domain'").await;
    assert_eq!(claims, 0, "the store is claimed by who was refused");
    cluster.end().await;
}
