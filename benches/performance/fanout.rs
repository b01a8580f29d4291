//! Deliveries per server CPU-second: one room, 50 subscribers, 150 bytes,
//! against nats-server with TLS. The server has one core and the clients the
//! other; the two are run in turn, pair by pair. The publisher writes batches
//! of the same size on both sides and stays at most a window ahead of the
//! slowest subscriber. Every delivery is verified: in order, nothing missing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;

use crate::process::{Node, Server, find, median};
use crate::readers::Stream;
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

/// What one server did.
struct Run {
    /// Deliveries per CPU-second of the server.
    deliveries: f64,
    /// The share of its core that it used: what is far from 1 was not saturated.
    busy: f64,
}

/// Follows the server's CPU time while messages are on their way.
struct Meter<'a> {
    server: &'a Server,
    cpu: f64,
    begun: Instant,
}

impl<'a> Meter<'a> {
    fn begin(server: &'a Server) -> Self {
        Self { server, cpu: server.cpu(), begun: Instant::now() }
    }

    fn end(self) -> Run {
        let took = self.begun.elapsed().as_secs_f64();
        let used = self.server.cpu() - self.cpu;
        Run { deliveries: (MESSAGES * SUBSCRIBERS as u64) as f64 / used, busy: used / took }
    }
}

/// Checks one delivery: the next one, whole.
fn verify(body: &[u8], next: &mut u64) {
    let at = std::str::from_utf8(&body[..12]).expect("ASCII");
    let at: u64 = at.parse().expect("a number");
    assert!(at == *next && body.len() == BYTES, "{at} came instead of {next}");
    *next += 1;
}

async fn simpul() -> Run {
    let node = Node::start(&["taskset", "-c", "0"], &[]);
    let token = node.cli(&["token", "--as", "alice", "--ttl", "1h"]);
    node.cli(&["room", "create", "bench", "--as", "alice"]);
    let target = node.target();
    let progress = progress();
    let mut tasks = Vec::new();
    for n in 0..SUBSCRIBERS {
        let Stream { writer, mut reader } = Stream::join(&target, &token, "bench").await;
        let progress = progress.clone();
        tasks.push(simpul::task::spawn("subscriber", async move {
            let (mut next, mut last) = (0, 0);
            while next < MESSAGES {
                reader
                    .messages(|seq, body| {
                        assert!(last == 0 || seq == last + 1, "a gap in the log");
                        last = seq;
                        verify(body, &mut next);
                    })
                    .await;
                progress[n].store(next, Ordering::Relaxed);
            }
            drop(writer);
        }));
    }
    let Stream { mut writer, mut reader } = Stream::join(&target, &token, "bench").await;
    // The publisher is a member as any other and reads as all do, beside its
    // writing: its acknowledgements, and messages that are not counted.
    let own = simpul::task::spawn("publisher's reader", async move {
        let mut next = 0;
        while next < MESSAGES {
            reader.messages(|_, body| verify(body, &mut next)).await;
        }
    });
    let meter = Meter::begin(&node.server);
    let mut sent = 0;
    while sent < MESSAGES {
        let mut batch = BytesMut::new();
        for _ in 0..BATCH.min(MESSAGES - sent) {
            batch.extend_from_slice(&readers::send("bench", sent, &body(sent)));
            sent += 1;
        }
        writer.write(batch.freeze()).await;
        until(&progress, sent.saturating_sub(WINDOW)).await;
    }
    until(&progress, MESSAGES).await;
    let run = meter.end();
    for task in tasks {
        task.await.expect("a subscriber that got everything");
    }
    own.await.expect("the publisher's reader");
    run
}

async fn theirs(program: &std::path::Path) -> Run {
    let node = Node::start(&[], &[]);
    let dir = tempfile::tempdir().expect("a directory");
    for file in ["server.pem", "server-key.pem"] {
        std::fs::copy(node.dir.path().join("dev").join(file), dir.path().join(file))
            .expect("copied");
    }
    let ca = node.target().ca;
    drop(node);
    let port = free_port();
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
                client.messages(|payload| verify(payload, &mut next)).await;
                progress[n].store(next, Ordering::Relaxed);
            }
        }));
    }
    let mut publisher = nats::Client::connect(port, &ca).await;
    let meter = Meter::begin(&server);
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
    let run = meter.end();
    for task in tasks {
        task.await.expect("a subscriber that got everything");
    }
    run
}

fn free_port() -> u16 {
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
        let b = theirs(&program).await;
        let ratio = a.deliveries / b.deliveries;
        println!(
            "fanout pair {}: {:.0} (core busy {:.2}) against {:.0} (core busy {:.2}): {ratio:.2}",
            round + 1,
            a.deliveries,
            a.busy,
            b.deliveries,
            b.busy,
        );
        ratios.push(ratio);
        ours.push(a);
        nats.push(b);
    }
    let middle = |runs: &[Run], of: fn(&Run) -> f64| median(runs.iter().map(of).collect());
    println!("fanout: deliveries per server CPU-second, median of {PAIRS} interleaved pairs");
    println!("| server | deliveries per CPU-second | core busy | ÷ nats-server |");
    println!("|---|---|---|---|");
    let (rate, busy) = (middle(&nats, |run| run.deliveries), middle(&nats, |run| run.busy));
    println!("| nats-server with TLS | {rate:.0} | {busy:.2} | 1 |");
    let (rate, busy) = (middle(&ours, |run| run.deliveries), middle(&ours, |run| run.busy));
    let ratio = median(ratios);
    println!("| Simpul, durable and authorized | {rate:.0} | {busy:.2} | {ratio:.2} |");
}

/// The clients' core: every thread of this process, those to come included.
pub fn pin_to_core_1() {
    let pid = std::process::id().to_string();
    let pinned = std::process::Command::new("taskset").args(["-acp", "1", &pid]).output();
    assert!(pinned.is_ok_and(|output| output.status.success()), "taskset");
}
