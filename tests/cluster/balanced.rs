//! Three nodes behind HAProxy, as deploy/haproxy has it: TLS goes through, and a
//! node that drains is left without an error.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::support::{LONG, Node, not_run};

/// A running balancer. Killed when dropped.
struct Balancer {
    child: Child,
    address: String,
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn haproxy(nodes: &[Node], bind: &str, more: &[&str]) -> Command {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/haproxy/haproxy.cfg");
    let mut command = Command::new("haproxy");
    command.args(["-f", file]).args(more).env("PROXY_BIND", bind).stdin(Stdio::null());
    for (name, node) in ["A", "B", "C"].into_iter().zip(nodes) {
        command
            .env(format!("PROXY_{name}"), node.address("public"))
            .env(format!("PROXY_{name}_ADMIN"), node.address("admin"));
    }
    command
}

/// Starts it on a free port: it says itself whether the port was free.
fn start(nodes: &[Node]) -> Balancer {
    for _ in 0..8 {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("an address").to_string();
        drop(free);
        let mut command = haproxy(nodes, &address, &["-db"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("haproxy");
        let mut balancer = Balancer { child, address };
        let begun = Instant::now();
        while begun.elapsed() < LONG {
            if std::net::TcpStream::connect(&balancer.address).is_ok() {
                return balancer;
            }
            if balancer.child.try_wait().expect("a child").is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    panic!("HAProxy does not start");
}

/// Asks through the balancer which node answers and whom it takes the caller
/// for; a new connection each time. It must succeed.
fn ask(node: &Node, balancer: &Balancer, more: &[&str]) -> (String, Value) {
    let ca = node.dir().join("dev/ca.pem");
    let ca = ca.to_str().expect("UTF-8");
    let args = ["whoami", "--server", &balancer.address, "--server-name", "localhost", "--ca", ca];
    let text = node.ok(&[&args, more, &["--output", "json"]].concat());
    let answer: Value = serde_json::from_str(&text).expect("one object");
    (answer["node_id"].as_str().expect("a node").to_owned(), answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_go_through_haproxy_and_a_drained_node_is_left_without_an_error() {
    let there = Command::new("haproxy").arg("-v").output().is_ok_and(|out| out.status.success());
    if !there {
        return not_run("nodes behind HAProxy: haproxy is not installed");
    }
    let dirs = tempfile::tempdir().expect("a directory");
    let mut cluster = Cluster { database: None, nodes: Vec::new(), dirs };
    for _ in 0..3 {
        cluster.add(&[("SIMPUL_CLUSTER__SHARED_FILE", "true"), ("SIMPUL_SHUTDOWN__DELAY", "4s")]);
    }
    cluster.spread().await;
    let checked = haproxy(&cluster.nodes, "127.0.0.1:1", &["-c"]).output().expect("haproxy");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));

    let balancer = start(&cluster.nodes);
    let token = cluster.token("alice", &[]);
    let caller = ["--token", &token];
    let mut seen = BTreeSet::new();
    let begun = Instant::now();
    while seen.len() < 3 {
        seen.insert(ask(&cluster.nodes[0], &balancer, &caller).0);
        assert!(begun.elapsed() < LONG, "only {seen:?} answer");
    }
    // A client's certificate reaches the node.
    cluster.nodes[0].certificate("carol");
    let file = |end: &str| cluster.nodes[0].dir().join(format!("dev/carol{end}.pem"));
    let (chain, key) = (file(""), file("-key"));
    let shown = ["--cert", chain.to_str().expect("UTF-8"), "--key", key.to_str().expect("UTF-8")];
    let (_, answer) = ask(&cluster.nodes[0], &balancer, &shown);
    assert!(answer.to_string().contains("user/carol@dev.simpul"), "{answer}");

    cluster.nodes[1].signal(Signal::TERM);
    let mut calls = 0;
    let begun = Instant::now();
    // `node.json` is gone when the drain begins; the address stays known here.
    while begun.elapsed() < LONG && cluster.nodes[1].running() {
        ask(&cluster.nodes[0], &balancer, &caller);
        calls += 1;
    }
    assert_eq!(cluster.nodes[1].wait(LONG), Some(0));
    assert!(calls > 3, "{calls} calls while it drained");
    for _ in 0..6 {
        assert_ne!(ask(&cluster.nodes[0], &balancer, &caller).0, "n1");
    }
    cluster.end().await;
}
