//! Deliveries per CPU-second: one room with readers on three nodes, all of whose
//! CPU time counts, against the same room and readers on one node on the same
//! database server. Interleaved pairs. Nodes have one core, the clients the
//! other; every delivery is verified, in order and whole.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;

use crate::figures::Figure;
use crate::process::{Target, cpu_of, median};
use crate::readers::{self, Stream};
use crate::stage::Stage;
use crate::world::LONG;

const READERS: usize = 48;
const BYTES: usize = 150;
const BATCH: u64 = 64;
const WINDOW: u64 = 2_048;
const MESSAGES: u64 = 40_000;
const PAIRS: usize = 5;

/// The node that is alone, on a database of its own.
const ALONE: usize = 3;

/// The number at the front, then filling.
fn body(number: u64) -> String {
    format!("{number:012}{}", "x".repeat(BYTES - 12))
}

/// Checks one delivery: the next one, whole.
fn verify(body: &[u8], next: &mut u64) {
    let at = std::str::from_utf8(&body[..12]).expect("ASCII");
    let at: u64 = at.parse().expect("a number");
    assert!(at == *next && body.len() == BYTES, "{at} came instead of {next}");
    *next += 1;
}

/// How far each reader is.
type Progress = Arc<Vec<AtomicU64>>;

async fn until(progress: &Progress, at_least: u64) {
    let begun = Instant::now();
    let slowest = || progress.iter().map(|at| at.load(Ordering::Relaxed)).min().unwrap_or(0);
    while slowest() < at_least {
        assert!(begun.elapsed() < LONG, "stuck at {}", slowest());
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

/// Deliveries per CPU-second of the processes, and how many of their cores'
/// seconds they used a second.
async fn measure(targets: &[Target], pids: &[u32], token: &str, room: &str) -> (f64, f64) {
    let progress: Progress = Arc::new((0..READERS).map(|_| AtomicU64::new(0)).collect());
    let mut tasks = Vec::new();
    for number in 0..READERS {
        let target = &targets[number % targets.len()];
        let Stream { writer, mut reader } = Stream::join(target, token, room).await;
        let progress = progress.clone();
        tasks.push(simpul::task::spawn("reader", async move {
            let mut next = 0;
            while next < MESSAGES {
                reader.messages(|_, body| verify(body, &mut next)).await;
                progress[number].store(next, Ordering::Relaxed);
            }
            drop(writer);
        }));
    }
    let Stream { mut writer, mut reader } = Stream::join(&targets[0], token, room).await;
    tasks.push(simpul::task::spawn("publisher's reader", async move {
        let mut next = 0;
        while next < MESSAGES {
            reader.messages(|_, body| verify(body, &mut next)).await;
        }
    }));
    let cpu = || pids.iter().map(|pid| cpu_of(*pid)).sum::<f64>();
    let (before, begun) = (cpu(), Instant::now());
    let mut sent = 0;
    while sent < MESSAGES {
        let mut batch = BytesMut::new();
        for _ in 0..BATCH.min(MESSAGES - sent) {
            batch.extend_from_slice(&readers::send(room, sent, &body(sent)));
            sent += 1;
        }
        writer.write(batch.freeze()).await;
        until(&progress, sent.saturating_sub(WINDOW)).await;
    }
    until(&progress, MESSAGES).await;
    let (used, took) = (cpu() - before, begun.elapsed().as_secs_f64());
    for task in tasks {
        task.await.expect("a reader that got everything");
    }
    ((MESSAGES * READERS as u64) as f64 / used, used / took)
}

pub async fn run() -> Vec<Figure> {
    let mut stage = Stage::start(3, 1);
    stage.world.postgres.sql("CREATE DATABASE alone");
    let url = stage.world.postgres.url("alone");
    stage.world.nodes[ALONE].set_env("SIMPUL_STORE__URL", &url);
    stage.world.start_node(ALONE);
    stage.world.wait_ready(ALONE);
    stage.settled(0, 3).await;
    stage.settled(ALONE, 1).await;
    // Of a node that neither writes to it nor has more readers than the others.
    let rooms = stage.rooms("fanout", Some(1), PAIRS + 1).await;
    for room in &rooms {
        stage.room_at(ALONE, room).await;
    }
    let pids: Vec<u32> = (0..4).map(|node| stage.pid(node)).collect();
    pids.iter().for_each(|pid| pin(*pid, "0"));
    pin(std::process::id(), "1");
    let targets: Vec<Target> = (0..4).map(|node| stage.target(node)).collect();
    let (mut one, mut three, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    // The first pair warms up and is not counted.
    for (pair, room) in rooms.iter().enumerate() {
        let (many, busy) = measure(&targets[..3], &pids[..3], &stage.token, room).await;
        let (alone, idle) = measure(&targets[3..], &pids[3..], &stage.token, room).await;
        let ratio = many / alone;
        println!(
            "fanout pair {pair}: {many:.0} (busy {busy:.2}) with three nodes, {alone:.0} \
             (busy {idle:.2}) with one: {ratio:.2}"
        );
        if pair > 0 {
            three.push(many);
            one.push(alone);
            ratios.push(ratio);
        }
    }
    pin(std::process::id(), "0,1");
    println!("fanout: {:.0} with three nodes, {:.0} with one", median(three), median(one));
    let name = "deliveries per CPU-second, 3 nodes, all of their CPU ÷ one node";
    vec![Figure::new(name, format!("{:.2}", median(ratios)), "0.5", "0.8")]
}

/// Every thread of a process, those to come included.
fn pin(pid: u32, cores: &str) {
    let pinned = Command::new("taskset").args(["-acp", cores, &pid.to_string()]).output();
    assert!(pinned.is_ok_and(|output| output.status.success()), "taskset");
}
