//! Nodes that stop without ending: nothing is closed, nothing is refused.

use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::cluster::Cluster;
use crate::support::{command, eventually};

/// Twice what it takes on a machine that has nothing else to do.
const SOON: Duration = Duration::from_secs(8);

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
