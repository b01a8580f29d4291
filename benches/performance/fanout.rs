//! Deliveries per server CPU-second: one room, 50 subscribers, 150 bytes,
//! against nats-server with TLS. The server has one core and the clients the
//! other; the two are run in turn, pair by pair. The publisher writes batches
//! of the same size on both sides and stays at most a window ahead of the
//! slowest subscriber. Every delivery is verified: in order, nothing missing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;

use crate::process::{Node, find, median};
use crate::{nats, readers};

const SUBSCRIBERS: usize = 50;
const BYTES: usize = 150;
const BATCH: u64 = 64;
const WINDOW: u64 = 2_048;
const MESSAGES: u64 = 60_000;
const PAIRS: usize = 5;

/// How far each subscriber is.
type Progress = Arc<Vec<AtomicU64>>;

fn progress() -> Progress {
    Arc::new((0..SUBSCRIBERS).map(|_| AtomicU64::new(0)).collect())
}

fn slowest(progress: &Progress) -> u64 {
    progress.iter().map(|at| at.load(Ordering::Relaxed)).min().unwrap_or(0)
}

async fn until(progress: &Progress, at_least: u64) {
    let begun = Instant::now();
    while slowest(progress) < at_least {
        assert!(begun.elapsed() < Duration::from_secs(120), "stuck at {}", slowest(progress));
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

/// The number at the front, then filling.
fn body(n: u64) -> String {
    format!("{n:012}{}", "x".repeat(BYTES - 12))
}

async fn simpul() -> f64 {
    let node = Node::start(&["taskset", "-c", "0"], &[]);
    let token = node.cli(&["token", "--as", "alice", "--ttl", "1h"]);
    node.cli(&["room", "create", "bench", "--as", "alice"]);
    let target = node.target();
    let progress = progress();
    let mut tasks = Vec::new();
    for n in 0..SUBSCRIBERS {
        let mut stream = readers::Stream::join(&target, &token, "bench").await;
        let progress = progress.clone();
        tasks.push(simpul::task::spawn("subscriber", async move {
            let mut next = 0;
            while next < MESSAGES {
                stream
                    .messages(|message| {
                        let at: u64 = message.body[..12].parse().expect("a number");
                        assert!(at == next && message.body.len() == BYTES, "out of order");
                        next += 1;
                    })
                    .await;
                progress[n].store(next, Ordering::Relaxed);
            }
        }));
    }
    let mut publisher = readers::Stream::join(&target, &token, "bench").await;
    let before = node.server.cpu();
    let mut sent = 0;
    while sent < MESSAGES {
        let mut batch = BytesMut::new();
        for _ in 0..BATCH.min(MESSAGES - sent) {
            batch.extend_from_slice(&readers::send("bench", sent, &body(sent)));
            sent += 1;
        }
        publisher.write(batch.freeze()).await;
        // The publisher reads too: its acknowledgements and its own messages.
        while sent.saturating_sub(slowest(&progress)) > WINDOW {
            let _ = tokio::time::timeout(Duration::from_millis(1), publisher.read(|_| {})).await;
        }
    }
    until(&progress, MESSAGES).await;
    let used = node.server.cpu() - before;
    for task in tasks {
        task.await.expect("a subscriber that got everything");
    }
    (MESSAGES * SUBSCRIBERS as u64) as f64 / used
}

async fn theirs(program: &std::path::Path, round: usize) -> f64 {
    let node = Node::start(&[], &[]);
    let dir = tempfile::tempdir().expect("a directory");
    for file in ["server.pem", "server-key.pem"] {
        std::fs::copy(node.dir.path().join("dev").join(file), dir.path().join(file))
            .expect("copied");
    }
    let ca = node.target().ca;
    drop(node);
    let port = free_port(round);
    let server = nats::start(program, &["taskset", "-c", "0"], dir.path(), port);
    let progress = progress();
    let mut tasks = Vec::new();
    for n in 0..SUBSCRIBERS {
        let mut client = nats::Client::connect(port, &ca).await;
        client.subscribe("bench").await;
        let progress = progress.clone();
        tasks.push(simpul::task::spawn("subscriber", async move {
            let mut next = 0;
            while next < MESSAGES {
                client
                    .messages(|payload| {
                        let at = std::str::from_utf8(&payload[..12]).expect("ASCII");
                        let at: u64 = at.parse().expect("a number");
                        assert!(at == next && payload.len() == BYTES, "out of order");
                        next += 1;
                    })
                    .await;
                progress[n].store(next, Ordering::Relaxed);
            }
        }));
    }
    let mut publisher = nats::Client::connect(port, &ca).await;
    let before = server.cpu();
    let mut sent = 0;
    while sent < MESSAGES {
        let mut batch = Vec::new();
        for _ in 0..BATCH.min(MESSAGES - sent) {
            batch.extend_from_slice(format!("PUB bench {BYTES}\r\n{}\r\n", body(sent)).as_bytes());
            sent += 1;
        }
        publisher.write(&batch).await;
        until(&progress, sent.saturating_sub(WINDOW)).await;
    }
    until(&progress, MESSAGES).await;
    let used = server.cpu() - before;
    for task in tasks {
        task.await.expect("a subscriber that got everything");
    }
    (MESSAGES * SUBSCRIBERS as u64) as f64 / used
}

fn free_port(_round: usize) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

pub async fn run() {
    let Some(program) = find("nats-server") else {
        println!("fanout: LEFT OUT, nats-server is not on the PATH");
        return;
    };
    pin_to_core_1();
    let (mut ours, mut nats, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..PAIRS {
        let a = simpul().await;
        let b = theirs(&program, round).await;
        println!("fanout pair {}: {:.0} against {:.0}: {:.2}", round + 1, a, b, a / b);
        ours.push(a);
        nats.push(b);
        ratios.push(a / b);
    }
    println!("fanout: deliveries per server CPU-second, median of {PAIRS} interleaved pairs");
    println!("| server | deliveries | ÷ nats-server |");
    println!("|---|---|---|");
    println!("| nats-server with TLS | {:.0} | 1 |", median(nats));
    println!("| Simpul, durable and authorized | {:.0} | {:.2} |", median(ours), median(ratios));
}

/// The clients' core: every thread of this process, those to come included.
fn pin_to_core_1() {
    let pid = std::process::id().to_string();
    let pinned = std::process::Command::new("taskset").args(["-acp", "1", &pid]).output();
    assert!(pinned.is_ok_and(|output| output.status.success()), "taskset");
}
