//! The parts of a bundle.

use std::time::SystemTime;

use serde_json::{Value, json};
use tokio::time::timeout;

use super::{PATIENCE, Part, Parts, Wanted};
use crate::clock;
use crate::cluster::service;
use crate::drain::Phase;
use crate::task::tally;
use crate::telemetry::level::Level;

/// Every part, in the order in which they stand in the archive.
pub(super) async fn all(parts: &Parts, wanted: &Wanted) -> Vec<Part> {
    let part = |name, value: Value| Part { name, text: pretty(&value) };
    vec![
        part("about.json", about(parts)),
        part("health.json", health(parts)),
        part("configuration.json", configuration(parts)),
        part("log_level.json", log_level(parts)),
        part("tasks.json", tasks()),
        part("rooms.json", rooms(parts, wanted)),
        part("cluster.json", cluster(parts).await),
        part("payments.json", payments(parts).await),
        Part { name: "recent.jsonl", text: recent(parts) },
        Part { name: "metrics.txt", text: metrics(parts) },
    ]
}

fn pretty(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

fn time(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map(|at| at.to_string()).unwrap_or_default()
}

fn about(parts: &Parts) -> Value {
    let now = SystemTime::now();
    let file = |path: &str| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let status = file("/proc/self/status").unwrap_or_default();
    let of_status = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse::<u64>().ok()
    };
    json!({
        "collected_at": time(now),
        "node_id": parts.node_id,
        "release": env!("CARGO_PKG_VERSION"),
        "built_for": format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        "optimized": !cfg!(debug_assertions),
        "fault_points": cfg!(feature = "fault"),
        "newest_schema": parts.schema,
        "started_at": time(parts.started_at),
        "uptime_seconds": now.duration_since(parts.started_at).unwrap_or_default().as_secs(),
        "kernel": file("/proc/sys/kernel/osrelease"),
        "processors": std::thread::available_parallelism().map(usize::from).ok(),
        "process": {
            "pid": std::process::id(),
            "threads": of_status("Threads"),
            "resident_kib": of_status("VmRSS"),
            "highest_resident_kib": of_status("VmHWM"),
            "open_files": std::fs::read_dir("/proc/self/fd").map(Iterator::count).ok(),
            "file_limit": rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
        },
    })
}

fn health(parts: &Parts) -> Value {
    let phase = match parts.drain.phase() {
        Phase::Running => "running",
        Phase::Graceful => "draining",
        Phase::Forced => "ending",
    };
    json!({
        "ready": parts.readiness.is_ready(),
        "pending": parts.readiness.pending(),
        "phase": phase,
        "sessions": parts.chat.sessions(),
    })
}

fn configuration(parts: &Parts) -> Value {
    let settings = parts.settings.iter().map(
        |setting| json!({"key": setting.key, "value": setting.value, "source": setting.source}),
    );
    settings.collect()
}

fn log_level(parts: &Parts) -> Value {
    let Level { directive, configured, until } = parts.levels.level();
    json!({"directive": directive, "configured": configured, "until": until.map(time)})
}

fn tasks() -> Value {
    let runtime = tokio::runtime::Handle::current().metrics();
    let tasks = tally::all().into_iter().map(|(name, tally)| {
        json!({
            "name": name, "running": tally.running, "started": tally.started,
            "panicked": tally.panicked,
        })
    });
    json!({
        "runtime": {
            "workers": runtime.num_workers(),
            "alive_tasks": runtime.num_alive_tasks(),
            "waiting_for_a_worker": runtime.global_queue_depth(),
        },
        "tasks": tasks.collect::<Value>(),
    })
}

fn rooms(parts: &Parts, wanted: &Wanted) -> Value {
    let (total, rooms) = parts.chat.rooms(wanted.max_rooms);
    let rooms = rooms.iter().map(|room| {
        json!({
            "room": &*room.room, "partition": room.partition, "head": room.head,
            "readers": room.readers, "bytes": room.bytes, "suspended": room.suspended,
        })
    });
    json!({"in_memory": total, "rooms": rooms.collect::<Value>()})
}

async fn cluster(parts: &Parts) -> Value {
    match timeout(PATIENCE, parts.cluster.cluster()).await {
        Err(_) => json!({"problem": "the store does not answer"}),
        Ok(Err(refusal)) => json!({"problem": refusal.message}),
        Ok(Ok(cluster)) => service::json::cluster(&cluster),
    }
}

async fn payments(parts: &Parts) -> Value {
    let now = clock::micros(SystemTime::now());
    match timeout(PATIENCE, parts.store.backlog(now)).await {
        Err(_) => json!({"problem": "the store does not answer"}),
        Ok(Err(error)) => json!({"problem": error.to_string()}),
        Ok(Ok(backlog)) => json!({
            "outbox_rows": backlog.depth,
            "oldest": backlog.oldest.map(|at| time(clock::from_micros(at))),
            "oldest_payment": backlog.payment.map(|id| id.to_string()),
        }),
    }
}

fn recent(parts: &Parts) -> String {
    let mut text = parts.recent.lines().join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

fn metrics(parts: &Parts) -> String {
    let mut text = String::new();
    let encoded = parts
        .metrics
        .get()
        .map(|registry| prometheus_client::encoding::text::encode(&mut text, registry));
    match encoded {
        Some(Ok(())) => text,
        _ => "the node is not ready yet\n".to_owned(),
    }
}
