//! Figures as ratios in one run: `cargo bench --bench performance [PART …]`.
//!
//! Parts: `calls` (instructions per WhoAmI against bare tonic over the same
//! TLS, counted by callgrind), `fanout` (deliveries per server CPU-second
//! against nats-server), `stalled` (what one stalled reader does to the
//! others), `memory` (resident bytes per idle subscriber), `spans` (lost at
//! 2,000 calls a second with the collector up). Without a part all run. What is missing on the machine (valgrind,
//! nats-server) is said, and its part is left out.

#![allow(missing_docs, missing_debug_implementations, unreachable_pub, clippy::unwrap_used)]
#![allow(clippy::print_stdout)] // A benchmark prints its figures.

mod bare;
mod calls;
mod collector;
mod fanout;
mod memory;
mod nats;
mod process;
mod readers;
mod spans;
mod stalled;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    match args.first().map(String::as_str) {
        // The bare server is a process of its own, so that it can be counted.
        Some("bare-server") => runtime.block_on(bare::serve(&args[1])),
        parts => {
            let all = parts.is_none();
            let wanted = |part: &str| all || args.iter().any(|arg| arg == part);
            if wanted("calls") {
                runtime.block_on(calls::run());
            }
            if wanted("spans") {
                runtime.block_on(spans::run());
            }
            // Before the parts that give each side one core.
            if wanted("memory") {
                runtime.block_on(memory::run());
            }
            if wanted("fanout") {
                runtime.block_on(fanout::run());
            }
            if wanted("stalled") {
                runtime.block_on(stalled::run());
            }
        }
    }
}
