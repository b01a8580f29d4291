//! One run: a world, clients that never rest, bad luck, and the judge.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::faults::Fault;
use crate::history::{self, Event, What};
use crate::load::{self, Load};
use crate::record::Record;
use crate::world::{Plan, World};

/// Rooms of a run.
pub const ROOMS: usize = 12;

/// How long a fault without a time of its own lasts.
const LASTS: Duration = Duration::from_secs(5);

/// What a run is made of.
#[derive(Debug, Clone)]
pub struct Script {
    /// Names the run; gives the pauses between faults.
    pub seed: u64,
    /// The world.
    pub plan: Plan,
    /// The faults, in order.
    pub faults: Vec<Fault>,
}

/// What became of a run.
#[derive(Debug)]
pub struct Report {
    /// The script.
    pub script: Script,
    /// The judge's word.
    pub verdict: history::Verdict,
    /// Of each fault: the longest silence of any room from its beginning until
    /// every room went on.
    pub silences: Vec<(Fault, Duration)>,
    /// Payments that were answered.
    pub payments: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = &self.verdict;
        let result = if verdict.breaches.is_empty() { "kept" } else { "BROKEN" };
        write!(
            f,
            "seed {}: {result}, {} acknowledged, {} seen, {} unanswered, {} refused, {} payments",
            self.script.seed,
            verdict.acked,
            verdict.seen,
            verdict.unanswered,
            verdict.refused,
            self.payments,
        )?;
        for (fault, silence) in &self.silences {
            write!(f, "; {fault:?} {} ms", silence.as_millis())?;
        }
        verdict.breaches.iter().try_for_each(|breach| write!(f, "\n  {breach}"))
    }
}

/// One world at a time: each is as much as a small machine can carry.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Runs a script, after those that run.
pub async fn run(script: Script) -> Report {
    let _alone = ALONE.lock().await;
    let mut chance = StdRng::seed_from_u64(script.seed);
    let plan = script.plan;
    // Starting processes blocks.
    let mut world = tokio::task::spawn_blocking(move || World::start(plan)).await.expect("a world");
    let record = Arc::new(Record::new());
    let load = Load::start(&world, record.clone(), ROOMS).await;
    going_on(&record, record.now()).await;
    let mut silences = Vec::new();
    for fault in &script.faults {
        tokio::time::sleep(Duration::from_millis(chance.random_range(200..1200))).await;
        let from = record.now();
        fault.strike(&mut world, LASTS).await;
        going_on(&record, record.now()).await;
        let longest = history::silences(&record.events(), from, record.now());
        let longest = longest.into_values().max().unwrap_or_default();
        silences.push((*fault, longest));
    }
    let payments = load.stop(&world).await;
    let logs = load::logs(&world, ROOMS).await;
    let verdict = history::judge(&record.events(), &logs);
    if !verdict.breaches.is_empty() || std::env::var_os("SIMPUL_TEST_KEEP").is_some() {
        world.keep(&script.seed.to_string());
    }
    Report { script, verdict, silences, payments }
}

/// Waits until in every room something was acknowledged that was sent after a
/// time.
async fn going_on(record: &Record, since: Duration) {
    let begun = record.now();
    loop {
        let waiting = behind(&record.events(), since);
        if waiting.is_empty() {
            return;
        }
        assert!(record.now() - begun < crate::world::LONG, "rooms that do not go on: {waiting:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn behind(events: &[Event], since: Duration) -> Vec<String> {
    let mut going: BTreeMap<String, bool> =
        (0..ROOMS).map(|room| (load::room(room), false)).collect();
    let mut late: BTreeMap<(&str, &str, &str), ()> = BTreeMap::new();
    for event in events.iter().filter(|event| event.at >= since) {
        let (room, client) = (event.room.as_str(), event.client.as_str());
        match &event.what {
            What::Sent { id, .. } => {
                late.insert((room, client, id), ());
            }
            What::Acked { id, .. } if late.contains_key(&(room, client, id.as_str())) => {
                going.insert(room.to_owned(), true);
            }
            _ => {}
        }
    }
    going.into_iter().filter(|(_, goes)| !goes).map(|(room, _)| room).collect()
}
