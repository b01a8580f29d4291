//! A cluster in a small world: PostgreSQL and every node on a host of its own.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;

use crate::net::Net;
use crate::postgres::Postgres;

/// Longer than anything takes; a run that gets there has failed.
pub const LONG: Duration = Duration::from_secs(90);

/// The host of the primary, of its standby, and of the first node.
pub const PRIMARY: u8 = 2;
/// The host of the standby.
pub const STANDBY: u8 = 3;
/// The host of node 0.
pub const FIRST: u8 = 11;

/// The library that steps a process's wall clock.
const CLOCK: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// Everything of one run.
#[derive(Debug)]
pub struct World {
    pub net: Net,
    pub postgres: Postgres,
    pub standby: Option<Postgres>,
    pub nodes: Vec<Node>,
    // Last: processes end before their files go.
    _dir: TempDir,
}

/// A node's process.
#[derive(Debug)]
pub struct Node {
    pub id: String,
    pub host: u8,
    dir: PathBuf,
    env: Vec<(String, String)>,
    child: Option<Child>,
}

/// How a world is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plan {
    /// Nodes.
    pub nodes: u8,
    /// Whether there is a synchronous standby.
    pub standby: bool,
    /// Whether wall clocks can be stepped.
    pub clocks: bool,
    /// Whether hosts are loopback addresses, which cannot be cut.
    pub loopback: bool,
    /// Further nodes, the last ones, that are made and not started.
    pub spare: u8,
    /// Set on every node.
    pub env: &'static [(&'static str, &'static str)],
}

impl World {
    /// Makes hosts, database and nodes, and starts them.
    pub fn start(plan: Plan) -> World {
        let open = std::fs::Permissions::from_mode(0o755);
        let dir = tempfile::Builder::new().permissions(open).tempdir().expect("a folder");
        let mut net = if plan.loopback { Net::loopback() } else { Net::new() };
        net.add(PRIMARY);
        let postgres = Postgres::primary(&net, PRIMARY, dir.path());
        postgres.sql("CREATE DATABASE simpul");
        let standby = plan.standby.then(|| {
            net.add(STANDBY);
            postgres.standby(&net, STANDBY, dir.path())
        });
        let urls: Vec<String> = [Some(&postgres), standby.as_ref()]
            .into_iter()
            .flatten()
            .map(|pg| pg.url("simpul"))
            .collect();
        let mut nodes = Vec::new();
        for index in 0..plan.nodes + plan.spare {
            let host = FIRST + index;
            net.add(host);
            let mut node = Node::new(&net, dir.path(), index, &urls.join(","));
            plan.env.iter().for_each(|(key, value)| node.set_env(key, value));
            if plan.clocks {
                node.fake_clock();
            }
            nodes.push(node);
        }
        let mut world = World { net, postgres, standby, nodes, _dir: dir };
        // The first start makes an authority that every node then believes.
        world.start_node(0);
        world.wait_ready(0);
        share_authority(&world.nodes);
        for index in 1..usize::from(plan.nodes) {
            world.start_node(index);
        }
        for index in 1..usize::from(plan.nodes) {
            world.wait_ready(index);
        }
        world
    }

    /// Starts a node without waiting for it.
    pub fn start_node(&mut self, index: usize) {
        let World { net, nodes, .. } = self;
        nodes[index].start(net);
    }

    /// Waits until a node is ready.
    pub fn wait_ready(&mut self, index: usize) {
        let begun = Instant::now();
        let node = &mut self.nodes[index];
        while node.info().is_none() {
            let ended = node.child.as_mut().and_then(|child| child.try_wait().expect("a child"));
            assert!(
                ended.is_none() && begun.elapsed() < LONG,
                "{} did not become ready ({ended:?}):\n{}",
                node.id,
                node.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Where clients find the nodes.
    pub fn servers(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("{}:7443", self.net.address(node.host))).collect()
    }

    /// What a client believes.
    pub fn ca(&self) -> PathBuf {
        self.nodes[0].dir.join("dev/ca.pem")
    }

    /// A token for a user, good for the whole run.
    pub fn token(&self, who: &str) -> String {
        let output = self.cli(0, &["token", "--as", who, "--ttl", "2h", "--role", "operator"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
    }

    /// Runs the command line as from outside, with a node's data directory.
    pub fn cli(&self, index: usize, args: &[&str]) -> Output {
        let node = &self.nodes[index];
        let mut command = Command::new(env!("CARGO_BIN_EXE_simpul"));
        command.env_clear().env("HOME", &node.dir).env("SIMPUL_DATA_DIR", &node.dir);
        command.args(args).stdin(Stdio::null()).output().expect("the binary starts")
    }
}

/// Gives every node the authority that the first makes.
fn share_authority(nodes: &[Node]) {
    let Some((first, others)) = nodes.split_first() else { return };
    for node in others {
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(first.dir.join("dev")).arg(node.dir.join("dev"));
        assert!(copy.status().expect("cp").success());
    }
}

impl Node {
    fn new(net: &Net, dir: &Path, index: u8, urls: &str) -> Node {
        let id = format!("n{}", index + 1);
        let host = FIRST + index;
        let dir = dir.join(&id);
        std::fs::create_dir_all(&dir).expect("a folder");
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).expect("chmod");
        let address = net.address(host);
        let env = [
            ("SIMPUL_NODE__ID", id.clone()),
            ("SIMPUL_NODE__ZONE", format!("z{}", index + 1)),
            ("SIMPUL_STORE__URL", urls.to_owned()),
            ("SIMPUL_LISTEN__PUBLIC", format!("{address}:7443")),
            ("SIMPUL_LISTEN__MESH", format!("{address}:7444")),
            ("SIMPUL_LISTEN__ADMIN", format!("{address}:7445")),
            ("SIMPUL_SHUTDOWN__GRACE", "10s".to_owned()),
            ("SIMPUL_TELEMETRY__LOG_FORMAT", "json".to_owned()),
        ];
        let env = env.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Node { id, host, dir, env, child: None }
    }

    /// Steps of its wall clock come from a file from now on.
    fn fake_clock(&mut self) {
        let file = self.dir.join("clock");
        std::fs::write(&file, "+0").expect("written");
        for (key, value) in [
            ("LD_PRELOAD", CLOCK),
            ("FAKETIME_TIMESTAMP_FILE", file.to_str().expect("UTF-8")),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ] {
            self.env.push((key.to_owned(), value.to_owned()));
        }
    }

    /// Steps its wall clock, in seconds.
    pub fn step_clock(&self, seconds: i64) {
        std::fs::write(self.dir.join("clock"), format!("{seconds:+}")).expect("written");
    }

    /// Sets a variable from the next start on.
    pub fn set_env(&mut self, key: &str, value: &str) {
        self.env.push((key.to_owned(), value.to_owned()));
    }

    fn start(&mut self, net: &Net) {
        let _ = std::fs::remove_file(self.dir.join("node.json"));
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("node.log"))
            .expect("a log");
        let mut command = net.command(self.host, "env");
        command.arg("-i").args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
        command.arg(format!("HOME={0}", self.dir.display()));
        command.arg(format!("SIMPUL_DATA_DIR={0}", self.dir.display()));
        command.args(self.env.iter().map(|(key, value)| format!("{key}={value}")));
        command.arg(env!("CARGO_BIN_EXE_simpul")).current_dir(&self.dir);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().expect("the node starts"));
    }

    /// What it says of itself once it is ready.
    pub fn info(&self) -> Option<Value> {
        serde_json::from_str(&std::fs::read_to_string(self.dir.join("node.json")).ok()?).ok()
    }

    /// Its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("node.log")).unwrap_or_default()
    }

    /// Sends a signal to it; a process that is gone gets none.
    pub fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            let _ = rustix::process::kill_process(Pid::from_child(child), signal);
        }
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and waits for its end; the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        let begun = Instant::now();
        let mut child = self.child.take()?;
        loop {
            if let Some(status) = child.try_wait().expect("a child") {
                return status.code();
            }
            assert!(begun.elapsed() < LONG, "{} does not stop", self.id);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.signal(Signal::CONT);
        self.kill();
    }
}

/// Whether wall clocks can be stepped here.
pub fn has_clock() -> bool {
    Path::new(CLOCK).exists()
}

impl World {
    /// Keeps the nodes' logs of a run that broke the promise.
    pub fn keep(&self, seed: u64) {
        let kept = std::env::temp_dir().join(format!("simpul-chaos-{seed}"));
        let _ = std::fs::create_dir_all(&kept);
        for node in &self.nodes {
            let _ = std::fs::copy(node.dir.join("node.log"), kept.join(format!("{}.log", node.id)));
        }
        println!("logs are in {}", kept.display());
    }
}
