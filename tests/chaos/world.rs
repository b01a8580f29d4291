//! A cluster in a small world: PostgreSQL and every node on a host of its own.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::certificates::Certificates;
use crate::disk::{self, Disk};
use crate::net::Net;
use crate::node::Node;
use crate::postgres::Postgres;

/// Longer than anything takes; a run that gets there has failed.
pub const LONG: Duration = Duration::from_secs(90);

/// The host of the primary, of its standby, and of the first node.
pub const PRIMARY: u8 = 2;
/// The host of the standby.
pub const STANDBY: u8 = 3;
/// The host of node 0.
pub const FIRST: u8 = 11;

/// The host of a node.
pub fn host(node: usize) -> u8 {
    FIRST + u8::try_from(node).expect("a node")
}

/// Everything of one run.
#[derive(Debug)]
pub struct World {
    pub net: Net,
    pub postgres: Postgres,
    pub standby: Option<Postgres>,
    pub nodes: Vec<Node>,
    pub certificates: Option<Certificates>,
    pub disk: Option<Disk>,
    // Last: processes end before their files go.
    _dir: TempDir,
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
    /// Whether the primary's disk is small.
    pub disk: bool,
    /// Whether the nodes' certificates can be changed; else they are those that
    /// the nodes make for themselves.
    pub certificates: bool,
    /// Whether nodes can be held at fault points, each by files in its `faults`.
    pub holds: bool,
    /// Set on every node.
    pub env: &'static [(&'static str, &'static str)],
}

impl Plan {
    /// What its nodes have of it.
    fn equip(&self, node: &mut Node) {
        self.env.iter().for_each(|(key, value)| node.set_env(key, value));
        if self.clocks {
            node.fake_clock();
        }
        if self.holds {
            node.can_be_held();
        }
    }
}

impl World {
    /// Makes hosts, database and nodes, and starts them.
    pub fn start(plan: Plan) -> World {
        let open = std::fs::Permissions::from_mode(0o755);
        let dir = tempfile::Builder::new().permissions(open).tempdir().expect("a folder");
        let mut net = if plan.loopback { Net::loopback() } else { Net::new() };
        net.add(PRIMARY);
        let disk = plan.disk.then(|| Disk::mount(&Postgres::folder(PRIMARY, dir.path())));
        let settings: &[&str] = if plan.disk { &disk::SETTINGS } else { &[] };
        let postgres = Postgres::primary(&net, PRIMARY, dir.path(), settings);
        postgres.sql("CREATE DATABASE simpul");
        let standby = plan.standby.then(|| {
            net.add(STANDBY);
            postgres.standby(&net, STANDBY, dir.path())
        });
        let servers = [Some(&postgres), standby.as_ref()].into_iter().flatten();
        let urls: Vec<String> = servers.map(|pg| pg.url("simpul")).collect();
        let mut certificates = plan.certificates.then(|| Certificates::new(dir.path()));
        let mut nodes = Vec::new();
        for index in 0..plan.nodes + plan.spare {
            net.add(FIRST + index);
            let mut node = Node::new(&net, dir.path(), index, &urls.join(","));
            plan.equip(&mut node);
            if let Some(certificates) = &mut certificates {
                certificates.equip(&mut node);
            }
            nodes.push(node);
        }
        let mut world = World { net, postgres, standby, nodes, certificates, disk, _dir: dir };
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
        self.nodes[index].wait_ready();
    }

    /// Where clients find the nodes.
    pub fn servers(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("{}:7443", self.net.address(node.host))).collect()
    }

    /// What a client believes.
    pub fn ca(&self) -> PathBuf {
        match &self.certificates {
            Some(certificates) => certificates.believed(),
            None => self.nodes[0].dir().join("dev/ca.pem"),
        }
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
        command.env_clear().env("HOME", node.dir()).env("SIMPUL_DATA_DIR", node.dir());
        command.args(args).stdin(Stdio::null()).output().expect("the binary starts")
    }
}

/// Gives every node the authority that the first makes.
fn share_authority(nodes: &[Node]) {
    let Some((first, others)) = nodes.split_first() else { return };
    for node in others {
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(first.dir().join("dev")).arg(node.dir().join("dev"));
        assert!(copy.status().expect("cp").success());
    }
}

impl World {
    /// Keeps the logs of a run under a name.
    pub fn keep(&self, name: &str) {
        let kept = std::env::temp_dir().join(format!("simpul-chaos-{name}"));
        let _ = std::fs::create_dir_all(&kept);
        for node in &self.nodes {
            let _ = std::fs::write(kept.join(format!("{}.log", node.id)), node.log());
        }
        let _ = std::fs::write(kept.join("postgres.log"), self.postgres.log());
        println!("logs are in {}", kept.display());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep(&format!("failed-{}", std::process::id()));
        }
    }
}
