//! What a cluster costs and how long bad luck lasts:
//! `cargo bench --bench cluster [PART …]`.
//!
//! Parts: `delivery` (across nodes, against a bare mTLS call and one commit),
//! `kill` (an owner that is killed, frozen, and frozen inside its transaction,
//! the last with `--features fault` only), `handoff` (a drain and a join),
//! `fanout` (deliveries per CPU-second of three nodes against one), `append`
//! (rows a second against pgbench), `skew` (sessions after a node was added).
//! Without a part all run. Every part starts a PostgreSQL of its own and real
//! nodes on addresses of the loopback interface; what is missing on the machine
//! is said, and its part is left out.

#![allow(missing_docs, missing_debug_implementations, unreachable_pub, clippy::unwrap_used)]
#![allow(clippy::print_stdout)] // A benchmark prints its figures.

mod append;
#[path = "../performance/bare.rs"]
mod bare;
mod delivery;
mod fanout;
mod figures;
mod handoff;
mod kill;
mod skew;
mod stage;
mod talk;

// Shared with the tests of bad luck and the benchmarks of one node, which use
// more of them.
#[allow(dead_code)]
#[path = "../../tests/chaos/certificates.rs"]
mod certificates;
#[allow(dead_code)]
#[path = "../../tests/chaos/disk.rs"]
mod disk;
#[allow(dead_code)]
#[path = "../../tests/chaos/net.rs"]
mod net;
#[allow(dead_code)]
#[path = "../../tests/chaos/node.rs"]
mod node;
#[allow(dead_code)]
#[path = "../../tests/chaos/postgres.rs"]
mod postgres;
#[allow(dead_code)]
#[path = "../performance/process.rs"]
mod process;
#[allow(dead_code)]
#[path = "../performance/readers.rs"]
mod readers;
#[allow(dead_code)]
#[path = "../../tests/chaos/world.rs"]
mod world;

use figures::Figure;

const PARTS: [&str; 6] = ["delivery", "kill", "handoff", "fanout", "append", "skew"];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    if args.first().is_some_and(|arg| arg == "bare-server") {
        // A process of its own, as the nodes are.
        return runtime.block_on(bare::serve(&args[1]));
    }
    if let Some(unknown) = args.iter().find(|arg| !PARTS.contains(&arg.as_str())) {
        println!("there is no part {unknown}: {}", PARTS.join(", "));
        return;
    }
    if postgres::programs().is_none() {
        println!("cluster: LEFT OUT, PostgreSQL's server is not here");
        return;
    }
    let mut figures = Vec::new();
    for part in PARTS {
        if args.is_empty() || args.iter().any(|arg| arg == part) {
            let measured = runtime.block_on(measure(part));
            figures::table(&measured);
            figures.extend(measured);
        }
    }
    println!();
    figures::table(&figures);
}

async fn measure(part: &str) -> Vec<Figure> {
    match part {
        "delivery" => delivery::run().await,
        "kill" => kill::run().await,
        "handoff" => handoff::run().await,
        "fanout" => fanout::run().await,
        "append" => append::run().await,
        _ => skew::run().await,
    }
}
