//! Numbers and times that must fit together.

use std::time::Duration;

use super::Broken;
use crate::config::schema::{Chat, Cluster, Config, Payment, Shutdown, Store, Traffic};

/// The longest drain: beyond it every orchestrator has killed the node.
const MAX_SHUTDOWN: Duration = Duration::from_secs(3600);

/// What a statement or a connection may take: less and nothing would succeed,
/// more and an outage would never show.
const MIN_STORE_TIMEOUT: Duration = Duration::from_millis(100);
const MAX_STORE_TIMEOUT: Duration = Duration::from_secs(600);

pub(super) fn check(config: &Config, broken: &mut Broken) {
    traffic(&config.traffic, broken);
    chat(&config.chat, config.traffic.max_message_bytes, broken);
    payment(&config.payment, broken);
    shutdown(&config.shutdown, broken);
    positive("tls.reload_interval", config.tls.reload_interval, broken);
    store(&config.store, broken);
    cluster(&config.cluster, config.traffic.max_message_bytes, broken);
}

fn store(store: &Store, broken: &mut Broken) {
    let readers = (1..=256).contains(&store.readers);
    broken.unless(readers, "store.readers", "must be 1 to 256");
    let connections = (6..=1000).contains(&store.connections);
    broken.unless(connections, "store.connections", "must be 6 to 1000");
    for (key, time) in [
        ("store.connect_timeout", store.connect_timeout),
        ("store.statement_timeout", store.statement_timeout),
    ] {
        let bounded = (MIN_STORE_TIMEOUT..=MAX_STORE_TIMEOUT).contains(&time);
        broken.unless(bounded, key, "must be 100ms to 10m");
    }
}

fn cluster(cluster: &Cluster, max_message_bytes: usize, broken: &mut Broken) {
    let connections = (1..=16).contains(&cluster.connections);
    broken.unless(connections, "cluster.connections", "must be 1 to 16");
    broken.unless(
        cluster.backlog_bytes >= max_message_bytes,
        "cluster.backlog_bytes",
        "must be at least traffic.max_message_bytes",
    );
    let moves = cluster.moves_per_second > 0;
    broken.unless(moves, "cluster.moves_per_second", "must be at least 1");
}

fn traffic(traffic: &Traffic, broken: &mut Broken) {
    let counts = [
        ("traffic.max_concurrent_calls", traffic.max_concurrent_calls),
        ("traffic.max_concurrent_streams", traffic.max_concurrent_streams),
        ("traffic.max_streams_per_principal", traffic.max_streams_per_principal),
        ("traffic.rate_per_principal", traffic.rate_per_principal as usize),
        ("traffic.burst_per_principal", traffic.burst_per_principal as usize),
        ("traffic.frame_rate_per_principal", traffic.frame_rate_per_principal as usize),
        ("traffic.frame_burst_per_principal", traffic.frame_burst_per_principal as usize),
        ("traffic.failures_per_minute", traffic.failures_per_minute as usize),
        ("traffic.max_streams_per_connection", traffic.max_streams_per_connection as usize),
        ("traffic.max_connections", traffic.max_connections),
        ("traffic.max_handshakes", traffic.max_handshakes),
    ];
    for (key, count) in counts {
        broken.unless(count > 0, key, "must be at least 1");
    }
    let times = [
        ("traffic.default_deadline", traffic.default_deadline),
        ("traffic.max_deadline", traffic.max_deadline),
        ("traffic.handshake_timeout", traffic.handshake_timeout),
        ("traffic.max_connection_age", traffic.max_connection_age),
        ("traffic.keepalive_interval", traffic.keepalive_interval),
        ("traffic.keepalive_timeout", traffic.keepalive_timeout),
    ];
    for (key, time) in times {
        positive(key, time, broken);
    }
    let ordered = traffic.default_deadline <= traffic.max_deadline;
    broken.unless(ordered, "traffic.default_deadline", "must be at most traffic.max_deadline");
    // A frame's length is 32 bits; 64 MiB is far beyond any message of ours.
    let message = (1024..=64 << 20).contains(&traffic.max_message_bytes);
    broken.unless(message, "traffic.max_message_bytes", "must be 1024 to 67108864");
    let header = (2048..=1 << 20).contains(&traffic.max_header_bytes);
    broken.unless(header, "traffic.max_header_bytes", "must be 2048 to 1048576");
}

fn chat(chat: &Chat, max_message_bytes: usize, broken: &mut Broken) {
    broken.unless(chat.partitions > 0, "chat.partitions", "must be at least 1");
    broken.unless(chat.room_tail_bytes > 0, "chat.room_tail_bytes", "must be at least 1");
    let within = chat.room_tail_bytes <= chat.total_tail_bytes;
    broken.unless(within, "chat.room_tail_bytes", "must be at most chat.total_tail_bytes");
    let page = (1..=10_000).contains(&chat.page_entries);
    broken.unless(page, "chat.page_entries", "must be 1 to 10000");
    broken.unless(chat.max_joined_rooms > 0, "chat.max_joined_rooms", "must be at least 1");
    broken.unless(chat.max_body_bytes > 0, "chat.max_body_bytes", "must be at least 1");
    // The frame around a body: ids of 64 characters each, and tags.
    let fits = chat.max_body_bytes.saturating_add(512) <= max_message_bytes;
    broken.unless(
        fits,
        "chat.max_body_bytes",
        "must leave 512 bytes of traffic.max_message_bytes for the frame around the body",
    );
    positive("chat.idle_room", chat.idle_room, broken);
    positive("chat.client_message_id_kept", chat.client_message_id_kept, broken);
}

fn payment(payment: &Payment, broken: &mut Broken) {
    positive("payment.give_up", payment.give_up, broken);
    positive("payment.idempotency_kept", payment.idempotency_kept, broken);
    positive("payment.provider_timeout", payment.provider_timeout, broken);
    broken.unless(payment.workers > 0, "payment.workers", "must be at least 1");
    // Else two workers would drive one operation.
    let outlasts = payment.lease > payment.provider_timeout;
    broken.unless(outlasts, "payment.lease", "must be longer than payment.provider_timeout");
}

fn shutdown(shutdown: &Shutdown, broken: &mut Broken) {
    let bounded = shutdown.delay <= MAX_SHUTDOWN;
    broken.unless(bounded, "shutdown.delay", "must be at most 1h");
    let bounded = shutdown.grace <= MAX_SHUTDOWN;
    broken.unless(bounded, "shutdown.grace", "must be at most 1h");
    positive("shutdown.grace", shutdown.grace, broken);
}

fn positive(key: &str, time: Duration, broken: &mut Broken) {
    broken.unless(!time.is_zero(), key, "must be longer than 0s");
}
