//! Resident memory of the server per idle subscriber: each with a connection of
//! its own, joined to one room and not yet told anything, against a NATS
//! connection with one subscription.

use crate::process::{Node, Server, find};
use crate::readers::Stream;
use crate::{fanout, nats};

const IDLE: usize = 500;

impl Server {
    /// Resident bytes.
    fn resident(&self) -> f64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib * 1024.0
    }
}

async fn simpul() -> f64 {
    let node = Node::start(&[], &[]);
    let token = node.cli(&["token", "--as", "alice", "--ttl", "1h"]);
    node.cli(&["room", "create", "bench", "--as", "alice"]);
    let target = node.target();
    // The first one brings the room and what is made once.
    let mut idle = vec![Stream::join(&target, &token, "bench").await];
    let before = node.server.resident();
    for _ in 0..IDLE {
        idle.push(Stream::join(&target, &token, "bench").await);
    }
    let grown = node.server.resident() - before;
    drop(idle);
    grown / IDLE as f64
}

async fn theirs(program: &std::path::Path) -> f64 {
    let node = Node::start(&[], &[]);
    let ca = node.target().ca;
    let port = fanout::free_port();
    let server =
        nats::start(program, &["taskset", "-c", "0,1"], &node.dir.path().join("dev"), port);
    let mut idle = Vec::new();
    let mut before = 0.0;
    for n in 0..=IDLE {
        let mut client = nats::Client::connect(port, &ca).await;
        client.subscribe("bench").await;
        idle.push(client);
        if n == 0 {
            before = server.resident();
        }
    }
    let grown = server.resident() - before;
    drop(idle);
    grown / IDLE as f64
}

pub async fn run() {
    let ours = simpul().await;
    println!("memory: resident KiB per idle subscriber, {IDLE} of them");
    println!("| server | KiB | ÷ nats-server |");
    println!("|---|---|---|");
    let kib = |bytes: f64| bytes / 1024.0;
    match find("nats-server") {
        Some(program) => {
            let nats = theirs(&program).await;
            println!("| nats-server with TLS | {:.1} | 1 |", kib(nats));
            println!("| Simpul | {:.1} | {:.2} |", kib(ours), ours / nats);
        }
        None => println!("| Simpul | {:.1} | nats-server is not on the PATH |", kib(ours)),
    }
}
