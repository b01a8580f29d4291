//! Nodes that are stopped, or lose a task, before they are ready.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::server::{Server, Wanted};
use crate::support::{LONG, Node, command, eventually, not_run};

/// The end of what the nodes here are given: `shutdown.grace` and the second of
/// late steps.
const BOUND: Duration = Duration::from_secs(5);

/// A node that was started and is not ready. Killed when dropped.
struct Starting {
    child: Child,
    dir: TempDir,
}

impl Starting {
    /// Held at the fault point, and there when this returns.
    async fn held_at(url: &str, point: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let log = std::fs::File::create(dir.path().join("node.log")).expect("a log");
        let fault = |end: &str| dir.path().join(format!("{point}{end}"));
        std::fs::write(fault(".hold"), "").expect("a fault");
        let child = command(dir.path())
            .env("SIMPUL_DATA_DIR", dir.path().join("data"))
            .env("SIMPUL_STORE__URL", url)
            .env("SIMPUL_NODE__ID", "n0")
            .env("SIMPUL_SHUTDOWN__DELAY", "0s")
            .env("SIMPUL_SHUTDOWN__GRACE", "4s")
            .env("SIMPUL_TEST_FAULT_DIR", dir.path())
            .env("SIMPUL_LISTEN__PUBLIC", "127.0.0.1:0")
            .env("SIMPUL_LISTEN__ADMIN", "127.0.0.1:0")
            .env("SIMPUL_LISTEN__MESH", "127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let passed = fault("");
        let mut node = Self { child, dir };
        eventually("it comes to the point", async || {
            assert!(node.child.try_wait().expect("a child").is_none(), "{}", node.log());
            passed.exists().then_some(())
        })
        .await;
        node
    }

    fn fault(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn let_go(&self, point: &str) {
        std::fs::remove_file(self.fault(&format!("{point}.hold"))).expect("it was held");
    }

    fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).expect("it lives");
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.fault("node.log")).unwrap_or_default()
    }

    /// Its exit code and how long that took from now on.
    async fn end(&mut self) -> (Option<i32>, Duration) {
        let begun = Instant::now();
        let status = eventually("it ends", async || self.child.try_wait().expect("a child")).await;
        assert!(!self.dir.path().join("data/node.json").exists(), "it was ready");
        (status.code(), begun.elapsed())
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn has_faults(test: &str) -> bool {
    if !cfg!(feature = "fault") {
        not_run(&format!("{test}: it needs `--features fault`, as tests/run gives it"));
    }
    cfg!(feature = "fault")
}

/// Neither while it joins nor while its partitions settle does the store answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_not_ready_ends_in_bounded_time_while_its_database_is_frozen() {
    let test = "a stop before the node is ready";
    if !has_faults(test) {
        return;
    }
    for point in ["cluster.agreed", "cluster.joined"] {
        let Some(server) = Server::start(test, Wanted::default()).await else { return };
        let mut node = Starting::held_at(&server.url("postgres", "postgres"), point).await;
        server.freeze();
        node.let_go(point);
        node.signal(Signal::TERM);
        let (code, took) = node.end().await;
        assert_eq!(code, Some(0), "{point}: {}", node.log());
        assert!(took < BOUND, "{point}: it ended after {took:?}: {}", node.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_a_node_that_is_not_ready_at_once() {
    let test = "a second signal before the node is ready";
    if !has_faults(test) {
        return;
    }
    let Some(server) = Server::start(test, Wanted::default()).await else { return };
    let point = "cluster.joined";
    let mut node = Starting::held_at(&server.url("postgres", "postgres"), point).await;
    server.freeze();
    node.signal(Signal::INT);
    eventually("it has heard the first", async || node.log().contains("ending").then_some(()))
        .await;
    node.signal(Signal::INT);
    let (code, took) = node.end().await;
    assert_eq!(code, Some(0), "{}", node.log());
    assert!(took < Duration::from_millis(1_500), "it ended after {took:?}");
}

/// A row of its own that stands would have others wait for its death.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_stopped_before_it_is_ready_leaves_the_cluster() {
    let test = "leaving before the node is ready";
    if !has_faults(test) {
        return;
    }
    let Some(server) = Server::start(test, Wanted::default()).await else { return };
    let mut node = Starting::held_at(&server.url("postgres", "postgres"), "cluster.joined").await;
    let left = async || server.number("SELECT count(*) FROM node WHERE state = 3").await;
    assert_eq!(left().await, 0);
    node.signal(Signal::TERM);
    node.let_go("cluster.joined");
    let (code, _) = node.end().await;
    assert_eq!(code, Some(0), "{}", node.log());
    assert_eq!(left().await, 1, "{}", node.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_driver_panics_before_it_is_ready_ends() {
    let test = "a panic before the node is ready";
    if !has_faults(test) {
        return;
    }
    let Some(server) = Server::start(test, Wanted::default()).await else { return };
    let url = server.url("postgres", "postgres");
    let mut node = Starting::held_at(&url, "cluster.joined").await;
    std::fs::write(node.fault("cluster.joined.panic"), "").expect("a fault");
    node.let_go("cluster.joined");
    let (code, took) = node.end().await;
    assert_eq!(code, Some(69), "{}", node.log());
    assert!(took < LONG, "{took:?}");
    // And nothing stands in its way when it is started again.
    drop(node);
    let dir = tempfile::tempdir().expect("a directory");
    let env = [("SIMPUL_STORE__URL", url.as_str()), ("SIMPUL_NODE__ID", "n0")];
    Node::start_in(dir.path(), &env).ok(&["health"]);
}
