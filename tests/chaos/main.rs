//! Bad luck for real: processes killed, frozen and cut off, databases lost,
//! under load that never rests, judged by a checker that knows only the promise.
//!
//! `tests/run --test chaos` runs a short set. More, by hand:
//!
//! ```text
//! SIMPUL_TEST_CHAOS=100 tests/run --test chaos -- --nocapture many
//! SIMPUL_TEST_SEED=17 tests/run --test chaos -- --nocapture many
//! ```
//!
//! Needs root (network namespaces), iproute2, nftables and PostgreSQL; says so
//! where something is missing.

#![allow(missing_docs, missing_debug_implementations, unreachable_pub, clippy::unwrap_used)]
#![allow(clippy::print_stdout)] // A run says how it went.

mod faults;
#[path = "../history/mod.rs"]
mod history;
mod load;
mod net;
mod postgres;
mod record;
mod run;
mod world;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use faults::Fault;
use run::{Script, run};
use world::Plan;

/// Why nothing can be run here, if so.
fn missing() -> Option<&'static str> {
    if !net::available() {
        return Some("network namespaces and nftables (root)");
    }
    postgres::programs().is_none().then_some("PostgreSQL's server")
}

/// Says what is missing, or gives three nodes.
fn three() -> Option<Plan> {
    match missing() {
        Some(what) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "NOT RUN: bad luck for real: needs {what}");
            None
        }
        None => Some(Plan { nodes: 3, ..Plan::default() }),
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
    kept(4, plan, vec![Fault::Roll]).await;
}

/// One fault alone, by its name: `SIMPUL_TEST_FAULT=RestartStore`, with the nodes'
/// logs kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one() {
    let Ok(name) = std::env::var("SIMPUL_TEST_FAULT") else { return };
    let Some(plan) = three() else { return };
    let fault = match name.as_str() {
        "Kill" => Fault::Kill(0),
        "KillAll" => Fault::KillAll,
        "Freeze" => Fault::Freeze(0, 5000),
        "CutMesh" => Fault::CutMesh,
        "CutStore" => Fault::CutStore(0),
        "Isolate" => Fault::Isolate(0),
        "KillStore" => Fault::KillStore,
        "RestartStore" => Fault::RestartStore,
        "Promote" => Fault::Promote,
        "Roll" => Fault::Roll,
        _ => panic!("no fault of that name"),
    };
    kept(5, Plan { standby: fault == Fault::Promote, ..plan }, vec![fault]).await;
}

/// As many runs as asked for, each with other faults.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds: Vec<u64> = match (number("SIMPUL_TEST_SEED"), number("SIMPUL_TEST_CHAOS")) {
        (Some(seed), _) => vec![seed],
        (None, Some(runs)) => (100..100 + runs).collect(),
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

/// Three to five faults of any kind.
fn random(seed: u64, plan: Plan) -> Script {
    let mut chance = StdRng::seed_from_u64(seed);
    let clocks = world::has_clock() && chance.random_bool(0.2);
    let standby = chance.random_bool(0.25);
    let plan = Plan { clocks, standby, ..plan };
    let mut faults: Vec<Fault> =
        (0..chance.random_range(3..=5)).map(|_| fault(&mut chance)).collect();
    if clocks {
        let by = *[-3600, -60, 60, 3600].choose(&mut chance).unwrap_or(&60);
        faults.push(Fault::StepClock(chance.random_range(0..3), by));
    }
    if standby {
        let at = chance.random_range(0..=faults.len());
        faults.insert(at, Fault::Promote);
    }
    Script { seed, plan, faults }
}

fn fault(chance: &mut StdRng) -> Fault {
    let one = chance.random_range(0..3);
    let other = (one + chance.random_range(1..3)) % 3;
    let millis = *[1000, 5000, 30_000].choose(chance).unwrap_or(&1000);
    match chance.random_range(0..16) {
        0..3 => Fault::Kill(one),
        3 => Fault::KillTwo(one, other),
        4 => Fault::KillAll,
        5 | 6 => Fault::Freeze(one, millis),
        7 => Fault::CutBoth(one, other),
        8 => Fault::CutOneWay(one, other),
        9 => Fault::Reject(one, other),
        10 => Fault::CutMesh,
        11 => Fault::CutStore(one),
        12 => Fault::Isolate(one),
        13 => Fault::KillStore,
        14 => Fault::FreezeStore(*[500, 3000, 8000].choose(chance).unwrap_or(&500)),
        _ => Fault::Roll,
    }
}
