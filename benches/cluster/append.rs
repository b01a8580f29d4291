//! Appended rows a second: the engine against pgbench, which puts the same
//! arrays into the same tables with the same two multi-row INSERT statements in
//! one transaction, prepared. The engine also proves its fence, raises the
//! commit number and the rooms' heads, and refuses what does not follow them.
//! Interleaved pairs. An entry with its key counts as one row.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use simpul::principal::Principal;
use simpul::store::ChatStore;
use simpul::store::chat::{Change, Entry, EntryKind, NewEntry, NewKey, PartitionAppend, RoomId};
use simpul::store::postgres::{PgSettings, PgStore};

use crate::figures::Figure;
use crate::net::Net;
use crate::postgres::Postgres;
use crate::process::{find, median};
use crate::world::PRIMARY;

const PAIRS: usize = 5;
const LASTS: Duration = Duration::from_secs(3);
const PARTITIONS: u16 = 256;
const BODY: usize = 150;

/// What is appended at once.
#[derive(Debug, Clone, Copy)]
struct Shape {
    /// Entries of one call.
    entries: usize,
    /// Partitions of one call.
    parts: usize,
    /// Calls at once, each with partitions of its own.
    at_once: usize,
}

const SHAPES: [Shape; 5] = [
    Shape { entries: 64, parts: 1, at_once: 1 },
    Shape { entries: 256, parts: 1, at_once: 1 },
    Shape { entries: 512, parts: 1, at_once: 1 },
    Shape { entries: 512, parts: 8, at_once: 1 },
    Shape { entries: 64, parts: 1, at_once: 4 },
];

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Shape { entries, parts, at_once } = self;
        write!(f, "{entries} entries a call, {parts} partition(s), {at_once} call(s) at once")
    }
}

/// A room that one appender writes to.
struct Room {
    partition: u16,
    epoch: u64,
    id: RoomId,
    head: u64,
}

fn entry(room: &Room, sender: &Principal, seq: u64, body: &str) -> NewEntry {
    let (key, change) = match seq {
        1 => (None, Some(Change::CreateRoom { title: "a room".into() })),
        _ => (Some(NewKey { digest: [7; 32], redactions: 0 }), None),
    };
    let entry = Entry {
        room: room.id.clone(),
        seq,
        kind: if seq == 1 { EntryKind::Room } else { EntryKind::Text },
        sender: sender.clone(),
        client_message_id: if seq == 1 { "".into() } else { format!("bench-{seq}").into() },
        body: body.to_owned().into(),
        reply_to: 0,
        committed_at: 1_800_000_000_000_000,
    };
    NewEntry { entry, key, change }
}

/// Appends so many entries to every room, in one call.
async fn append(store: &PgStore, rooms: &mut [Room], sender: &Principal, each: u64, body: &str) {
    let part = |room: &mut Room| {
        let seqs = room.head + 1..=room.head + each;
        let entries = seqs.map(|seq| entry(room, sender, seq, body)).collect();
        room.head += each;
        PartitionAppend { partition: room.partition, epoch: room.epoch, entries }
    };
    let parts: Vec<PartitionAppend> = rooms.iter_mut().map(part).collect();
    let appended = store.append(parts).await.expect("an append");
    assert!(appended.iter().all(|one| one.is_committed()), "fenced");
}

/// Rows a second of the engine.
async fn ours(store: &PgStore, shape: Shape, run: usize) -> f64 {
    let sender: Principal = "user/bench@dev.simpul".parse().expect("a principal");
    let body = "x".repeat(BODY);
    let states = store.partition_states().await.expect("partitions");
    let each = (shape.entries / shape.parts) as u64;
    let appender = async |number: usize| {
        let mine = states.iter().skip(number * shape.parts).take(shape.parts);
        let room = |(at, state): (usize, &simpul::store::chat::PartitionState)| Room {
            partition: state.partition,
            epoch: state.epoch,
            id: format!("ours-{run}-{number}-{at}").into(),
            head: 0,
        };
        let mut rooms: Vec<Room> = mine.enumerate().map(room).collect();
        append(store, &mut rooms, &sender, 1, "").await;
        let (begun, mut calls) = (Instant::now(), 0);
        while begun.elapsed() < LASTS {
            append(store, &mut rooms, &sender, each, &body).await;
            calls += 1;
        }
        (calls * shape.entries) as f64 / begun.elapsed().as_secs_f64()
    };
    join_all((0..shape.at_once).map(appender)).await.into_iter().sum()
}

/// The script: the arrays are made once and sent with every transaction, as the
/// engine sends its own; only positions and ids go up.
fn script(shape: Shape, run: usize) -> String {
    let Shape { entries, parts, .. } = shape;
    let each = entries / parts;
    format!(
        "\\if :fresh\n\
         SELECT array_agg(200 + n / {each} ORDER BY n)::text AS partitions, \
         array_agg('theirs-{run}-' || :client_id || '-' || n / {each} ORDER BY n)::text AS rooms, \
         array_agg(n % {each} ORDER BY n)::text AS seqs, \
         array_agg(1 ORDER BY n)::text AS kinds, \
         array_agg('user/bench@dev.simpul'::text ORDER BY n)::text AS senders, \
         array_agg('bench-'::text ORDER BY n)::text AS ids, \
         array_agg(decode('00' || repeat('78', {BODY}), 'hex') ORDER BY n)::text AS bodies, \
         array_agg(0 ORDER BY n)::text AS zeros, \
         array_agg(1800000000000000 ORDER BY n)::text AS times, \
         array_agg(decode(repeat('07', 32), 'hex') ORDER BY n)::text AS digests \
         FROM generate_series(0, {entries} - 1) AS n \\gset\n\
         \\set fresh 0\n\
         \\endif\n\
         \\set base :base + {each}\n\
         BEGIN;\n\
         INSERT INTO entry (\"partition\", room, seq, kind, sender, client_message_id, body, \
         reply_to, committed_at) \
         SELECT p, r, s + :base, k, u, c || (s + :base), b, y, t \
         FROM unnest(:partitions::int4[], :rooms::text[], :seqs::int8[], :kinds::int4[], \
         :senders::text[], :ids::text[], :bodies::bytea[], :zeros::int8[], :times::int8[]) \
         AS n(p, r, s, k, u, c, b, y, t);\n\
         INSERT INTO entry_key (\"partition\", room, sender, client_message_id, seq, \
         committed_at, digest, redactions) \
         SELECT p, r, u, c || (s + :base), s + :base, t, d, x \
         FROM unnest(:partitions::int4[], :rooms::text[], :senders::text[], :ids::text[], \
         :seqs::int8[], :times::int8[], :digests::bytea[], :zeros::int8[]) \
         AS n(p, r, u, c, s, t, d, x);\n\
         COMMIT;\n"
    )
}

/// Rows a second of pgbench.
fn theirs(url: &str, dir: &Path, shape: Shape, run: usize) -> f64 {
    let file = dir.join("script.sql");
    std::fs::write(&file, script(shape, run)).expect("written");
    let clients = shape.at_once.to_string();
    let output = Command::new("pgbench")
        .args(["-n", "-M", "prepared", "-D", "fresh=1", "-D", "base=1", "-c", &clients])
        .args(["-j", &clients, "-T", &LASTS.as_secs().to_string(), "-f"])
        .arg(&file)
        .arg(url)
        .output()
        .expect("pgbench");
    let text = String::from_utf8_lossy(&output.stdout);
    let problems = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{problems}");
    let line = text.lines().find_map(|line| line.strip_prefix("tps = ")).expect("tps");
    let tps: f64 = line.split(' ').next().expect("a word").parse().expect("a number");
    tps * shape.entries as f64
}

pub async fn run() -> Vec<Figure> {
    if find("pgbench").is_none() {
        println!("append: LEFT OUT, pgbench is not here");
        return Vec::new();
    }
    let open = std::fs::Permissions::from_mode(0o755);
    let dir = tempfile::Builder::new().permissions(open).tempdir().expect("a directory");
    let server = Postgres::primary(&Net::loopback(), PRIMARY, dir.path(), &[]);
    server.sql("CREATE DATABASE simpul");
    let url = server.url("simpul");
    let settings = PgSettings {
        url: url.clone().into(),
        node: "bench".to_owned(),
        incarnation: simpul::id::fresh().to_string(),
        connections: 16,
        connect_timeout: Duration::from_secs(3),
        statement_timeout: Duration::from_secs(5),
    };
    let store = PgStore::open(settings).await.expect("the store");
    store.take_partitions("bench", PARTITIONS).await.expect("partitions");
    let mut run = 0;
    let mut figures = Vec::new();
    for shape in SHAPES {
        let (mut rows, mut plain, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        // The first pair warms up and is not counted.
        for pair in 0..=PAIRS {
            run += 1;
            let engine = ours(&store, shape, run).await;
            let pgbench = theirs(&url, dir.path(), shape, run);
            println!(
                "append, {shape}, pair {pair}: {engine:.0} against {pgbench:.0}: {:.2}",
                engine / pgbench
            );
            if pair > 0 {
                rows.push(engine);
                plain.push(pgbench);
                ratios.push(engine / pgbench);
            }
        }
        println!("append, {shape}: {:.0} against {:.0}", median(rows), median(plain));
        let name = format!("appended rows/s ÷ pgbench: {shape}");
        figures.push(Figure::new(name, format!("{:.2}", median(ratios)), "0.5", "0.8"));
    }
    store.close().await;
    figures
}
