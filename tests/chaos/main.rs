//! Bad luck for real: processes killed, frozen and cut off, databases lost,
//! under load that never rests, judged by a checker that knows only the promise.
//!
//! `tests/run --test chaos` runs a short set. More, by hand:
//!
//! ```text
//! SIMPUL_TEST_CHAOS=100 tests/run --test chaos -- --nocapture many
//! SIMPUL_TEST_FIRST_SEED=500 SIMPUL_TEST_CHAOS=9 tests/run --test chaos -- --nocapture many
//! SIMPUL_TEST_SEED=17 tests/run --test chaos -- --nocapture many
//! ```
//!
//! Needs root (network namespaces), the cargo feature `fault`, iproute2, nftables
//! and PostgreSQL; says so where something is missing.

#![allow(missing_docs, missing_debug_implementations, unreachable_pub, clippy::unwrap_used)]
#![allow(clippy::print_stdout)] // A run says how it went.

mod certificates;
mod disk;
mod draw;
mod faults;
#[path = "../history/mod.rs"]
mod history;
mod load;
mod net;
mod node;
mod postgres;
mod record;
mod run;
mod way;
mod world;

use draw::random;
use faults::Fault;
use run::{Script, run};
use world::Plan;

/// Why nothing can be run here, if so.
fn missing() -> Option<&'static str> {
    if !net::available() {
        return Some("network namespaces and nftables (root)");
    }
    if !cfg!(feature = "fault") {
        return Some("the cargo feature fault");
    }
    postgres::programs().is_none().then_some("PostgreSQL's server")
}

fn not_run(what: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "NOT RUN: bad luck for real: needs {what}");
}

/// Says what is missing, or gives three nodes.
fn three() -> Option<Plan> {
    match missing() {
        Some(what) => {
            not_run(what);
            None
        }
        None => Some(Plan { nodes: 3, certificates: true, holds: true, ..Plan::default() }),
    }
}

async fn kept(seed: u64, plan: Plan, faults: Vec<Fault>) {
    let report = run(Script { seed, plan, faults }).await;
    println!("{report}");
    assert!(report.verdict.breaches.is_empty(), "{report}");
    assert!(report.verdict.acked > 100, "the load did not run: {report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_and_frozen_nodes() {
    let Some(plan) = three() else { return };
    let faults = vec![
        Fault::Kill(0),
        Fault::Freeze(1, 1000),
        Fault::Freeze(2, 5000),
        Fault::KillTwo(0, 1),
        Fault::KillAll,
    ];
    kept(1, plan, faults).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cut_links() {
    let Some(plan) = three() else { return };
    let faults = vec![
        Fault::CutBoth(0, 1),
        Fault::CutOneWay(1, 2),
        Fault::Reject(2, 0),
        Fault::CutMesh,
        Fault::CutStore(1),
        Fault::Isolate(2),
    ];
    kept(2, plan, faults).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_database_that_fails() {
    let Some(plan) = three() else { return };
    let faults =
        vec![Fault::RestartStore, Fault::KillStore, Fault::FreezeStore(3000), Fault::Promote];
    kept(3, Plan { standby: true, ..plan }, faults).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_roll_of_all_nodes() {
    let Some(plan) = three() else { return };
    kept(4, plan, vec![Fault::Roll, Fault::RollFrozen(500)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn bad_links() {
    let Some(plan) = three() else { return };
    let faults = vec![
        Fault::SlowLinks,
        Fault::LossyLinks,
        Fault::SlowStore,
        Fault::LossyStore,
        Fault::LossyClients,
    ];
    kept(6, plan, faults).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_disk_and_new_certificates() {
    let Some(plan) = three() else { return };
    let faults = vec![
        Fault::FullDisk,
        Fault::NewCertificates,
        Fault::NewAuthority,
        Fault::FreezeInside(1, 5000),
        Fault::RollRenewed,
    ];
    kept(7, Plan { disk: true, ..plan }, faults).await;
}

/// One fault alone, by its name: `SIMPUL_TEST_FAULT=RestartStore`, with the nodes'
/// logs kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one() {
    let Ok(name) = std::env::var("SIMPUL_TEST_FAULT") else { return };
    let Some(plan) = three() else { return };
    let fault = Fault::named(&name).expect("a fault of that name");
    let (standby, disk) = (fault == Fault::Promote, fault == Fault::FullDisk);
    let clocks = matches!(fault, Fault::StepClock(..));
    if clocks && node::clock().is_none() {
        return not_run("libfaketime");
    }
    kept(5, Plan { standby, disk, clocks, ..plan }, vec![fault]).await;
}

/// As many runs as asked for, each with other faults.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds: Vec<u64> = match (number("SIMPUL_TEST_SEED"), number("SIMPUL_TEST_CHAOS")) {
        (Some(seed), _) => vec![seed],
        (None, Some(runs)) => {
            let first = number("SIMPUL_TEST_FIRST_SEED").unwrap_or(100);
            (first..first + runs).collect()
        }
        (None, None) => return,
    };
    let Some(plan) = three() else { return };
    let mut broken = 0;
    for seed in seeds {
        let report = run(random(seed, plan)).await;
        println!("{report}");
        broken += usize::from(!report.verdict.breaches.is_empty());
    }
    assert_eq!(broken, 0, "runs that broke the promise");
}
