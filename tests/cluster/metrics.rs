//! The metrics of a cluster's node.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::cluster::Cluster;
use crate::support::not_run;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promtool_finds_nothing_to_complain_of() {
    let Some(cluster) = Cluster::start("promtool check metrics", 2).await else { return };
    let (status, text) = cluster.nodes[0].admin("/metrics");
    assert_eq!(status, 200);
    for shown in [
        "simpul_link_open 1\n",
        "simpul_link_nodes 1\n",
        "simpul_store_writable 1\n",
        "simpul_node_ready 1\n",
    ] {
        assert!(text.contains(shown), "{shown} in {text}");
    }
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    if let Ok(mut promtool) = promtool {
        let mut input = promtool.stdin.take().expect("a pipe");
        input.write_all(text.as_bytes()).expect("read");
        drop(input);
        let said = promtool.wait_with_output().expect("an end");
        let text = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
        assert!(said.status.success() && text.is_empty(), "{text}");
    } else {
        not_run("promtool check metrics on a cluster's node: it is not on PATH");
    }
    cluster.end().await;
}
