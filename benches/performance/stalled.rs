//! What one reader that stops reading does to the delivery time of the others.
//! The server has one core and the clients the other.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::process::{Node, median};
use crate::readers::{self, Stream};

const READERS: usize = 50;
const MESSAGES: u64 = 4_000;
/// Until here the stalled one still has room in its windows: not counted.
const STALLED_BY: u64 = 2_000;
const PAUSE: Duration = Duration::from_millis(2);
const PAIRS: usize = 5;

/// The others' p99 in microseconds.
async fn p99(stall_one: bool) -> f64 {
    let node = Node::start(&["taskset", "-c", "0"], &[("SIMPUL_CHAT__ROOM_TAIL_BYTES", "65536")]);
    let token = node.cli(&["token", "--as", "alice", "--ttl", "1h"]);
    node.cli(&["room", "create", "bench", "--as", "alice"]);
    let target = node.target();
    let begun = Instant::now();
    let delays = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    let mut stalled = None;
    for n in 0..READERS {
        let stream = Stream::join(&target, &token, "bench").await;
        if n == 0 && stall_one {
            stalled = Some(stream); // Joined, and never read again.
            continue;
        }
        let Stream { writer, mut reader } = stream;
        let delays = delays.clone();
        tasks.push(simpul::task::spawn("reader", async move {
            let (mut next, mut own) = (0, Vec::new());
            while next < MESSAGES {
                reader
                    .messages(|_, body| {
                        let sent = std::str::from_utf8(&body[..20]).expect("ASCII").trim();
                        let sent: u128 = sent.parse().expect("a time");
                        next += 1;
                        if next > STALLED_BY {
                            own.push((begun.elapsed().as_micros() - sent) as f64);
                        }
                    })
                    .await;
            }
            drop(writer);
            delays.lock().expect("not poisoned").extend(own);
        }));
    }
    let Stream { mut writer, mut reader } = Stream::join(&target, &token, "bench").await;
    for n in 0..MESSAGES {
        let body = format!("{:<20}{}", begun.elapsed().as_micros(), "x".repeat(130));
        writer.write(readers::send("bench", n, &body)).await;
        // The pace of the messages; the writer's own frames are read meanwhile.
        let _ = tokio::time::timeout(PAUSE, async {
            loop {
                reader.read(|_| {}).await;
            }
        })
        .await;
    }
    for task in tasks {
        task.await.expect("a reader that got everything");
    }
    drop(stalled);
    let mut delays = std::mem::take(&mut *delays.lock().expect("not poisoned"));
    delays.sort_by(f64::total_cmp);
    delays[delays.len() * 99 / 100]
}

pub async fn run() {
    crate::fanout::pin_to_core_1();
    let mut ratios = Vec::new();
    for round in 0..PAIRS {
        let (without, with) = (p99(false).await, p99(true).await);
        println!("stalled pair {}: p99 {without:.0} µs, with one stalled {with:.0} µs", round + 1);
        ratios.push(with / without);
    }
    println!("stalled: one of {READERS} readers stalled, the others' p99: {:.2}", median(ratios));
}
