//! How many spans are lost at 2,000 calls a second while the collector is up,
//! with the exporter's own defaults. A WhoAmI makes one span; what has not come
//! when the node has ended is lost.

use std::time::Duration;

use simpul::proto::identity::v1::WhoAmIRequest;
use simpul::proto::identity::v1::identity_service_client::IdentityServiceClient;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tonic::Request;

use crate::collector::Collector;
use crate::process::Node;

const RATE: u32 = 2_000;
const TIME: Duration = Duration::from_secs(15);
const TICK: Duration = Duration::from_millis(10);
const CONNECTIONS: usize = 4;

pub async fn run() {
    let (collector, url) = Collector::listen().await;
    let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("OTEL_TRACES_SAMPLER", "always_on")];
    let node = Node::start(&["taskset", "-c", "0"], &env);
    let token = node.cli(&["token", "--as", "alice", "--ttl", "1h"]);
    let value: tonic::metadata::MetadataValue<_> =
        format!("Bearer {token}").parse().expect("ASCII");
    let mut channels = Vec::new();
    for _ in 0..CONNECTIONS {
        channels.push(node.channel().await);
    }
    let mut tick = tokio::time::interval(TICK);
    // Late ticks are made up for: the rate is what is asked for.
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (begun, mut calls, mut made) = (Instant::now(), JoinSet::new(), 0_u64);
    while begun.elapsed() < TIME {
        tick.tick().await;
        for at in 0..RATE / 100 {
            let channel = channels[at as usize % CONNECTIONS].clone();
            let mut request = Request::new(WhoAmIRequest {});
            request.metadata_mut().insert("authorization", value.clone());
            calls.spawn(async move {
                IdentityServiceClient::new(channel).who_am_i(request).await.expect("an answer");
            });
            made += 1;
        }
        while let Some(done) = calls.try_join_next() {
            done.expect("no panic");
        }
    }
    while let Some(done) = calls.join_next().await {
        done.expect("no panic");
    }
    let rate = made as f64 / begun.elapsed().as_secs_f64();
    node.server.end();
    let lost = made.saturating_sub(collector.spans());
    println!("spans: lost of {made} at {rate:.0} calls/s with the collector up");
    println!("| calls | spans received | lost |");
    println!("|---|---|---|");
    println!("| {made} | {} | {:.2} % |", collector.spans(), lost as f64 * 100.0 / made as f64);
}
