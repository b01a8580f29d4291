//! Instructions per WhoAmI with a bearer token: the server's alone, by the
//! difference of two runs. Start and end cancel out, and so does what the node
//! does by itself from time to time: both runs last equally long, the one with
//! few calls idles for the rest. Both servers have one core and so one worker.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use simpul::proto::identity::v1::WhoAmIRequest;
use simpul::proto::identity::v1::identity_service_client::IdentityServiceClient;
use tonic::Request;
use tonic::transport::Channel;

use crate::collector::Collector;
use crate::process::{Node, Server, Target, find, wait_for};

const FEW: u32 = 500;
const MANY: u32 = 4_500;

const ONE_CORE: [&str; 3] = ["taskset", "-c", "0"];

const CALLGRIND: [&str; 3] = ["valgrind", "-q", "--tool=callgrind"];

async fn call(channel: Channel, token: &str, times: u32) {
    let mut client = IdentityServiceClient::new(channel);
    for _ in 0..times {
        let mut request = Request::new(WhoAmIRequest {});
        let value = format!("Bearer {token}").parse().expect("ASCII");
        request.metadata_mut().insert("authorization", value);
        client.who_am_i(request).await.expect("an answer");
    }
}

fn collected(out: &Path) -> f64 {
    let text = std::fs::read_to_string(out).expect("callgrind's file");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: ")));
    line.expect("totals").trim().parse().expect("a number")
}

/// The calls, then idle until so much time has passed since their beginning;
/// says how long that was.
async fn calls(channel: Channel, token: &str, times: u32, at_least: Duration) -> Duration {
    let begun = Instant::now();
    call(channel, token, times).await;
    // Not waiting for anything: the time is what is to be spent.
    tokio::time::sleep(at_least.saturating_sub(begun.elapsed())).await;
    begun.elapsed()
}

/// One run: the instructions and how long it took.
type Run = (f64, Duration);

async fn simpul(times: u32, at_least: Duration, env: &[(&str, &str)]) -> Run {
    let scratch = tempfile::tempdir().expect("a directory");
    let out = scratch.path().join("out");
    let file = format!("--callgrind-out-file={}", out.display());
    let prefix = [&ONE_CORE[..], &CALLGRIND[..], &[file.as_str()]].concat();
    let node = Node::start(&prefix, env);
    let token = node.cli(&["token", "--as", "alice", "--ttl", "1h"]);
    let took = calls(node.channel().await, &token, times, at_least).await;
    node.server.end();
    (collected(&out), took)
}

async fn bare(times: u32, at_least: Duration, token: &str) -> Run {
    let node = Node::start(&[], &[]);
    let dir = tempfile::tempdir().expect("a directory");
    for file in ["server.pem", "server-key.pem"] {
        std::fs::copy(node.dir.path().join("dev").join(file), dir.path().join(file))
            .expect("copied");
    }
    let ca = std::fs::read(node.info["ca_file"].as_str().expect("a file")).expect("PEM");
    let out = dir.path().join("out");
    let child = Command::new(ONE_CORE[0])
        .args(&ONE_CORE[1..])
        .args(CALLGRIND)
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe().expect("this program"))
        .args(["bare-server"])
        .arg(dir.path())
        .spawn()
        .expect("valgrind");
    let server = Server { child };
    let address = wait_for(&dir.path().join("address")).trim().to_owned();
    let channel = Target::new(&address, ca).channel().await;
    let took = calls(channel, token, times, at_least).await;
    server.end();
    (collected(&out), took)
}

/// Per call, by difference; the long run first, since it says how long both are.
async fn each(run: impl AsyncFn(u32, Duration) -> Run) -> f64 {
    let (many, took) = run(MANY, Duration::ZERO).await;
    let (few, _) = run(FEW, took).await;
    (many - few) / f64::from(MANY - FEW)
}

pub async fn run() {
    if find("valgrind").is_none() {
        println!("calls: LEFT OUT, valgrind is not here");
        return;
    }
    let token = {
        let node = Node::start(&[], &[]);
        node.cli(&["token", "--as", "alice", "--ttl", "1h"])
    };
    let theirs = each(async |times, at_least| bare(times, at_least, &token).await).await;
    let ours = each(async |times, at_least| simpul(times, at_least, &[]).await).await;
    let (_, collector) = Collector::listen().await;
    let env: [(&str, &str); 2] =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", &collector), ("OTEL_TRACES_SAMPLER", "always_on")];
    let traced = each(async |times, at_least| simpul(times, at_least, &env).await).await;
    println!(
        "calls: instructions per WhoAmI, server only, by difference of {FEW} and {MANY} calls"
    );
    println!("| server | instructions | ÷ bare tonic | ÷ tracing none |");
    println!("|---|---|---|---|");
    println!("| bare tonic over the same TLS | {theirs:.0} | 1 | |");
    println!("| all layers | {ours:.0} | {:.3} | 1 |", ours / theirs);
    println!(
        "| all layers, every call traced and exported | {traced:.0} | {:.3} | {:.3} |",
        traced / theirs,
        traced / ours
    );
}
