//! `simpul cluster local`, as whoever tries it for the first time meets it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

use crate::support::{LONG, command};

/// The command, and what it says.
struct Local {
    process: Child,
    lines: Receiver<Value>,
    /// Everything so far.
    said: Vec<Value>,
}

/// What a line is told by.
type Wanted = Box<dyn Fn(&Value) -> bool>;

impl Local {
    fn start(dir: &Path) -> Self {
        let mut process = command(dir)
            .args(["cluster", "local", "--nodes", "3", "--output", "json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stdout = BufReader::new(process.stdout.take().expect("a pipe"));
        let (tell, lines) = sync_channel(1024);
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or_else(|_| panic!("JSON: {line}"));
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        Self { process, lines, said: Vec::new() }
    }

    /// Waits until each of these has been said, in whatever order.
    fn hear(&mut self, what: &str, mut wanted: Vec<Wanted>) {
        let until = Instant::now() + LONG;
        while !wanted.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.unwrap_or_else(|_| panic!("never: {what}: {:#?}", self.said));
            wanted.retain(|is_it| !is_it(&line));
            self.said.push(line);
        }
    }

    /// Waits until it has ended; its exit code.
    fn end(&mut self, signal: Signal) -> Option<i32> {
        kill_process(Pid::from_child(&self.process), signal).expect("it runs");
        let until = Instant::now() + LONG;
        // Standard output ends with the process.
        while let Ok(line) =
            self.lines.recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            self.said.push(line);
        }
        self.process.wait().expect("a child").code()
    }

    fn of(&self, kind: &str) -> Vec<&Value> {
        self.said.iter().filter(|line| line["type"] == kind).collect()
    }

    /// Whatever was said, once and in order.
    fn check(&self) {
        for kind in ["out_of_order", "something_lost", "refused"] {
            assert!(self.of(kind).is_empty(), "{:#?}", self.of(kind));
        }
        let mut seqs: Vec<u64> = self.of("said").iter().filter_map(|s| s["seq"].as_u64()).collect();
        seqs.sort_unstable();
        let first = seqs.first().copied().expect("something was said");
        let whole: Vec<u64> = (first..).take(seqs.len()).collect();
        assert_eq!(seqs, whole, "each message once, none left out");
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // It ends its nodes; a test that has failed leaves none behind.
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        let _ = self.process.wait();
    }
}

fn kind(kind: &'static str) -> Box<dyn Fn(&Value) -> bool> {
    Box::new(move |line| line["type"] == kind)
}

fn of_node(kind: &'static str, node: &'static str) -> Box<dyn Fn(&Value) -> bool> {
    Box::new(move |line| line["type"] == kind && line["node"] == node)
}

fn pid(dir: &Path, node: &str) -> Pid {
    let file = dir.join("local").join(node).join("node.json");
    let text = std::fs::read_to_string(file).expect("a node");
    let info: Value = serde_json::from_str(&text).expect("JSON");
    let pid = info["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    pid.and_then(Pid::from_raw).expect("a process")
}

fn run(dir: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = command(dir).args(args).stdin(Stdio::null()).output().expect("the binary starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn three_nodes_on_this_machine_lose_nothing_whoever_is_killed() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let mut local = Local::start(dir);
    local.hear("a conversation", vec![kind("said"), kind("said"), kind("said")]);

    let (code, why) = run(dir, &["cluster", "local"]);
    assert!(code == Some(69) && why.contains("runs already"), "{code:?} {why}");
    let node = dir.join("local/n2").display().to_string();
    let asked = ["cluster", "status", "--as", "alice", "--role", "operator", "--data-dir", &node];
    assert_eq!(run(dir, &asked).0, Some(0));

    for node in ["n1", "n2", "n3"] {
        kill_process(pid(dir, node), Signal::KILL).expect("it runs");
        let again = [of_node("node_ended", node), of_node("node_ready", node)];
        local.hear(node, again.into_iter().chain([kind("nothing_lost"), kind("said")]).collect());
    }
    for node in ["n1", "n3"] {
        kill_process(pid(dir, node), Signal::KILL).expect("it runs");
    }
    let again = [of_node("node_ready", "n1"), of_node("node_ready", "n3")];
    let goes_on = again.into_iter().chain([kind("nothing_lost"), kind("said")]).collect();
    local.hear("two of three", goes_on);

    let nodes = ["n1", "n2", "n3"].map(|node| pid(dir, node));
    let asked = Instant::now();
    assert_eq!(local.end(Signal::INT), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(30), "within the nodes' grace");
    for node in nodes {
        assert!(test_kill_process(node).is_err(), "a node outlives the command");
    }
    local.check();

    // The same files again.
    let last = local.of("said").iter().filter_map(|said| said["seq"].as_u64()).max();
    let mut local = Local::start(dir);
    local.hear("a conversation, again", vec![kind("said")]);
    assert!(local.of("said")[0]["seq"].as_u64() > last, "the room goes on where it was");
    assert_eq!(local.end(Signal::TERM), Some(0));
    local.check();
}

#[test]
fn what_keeps_the_local_cluster_from_starting_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    std::fs::write(&file, "x").expect("written");
    let file = file.display().to_string();
    let (code, why) = run(dir.path(), &["cluster", "local", "--data-dir", &file]);
    assert!(code == Some(64) && why.contains("file"), "{code:?} {why}");
    let (code, why) = run(dir.path(), &["cluster", "local", "--set", "chat.partitions=many"]);
    assert!(code == Some(64) && why.contains("chat.partitions"), "{code:?} {why}");
    std::fs::write(dir.path().join("local/shared.db"), [7; 8192]).expect("written");
    let (code, why) = run(dir.path(), &["cluster", "local"]);
    assert!(code == Some(64) && why.contains("damaged"), "{code:?} {why}");
}

/// Nobody is left to end them: they are told by the system.
#[test]
fn the_nodes_end_when_the_command_is_killed() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let mut local = Local::start(dir);
    let ready = ["n1", "n2", "n3"].map(|node| of_node("node_ready", node));
    local.hear("three nodes", ready.into_iter().collect());
    let nodes = ["n1", "n2", "n3"].map(|node| pid(dir, node));
    assert_eq!(local.end(Signal::KILL), None);
    let until = Instant::now() + LONG;
    for node in nodes {
        while runs(node) {
            assert!(Instant::now() < until, "a node outlives the command");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Whether it is there, and not just unread by whoever inherited it.
fn runs(process: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_pid()));
    // The state stands behind the name, which is in brackets.
    stat.is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.starts_with(" Z")))
}

/// Through a pipe each look is an object in a line, and when nobody reads any more
/// the command ends without a word.
#[test]
fn a_watch_through_a_pipe_ends_with_its_reader() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let mut local = Local::start(dir);
    local.hear("a node", vec![of_node("node_ready", "n1")]);
    let node = dir.join("local/n1").display().to_string();
    let mut watch = command(dir)
        .args(["cluster", "status", "--watch", "--as", "alice", "--role", "operator"])
        .args(["--data-dir", &node])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut lines = BufReader::new(watch.stdout.take().expect("a pipe")).lines();
    for _ in 0..3 {
        let line = lines.next().expect("a line").expect("UTF-8");
        let seen: Value = serde_json::from_str(&line).expect("an object a line");
        assert!(seen["nodes"].as_array().is_some_and(|nodes| !nodes.is_empty()), "{line}");
    }
    drop(lines);
    let ended = watch.wait_with_output().expect("a child");
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    assert_eq!(ended.status.code(), Some(0));
}
