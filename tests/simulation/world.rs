//! One seed: three nodes, three people, two rooms; trouble, then healing; then
//! the judge.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use simpul::clock::simulated::{self, Reading};
use simpul::fault::{self, Plant, domain};
use simpul::store::chat::EntryKind;
use simpul::store::memory::Database;
use simpul::{chance, store};

use crate::chaos::{self, Chaos, domain_of};
use crate::history::{History, Standing};
use crate::node::{self, Machine};
use crate::person::Person;

const NODES: usize = 3;
const PEOPLE: usize = 3;
const ROOMS: [&str; 2] = ["lobby", "games"];
/// What each person says.
const SAYS: usize = 14;
/// By then everybody must have everything, after all has been well again.
const PATIENCE: Duration = Duration::from_secs(30);

/// So long after the last trouble everything is as usual again.
const CALM: Duration = Duration::from_secs(7);
/// So long is said something then.
const AFTERWARDS: Duration = Duration::from_secs(2);
/// Then what is acknowledged is seen by everybody within this time: over links,
/// and not by looks into the store.
const PROMPT: Duration = Duration::from_millis(100);

/// What became of a seed.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) trace: Vec<String>,
    pub(crate) problems: Vec<String>,
}

/// Runs a seed on this thread.
pub(crate) fn run(seed: u64, plant: Option<Plant>) -> Outcome {
    chance::fix(Some(seed));
    fault::plant(plant);
    let skews: Vec<Duration> = {
        let mut rng = StdRng::seed_from_u64(!seed);
        (0..=NODES).map(|_| Duration::from_millis(rng.random_range(0..100_000))).collect()
    };
    // Each node's clocks began at another time.
    let _clocks = simulated::install(move || {
        let elapsed = turmoil::sim_elapsed()?;
        let skew = *skews.get(usize::try_from(domain::current()).ok()?)?;
        let boot = Duration::from_secs(1_000) + elapsed + skew;
        Some(Reading {
            boot,
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000) + boot,
        })
    });
    let outcome = story(seed);
    (0..NODES).for_each(|node| domain::thaw(domain_of(node)));
    fault::plant(None);
    chance::fix(None);
    outcome
}

fn story(seed: u64) -> Outcome {
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .tick_duration(Duration::from_millis(2))
        .min_message_latency(Duration::from_micros(200))
        .max_message_latency(Duration::from_millis(8))
        .simulation_duration(Duration::from_secs(3_600))
        .tcp_capacity(1 << 20)
        .epoch(SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000))
        .build();
    let database = Database::new();
    let history = History::default();
    let (begin, end) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let late = Arc::new(AtomicBool::new(false));
    let names: Vec<String> = (0..NODES).map(|node| format!("n{node}")).collect();
    let people: Vec<String> = (0..PEOPLE).map(|person| format!("p{person}")).collect();
    let mut stores = Vec::new();
    for (node, id) in names.iter().enumerate() {
        let store = database.client();
        store.set(chaos::usual());
        stores.push(store.clone());
        let rooms = ROOMS.iter().map(|room| ((*room).to_owned(), people.clone()));
        let rooms = if node == 0 { rooms.collect() } else { Vec::new() };
        let (past, made) = (node::Past::default(), begin.clone());
        let machine = Machine { id: id.clone(), store, past, rooms, made };
        sim.host(id.as_str(), move || domain::within(domain_of(node), node::run(machine.clone())));
    }
    let mut rng = StdRng::seed_from_u64(seed ^ 0x5eed);
    for (number, name) in people.iter().enumerate() {
        let mut servers = names.clone();
        servers.rotate_left(number % NODES);
        let mut says: Vec<_> = (0..SAYS)
            .map(|_| {
                let after = Duration::from_millis(rng.random_range(0..9_000));
                (after, ROOMS[rng.random_range(0..ROOMS.len())].to_owned())
            })
            .collect();
        says.sort();
        let person = Person {
            name: name.clone(),
            servers,
            rooms: ROOMS.map(str::to_owned).to_vec(),
            says,
            history: history.clone(),
            begin: begin.clone(),
            late: late.clone(),
            end: end.clone(),
        };
        sim.client(name.as_str(), person.live());
    }
    let mut problems = Vec::new();
    if let Err(error) = unfold(seed, &mut sim, &history, &begin, (names, people.clone(), stores)) {
        problems.push(error);
    }
    if problems.is_empty() {
        problems.extend(settle(&mut sim, &history, &database, &people, &late).err());
    }
    end.store(true, Ordering::Relaxed);
    problems.extend(history.judge(&log(&database), &people));
    Outcome { trace: history.trace(), problems }
}

type Cast = (Vec<String>, Vec<String>, Vec<store::memory::MemoryStore>);

/// The start, and the trouble.
fn unfold(
    seed: u64,
    sim: &mut turmoil::Sim<'_>,
    history: &History,
    begin: &AtomicBool,
    (names, people, stores): Cast,
) -> Result<(), String> {
    while !begin.load(Ordering::Relaxed) {
        sim.step().map_err(|error| error.to_string())?;
        if sim.elapsed() > PATIENCE {
            return Err("the rooms could not be made".to_owned());
        }
    }
    let mut chaos = Chaos::new(seed, sim.elapsed(), names, people, stores);
    loop {
        let now = sim.elapsed();
        let mut told = |text| history.note(now, "chaos", text);
        if chaos.step(sim, &mut told) {
            return Ok(());
        }
        sim.step().map_err(|error| error.to_string())?;
    }
}

/// Steps until everything said is answered and everybody has read everything.
fn settle(
    sim: &mut turmoil::Sim<'_>,
    history: &History,
    database: &Database,
    people: &[String],
    late: &AtomicBool,
) -> Result<(), String> {
    let healed = sim.elapsed();
    loop {
        // A look at everything costs more than a step.
        for _ in 0..50 {
            sim.step().map_err(|error| error.to_string())?;
        }
        let since = sim.elapsed() - healed;
        let (open, read) = history.progress();
        let log = log(database);
        let behind = people.iter().flat_map(|person| {
            let read = &read;
            let log = &log;
            ROOMS.iter().filter(move |room| {
                let head = log.iter().filter(|e| e.room == **room).map(|e| e.seq).max();
                read.get(&(person.clone(), (**room).to_owned())).copied() != head
            })
        });
        let behind = behind.count();
        late.store(since > CALM, Ordering::Relaxed);
        let all_said = since > CALM + AFTERWARDS;
        if all_said && open == 0 && behind == 0 {
            return history.is_prompt(healed + CALM, PROMPT);
        }
        if since > PATIENCE {
            return Err(format!(
                "all was well for {since:?}: {open} sends have no answer, {behind} readers are behind"
            ));
        }
    }
}

/// What stands in the store.
fn log(database: &Database) -> Vec<Standing> {
    let entries = database.log().into_iter();
    let standing = |entry: store::chat::Entry| {
        // People are shown what others said, and of the rest only its place.
        let (id, body) = match entry.kind {
            EntryKind::Text => {
                let body = String::from_utf8_lossy(&entry.body).into_owned();
                (entry.client_message_id.to_string(), body)
            }
            _ => Default::default(),
        };
        Standing { room: entry.room.to_string(), seq: entry.seq, id, body }
    };
    entries.map(standing).collect()
}
