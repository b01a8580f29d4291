//! Nodes that stop without ending: nothing is closed, nothing is refused.

use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use simpul::proto::chat::v1::join::From;

use crate::cluster::Cluster;
use crate::server::{Server, Wanted};
use crate::support::{LONG, Node, command, eventually};
use crate::talk::{Session, room};

/// Five times what it takes on a machine that has nothing else to do. The system
/// itself gives such a connection up after a quarter of an hour.
const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_a_frozen_node_is_elsewhere_soon_and_commands_do_not_wait_for_it() {
    let Some(cluster) = Cluster::start("a frozen node", 3).await else { return };
    let first = &cluster.nodes[0];
    first.ok(&["room", "create", "lobby", "--as", "alice"]);
    let list: Vec<String> = cluster.nodes.iter().map(|node| node.address("public")).collect();
    let list = list.join(",");
    let ca = first.info["ca_file"].as_str().expect("a file");
    let at = ["--as", "alice", "--server", &list, "--ca", ca];
    let mut reader = command(first.dir())
        .args([&["chat", "lobby", "--follow"][..], &at].concat())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let sessions = |node: usize| cluster.nodes[node].metric("simpul_chat_sessions");
    let frozen =
        eventually("it reads somewhere", async || (0..3).find(|node| sessions(*node) == 1.0)).await;
    let others: Vec<usize> = (0..3).filter(|node| *node != frozen).collect();
    cluster.nodes[frozen].signal(Signal::STOP);
    let begun = Instant::now();
    eventually("it reads elsewhere", async || others.iter().find(|node| sessions(**node) == 1.0))
        .await;
    let took = begun.elapsed();
    // Each begins at a random one of the list.
    let mut longest = Duration::ZERO;
    for _ in 0..6 {
        let begun = Instant::now();
        let args = [&["whoami"][..], &at].concat();
        let done = command(cluster.nodes[others[0]].dir()).args(args).output().expect("it ran");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        longest = longest.max(begun.elapsed());
    }
    cluster.nodes[frozen].signal(Signal::CONT);
    reader.kill().expect("it runs");
    reader.wait().expect("a child");
    assert!(took < SOON, "the reader stayed for {took:?}");
    assert!(longest < SOON, "a command took {longest:?}");
    cluster.end().await;
}

/// What comes after the streams waits for a store that is away, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_ends_within_its_grace_period_while_its_database_is_frozen() {
    let test = "a stop without a database";
    let Some(server) = Server::start(test, Wanted::default()).await else { return };
    let url = server.url("postgres", "postgres");
    let env = [
        ("SIMPUL_STORE__URL", &url[..]),
        ("SIMPUL_NODE__ID", "n0"),
        ("SIMPUL_SHUTDOWN__DELAY", "0s"),
        ("SIMPUL_SHUTDOWN__GRACE", "4s"),
    ];
    let dir = tempfile::tempdir().expect("a directory");
    let mut node = Node::start_in(dir.path(), &env);
    node.ok(&["room", "create", "lobby", "--as", "alice"]);
    server.freeze();
    let begun = Instant::now();
    node.signal(Signal::TERM);
    assert_eq!(node.wait(LONG), Some(0));
    let took = begun.elapsed();
    // What waits for the store at the very end took 2.8 s more before it was bounded.
    assert!(took < Duration::from_millis(6_500), "it ended after {took:?}");
}

/// Whoever takes over from it next must find its sessions by their name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_joins_again_holds_fences_in_its_new_name() {
    let Some(cluster) = Cluster::start("a thawed node", 2).await else { return };
    let alice = cluster.token("alice", &[]);
    let database = cluster.database.as_ref().expect("a database");
    let incarnation = async || {
        let seen = cluster.seen_by(0).await;
        let row = seen.nodes.into_iter().find(|row| row.node_id == "n1").expect("its row");
        row.incarnation
    };
    // Appends of its own begin sessions under its first name.
    let mut rooms = Vec::new();
    for at in 0.. {
        let name = format!("room-{at}");
        if cluster.owner_of(&name).await == 1 {
            room(cluster.nodes[1].channel().await, &alice, &name, &[]).await;
            rooms.push(name);
        }
        if rooms.len() == 2 {
            break;
        }
    }
    let first = incarnation().await;
    let fences = async |incarnation: &str| {
        let asked = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
             AND starts_with(application_name, 'simpul/{incarnation}/')"
        );
        database.number(&asked).await
    };
    assert!(fences(&first).await > 0);

    cluster.nodes[1].signal(Signal::STOP);
    eventually("the other one owns everything", async || {
        let seen = cluster.seen_by(0).await;
        seen.nodes.iter().any(|node| node.node_id == "n0" && node.partitions == 32).then_some(())
    })
    .await;
    cluster.nodes[1].signal(Signal::CONT);
    cluster.spread().await;
    let second = incarnation().await;
    assert_ne!(first, second, "it joined as another one");
    for name in &rooms {
        let channel = cluster.nodes[1].channel().await;
        let mut session = Session::join(channel, &alice, name, From::Latest(true)).await;
        session.send(name, "after", "still here").await;
        session.sent().await;
    }
    eventually("it appends in its new name alone", async || {
        let mut session = {
            let channel = cluster.nodes[1].channel().await;
            Session::join(channel, &alice, &rooms[0], From::Latest(true)).await
        };
        session.send(&rooms[0], &format!("m{:x}", rand::random::<u64>()), "again").await;
        session.sent().await;
        (fences(&second).await > 0 && fences(&first).await == 0).then_some(())
    })
    .await;
    cluster.end().await;
}
