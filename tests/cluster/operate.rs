//! An operator's tools where there are several nodes.

use std::collections::BTreeSet;
use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::Value;
use simpul::proto::chat::v1::join::From;

use crate::cluster::Cluster;
use crate::support::{LONG, Node, eventually};
use crate::talk::{Session, room};

const OPERATOR: [&str; 6] = ["--as", "olga", "--role", "operator", "--output", "json"];

fn operator(node: &Node, args: &[&str]) -> Value {
    let text = node.ok(&[args, &OPERATOR].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The folders of a bundle.
fn folders(bytes: &[u8]) -> BTreeSet<String> {
    let mut archive = tar::Archive::new(GzDecoder::new(bytes));
    let entries = archive.entries().expect("an archive");
    let folder = |entry: std::io::Result<tar::Entry<'_, GzDecoder<&[u8]>>>| {
        let mut entry = entry.expect("an entry");
        let mut text = String::new();
        entry.read_to_string(&mut text).expect("UTF-8");
        assert!(!text.is_empty() || entry.path().expect("a path").ends_with("recent.jsonl"));
        let path = entry.path().expect("a path").display().to_string();
        path.split('/').next().expect("a folder").to_owned()
    };
    entries.map(folder).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_explains_and_the_owner_names_its_followers() {
    let cluster = Cluster::start_on_a_file(2).await;
    let alice = cluster.token("alice", &[]);
    room(cluster.nodes[0].channel().await, &alice, "lobby", &[]).await;
    let owner = cluster.owner_of("lobby").await;
    let other = 1 - owner;
    let channel = cluster.nodes[other].channel().await;
    let mut reader = Session::join(channel, &alice, "lobby", From::Earliest(true)).await;
    reader.send("lobby", "m-1", "hello").await;
    assert_eq!(reader.message().await.seq, 1);
    assert_eq!(reader.message().await.seq, 2);

    let owners = format!("n{owner}");
    for node in &cluster.nodes {
        let told = operator(node, &["explain", "message", "lobby", "2"]);
        assert_eq!(told["client_message_id"], "m-1");
        let place = &told["placement"];
        assert_eq!(place["owner"], owners);
        assert_eq!(place["answered_by"], node.info["node_id"]);
        assert!(place["epoch"].as_u64() > Some(0), "{place}");
    }
    let place =
        |node: &Node| operator(node, &["explain", "message", "lobby", "m-1"])["placement"].clone();
    eventually("the owner knows who follows", async || {
        let followers = place(&cluster.nodes[owner])["followers"].clone();
        (followers == serde_json::json!([format!("n{other}")])).then_some(())
    })
    .await;
    assert_eq!(place(&cluster.nodes[other])["readers_here"], 1);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_is_of_one_node_or_of_all_and_names_those_that_are_missing() {
    let mut cluster = Cluster::start_on_a_file(2).await;
    let dirs = cluster.dirs.path().to_owned();
    let file = |name: &str| {
        let path = dirs.join(name);
        path.to_str().expect("UTF-8").to_owned()
    };
    let (all, one, some) = (file("all.tar.gz"), file("one.tar.gz"), file("some.tar.gz"));
    let node = &cluster.nodes[0];
    let made = operator(node, &["debug", "bundle", "--all", "--out", &all]);
    assert_eq!((&made["nodes"], &made["missing"]), (&2.into(), &Value::Array(vec![])));
    let names: Vec<_> = folders(&std::fs::read(&all).expect("a file")).into_iter().collect();
    assert_eq!(names, ["simpul-n0", "simpul-n1"]);
    operator(node, &["debug", "bundle", "--node", "n1", "--out", &one]);
    let names: Vec<_> = folders(&std::fs::read(&one).expect("a file")).into_iter().collect();
    assert_eq!(names, ["simpul-n1"]);

    // Levels are a node's own.
    operator(node, &["debug", "log-level", "debug", "--node", "n1"]);
    assert_eq!(operator(node, &["debug", "log-level", "--node", "n1"])["directive"], "debug");
    assert_eq!(operator(node, &["debug", "log-level"])["node_id"], "n0");
    assert_ne!(operator(node, &["debug", "log-level"])["directive"], "debug");
    let nobody = node.cli(&[&["debug", "log-level", "--node", "n9"], &OPERATOR[..]].concat());
    assert_eq!(nobody.status.code(), Some(1));

    // A node that runs, and is not where it says: nothing listens on port 1.
    let shared = ("SIMPUL_CLUSTER__SHARED_FILE", "true");
    cluster.add(&[shared, ("SIMPUL_NODE__ADVERTISE_PUBLIC", "127.0.0.1:1")]);
    cluster.spread().await;
    let node = &cluster.nodes[0];
    let args = ["debug", "bundle", "--all", "--out", &some];
    let output = node.cli(&[&args, &OPERATOR[..]].concat());
    let made: Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!(output.status.code(), Some(69), "{made}");
    assert_eq!((&made["nodes"], &made["missing"]), (&2.into(), &serde_json::json!(["n2"])));
    let names: Vec<_> = folders(&std::fs::read(&some).expect("a file")).into_iter().collect();
    assert_eq!(names, ["simpul-n0", "simpul-n1"]);
    cluster.end().await;
}

/// `simpul cluster status --watch` in a terminal of its own.
struct Screen {
    child: std::process::Child,
    shown: std::sync::mpsc::Receiver<Vec<u8>>,
    all: String,
}

impl Screen {
    fn open(node: &Node) -> Self {
        let binary = env!("CARGO_BIN_EXE_simpul");
        let watch = format!("{binary} cluster status --watch --as olga --role operator");
        let mut child = std::process::Command::new("script")
            .args(["-qefc", &watch, "/dev/null"])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("SHELL", "/bin/sh")
            .env("HOME", node.dir())
            .env("SIMPUL_DATA_DIR", node.dir())
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("script starts");
        let mut stdout = child.stdout.take().expect("a pipe");
        let (tell, shown) = std::sync::mpsc::sync_channel(1024);
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(length @ 1..) = stdout.read(&mut part) {
                if tell.send(part[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, shown, all: String::new() }
    }

    /// Waits until it has shown this.
    fn shows(&mut self, what: &str) {
        let until = std::time::Instant::now() + LONG;
        while !self.all.contains(what) {
            let left = until.saturating_duration_since(std::time::Instant::now());
            let part = self.shown.recv_timeout(left);
            let part = part.unwrap_or_else(|_| panic!("never: {what}: {:?}", self.all));
            self.all.push_str(&String::from_utf8_lossy(&part));
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_screen_is_drawn_in_place_and_tells_of_a_death_and_a_return() {
    if std::process::Command::new("script").arg("--version").output().is_err() {
        return crate::support::not_run("the watch screen: script is not installed");
    }
    let mut cluster = Cluster::start_on_a_file(3).await;
    let mut screen = Screen::open(&cluster.nodes[0]);
    screen.shows("simpul: 3 live, 32 partitions");
    screen.shows("\u{1b}[32mall is well");
    cluster.nodes[2].kill();
    screen.shows("\u{1b}[1;31mn2 died and has not come back");
    screen.shows("LAST CHANGES");
    screen.shows("  n2 is dead");
    cluster.nodes[2].restart();
    screen.shows("  n2 started anew");
    // In place: it is cleared once, then only written over.
    assert_eq!(screen.all.matches("\u{1b}[2J").count(), 1, "{:?}", screen.all);
    assert!(screen.all.matches("\u{1b}[H").count() >= 3);
    drop(screen);
    cluster.end().await;
}
