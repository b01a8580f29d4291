//! The metrics that a node shows, and those that docs/telemetry.md promises.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpStream;

use crate::support::{Node, eventually};

/// The names of the families; a counter's ends in `_total` in this format.
fn shown(node: &Node) -> BTreeSet<String> {
    let (status, text) = node.admin("/metrics");
    assert_eq!(status, 200);
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    families.map(|(name, _)| name.to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_of_metrics_is_what_a_node_shows() {
    let docs = include_str!("../../docs/telemetry.md");
    let written: BTreeSet<String> = docs
        .lines()
        .filter_map(|line| line.strip_prefix("| `simpul_")?.split_once('`'))
        .map(|(name, _)| format!("simpul_{name}"))
        .collect();
    let node = Node::start();
    // What has labels is shown once it has happened.
    let amount = ["--amount", "IDR 50000", "--method", "sandbox_ok"];
    node.ok(&[&["pay", "--as", "alice", "--to", "toko"], &amount[..]].concat());
    let stranger = node.cli(&["whoami", "--token", "not-a-token"]);
    assert!(!stranger.status.success(), "{stranger:?}");
    let mut plain = TcpStream::connect(node.address("public")).expect("it listens");
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
    std::fs::write(node.dir().join("dev/jwks.json"), "torn").expect("written");
    let all = eventually("everything in the table is shown", async || {
        let shown = shown(&node);
        written.is_subset(&shown).then_some(shown)
    });
    let all = all.await;
    let missing: Vec<_> = all.difference(&written).collect();
    assert!(missing.is_empty(), "not in docs/telemetry.md: {missing:?}");
}
