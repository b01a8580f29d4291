//! Runs drawn from a seed.
//!
//! What a seed means changes when the list of faults does: results are told with
//! the faults beside the seed.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::faults::Fault;
use crate::node;
use crate::run::Script;
use crate::world::Plan;

/// Three to seven faults of any kind.
pub fn random(seed: u64, plan: Plan) -> Script {
    let mut chance = StdRng::seed_from_u64(seed);
    // Drawn first: a seed is the same elsewhere as far as it goes.
    let clocks = chance.random_bool(0.2) && node::clock().is_some();
    let standby = chance.random_bool(0.25);
    let disk = !standby && chance.random_bool(0.3);
    let plan = Plan { clocks, standby, disk, ..plan };
    let mut faults: Vec<Fault> =
        (0..chance.random_range(3..=5)).map(|_| fault(&mut chance)).collect();
    if clocks {
        let by = *[-3600, -60, 60, 3600].choose(&mut chance).unwrap_or(&60);
        faults.push(Fault::StepClock(chance.random_range(0..3), by));
    }
    for (drawn, more) in [(standby, Fault::Promote), (disk, Fault::FullDisk)] {
        if drawn {
            faults.insert(chance.random_range(0..=faults.len()), more);
        }
    }
    Script { seed, plan, faults }
}

/// One that any world can have. What is likelier in life is likelier here.
fn fault(chance: &mut StdRng) -> Fault {
    let one = chance.random_range(0..3);
    let other = (one + chance.random_range(1..3)) % 3;
    let long = *[1000, 5000, 30_000].choose(chance).unwrap_or(&1000);
    let short = *[500, 3000, 8000].choose(chance).unwrap_or(&500);
    match chance.random_range(0..26) {
        0..3 => Fault::Kill(one),
        3 => Fault::KillTwo(one, other),
        4 => Fault::KillAll,
        5 | 6 => Fault::Freeze(one, long),
        7 => Fault::FreezeInside(one, long),
        8 => Fault::CutBoth(one, other),
        9 => Fault::CutOneWay(one, other),
        10 => Fault::Reject(one, other),
        11 => Fault::CutMesh,
        12 => Fault::CutStore(one),
        13 => Fault::Isolate(one),
        14 => Fault::KillStore,
        15 => Fault::FreezeStore(short),
        16 => Fault::SlowLinks,
        17 => Fault::LossyLinks,
        18 => Fault::SlowStore,
        19 => Fault::LossyStore,
        20 => Fault::LossyClients,
        21 | 22 => Fault::Roll,
        23 => Fault::RollFrozen(500),
        24 => Fault::RollRenewed,
        _ => Fault::NewAuthority,
    }
}
