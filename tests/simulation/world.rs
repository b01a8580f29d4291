//! One seed: three nodes, three people, two rooms; trouble, then healing; then
//! the judge.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use prometheus_client::registry::Registry;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use simpul::clock::simulated::{self, Reading};
use simpul::cluster::link::LinkMetrics;
use simpul::fault::{self, Plant, domain};
use simpul::store::chat::EntryKind;
use simpul::store::memory::Database;
use simpul::{chance, store};

use crate::chaos::{self, Cast, Chaos, domain_of};
use crate::history::{History, Progress, Standing};
use crate::node::{self, Machine};
use crate::person::{AFTERWARDS, Person};

const NODES: usize = 3;
const PEOPLE: usize = 3;
const ROOMS: [&str; 2] = ["lobby", "games"];
/// What each person says.
const SAYS: usize = 14;
/// By then everybody must have everything, after all has been well again.
const PATIENCE: Duration = Duration::from_secs(30);

/// So long after the last trouble everything is as usual again, mostly.
const CALM: Duration = Duration::from_secs(3);
/// Then what is acknowledged is seen by everybody within this time: over links,
/// and not by looks into the store.
const PROMPT: Duration = Duration::from_millis(100);
/// Rounds in which that is looked at: what is slow in each of them stays slow.
const ROUNDS: usize = 3;

/// How often the less usual ways were walked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ways {
    /// Publishes through a third node.
    pub(crate) relayed: u64,
    /// Publishes left in the store.
    pub(crate) letters: u64,
    /// Nodes that handed over and left.
    pub(crate) left: u64,
    /// Moves of people to other nodes without a pause.
    pub(crate) moved: u64,
}

impl Ways {
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            relayed: self.relayed + other.relayed,
            letters: self.letters + other.letters,
            left: self.left + other.left,
            moved: self.moved + other.moved,
        }
    }
}

/// What became of a seed.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) trace: Vec<String>,
    pub(crate) problems: Vec<String>,
    pub(crate) ways: Ways,
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
    for domain in (0..NODES).map(domain_of) {
        domain::thaw(domain);
        domain::revive(domain);
    }
    fault::plant(None);
    chance::fix(None);
    outcome
}

/// What everybody who takes part shares.
#[derive(Debug, Default)]
struct Shared {
    database: Database,
    history: History,
    begin: Arc<AtomicBool>,
    end: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    left: Arc<AtomicUsize>,
    registry: Registry,
}

fn story(seed: u64) -> Outcome {
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .tick_duration(Duration::from_millis(4))
        .min_message_latency(Duration::from_micros(200))
        .max_message_latency(Duration::from_millis(8))
        .simulation_duration(Duration::from_secs(3_600))
        .tcp_capacity(1 << 20)
        .epoch(SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000))
        .build();
    // Half of the worlds have a database that is distributed by partition.
    let database = if seed.is_multiple_of(2) { Database::new() } else { Database::distributed() };
    let mut shared = Shared { database, ..Shared::default() };
    let names: Vec<String> = (0..NODES).map(|node| format!("n{node}")).collect();
    let people: Vec<String> = (0..PEOPLE).map(|person| format!("p{person}")).collect();
    let mut cast = Cast { names, people: people.clone(), stores: Vec::new(), stops: Vec::new() };
    nodes(&mut sim, &mut shared, &mut cast);
    talkers(seed, &mut sim, &shared, &cast);
    let Shared { database, history, begin, end, rounds, left, registry } = shared;
    let mut problems = Vec::new();
    if let Err(error) = unfold(seed, &mut sim, &history, &begin, cast) {
        problems.push(error);
    }
    if problems.is_empty() {
        problems.extend(settle(&mut sim, &history, &database, &people, &rounds).err());
    }
    end.store(true, Ordering::Relaxed);
    problems.extend(history.judge(&log(&database), &people));
    let ways = Ways {
        relayed: counted(&registry, "link_publishes_relayed_total"),
        letters: counted(&registry, "link_publishes_by_letter_total"),
        left: left.load(Ordering::Relaxed) as u64,
        moved: history.told("moved to"),
    };
    Outcome { trace: history.trace(), problems, ways }
}

/// The nodes; the first makes the rooms.
fn nodes(sim: &mut turmoil::Sim<'_>, shared: &mut Shared, cast: &mut Cast) {
    for (node, id) in cast.names.iter().enumerate() {
        let store = shared.database.client();
        store.set(chaos::usual());
        cast.stores.push(store.clone());
        let rooms = ROOMS.iter().map(|room| ((*room).to_owned(), cast.people.clone()));
        let rooms = if node == 0 { rooms.collect() } else { Vec::new() };
        let stop = Arc::new(tokio::sync::watch::Sender::new(false));
        cast.stops.push(stop.clone());
        let machine = Machine {
            id: id.clone(),
            store,
            past: node::Past::default(),
            rooms,
            made: shared.begin.clone(),
            stop,
            left: shared.left.clone(),
            metrics: LinkMetrics::register(shared.registry.sub_registry_with_prefix(id)),
        };
        sim.host(id.as_str(), move || domain::within(domain_of(node), node::run(machine.clone())));
    }
}

/// The people, and what each says when.
fn talkers(seed: u64, sim: &mut turmoil::Sim<'_>, shared: &Shared, cast: &Cast) {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x5eed);
    for (number, name) in cast.people.iter().enumerate() {
        let mut servers = cast.names.clone();
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
            history: shared.history.clone(),
            begin: shared.begin.clone(),
            rounds: shared.rounds.clone(),
            end: shared.end.clone(),
        };
        sim.client(name.as_str(), person.live());
    }
}

/// The sum of a counter over all nodes.
fn counted(registry: &Registry, name: &str) -> u64 {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).expect("metrics");
    let values = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (of, value) = line.rsplit_once(' ')?;
        of.ends_with(name).then(|| value.parse::<u64>().expect("a count"))
    });
    values.sum()
}

/// The start, and the trouble.
fn unfold(
    seed: u64,
    sim: &mut turmoil::Sim<'_>,
    history: &History,
    begin: &AtomicBool,
    cast: Cast,
) -> Result<(), String> {
    while !begin.load(Ordering::Relaxed) {
        sim.step().map_err(|error| error.to_string())?;
        if sim.elapsed() > PATIENCE {
            return Err("the rooms could not be made".to_owned());
        }
    }
    let mut chaos = Chaos::new(seed, sim.elapsed(), cast);
    loop {
        let now = sim.elapsed();
        let mut told = |text| history.note(now, "chaos", text);
        if chaos.step(sim, &mut told) {
            return Ok(());
        }
        sim.step().map_err(|error| error.to_string())?;
    }
}

/// Steps until everything said is answered and everybody has read everything;
/// without another word, which would bring what was lost before it. Then more is
/// said, to see how soon it is seen.
fn settle(
    sim: &mut turmoil::Sim<'_>,
    history: &History,
    database: &Database,
    people: &[String],
    rounds: &AtomicUsize,
) -> Result<(), String> {
    let healed = sim.elapsed();
    let (mut round, mut began) = (0, healed);
    loop {
        // A look at everything costs more than a step.
        for _ in 0..25 {
            sim.step().map_err(|error| error.to_string())?;
        }
        let now = sim.elapsed();
        let far = history.progress();
        let behind = behind(&far, &log(database), people);
        let all_said = far.said == PEOPLE * (SAYS + round * AFTERWARDS);
        if all_said && far.open == 0 && behind == 0 && now - healed > CALM {
            match history.is_prompt(began, PROMPT) {
                Ok(()) if round > 0 => return Ok(()),
                Err(why) if round == ROUNDS => return Err(why),
                _ => {}
            }
            (round, began) = (round + 1, now);
            rounds.store(round, Ordering::Relaxed);
        } else if now - began > PATIENCE {
            let open = far.open;
            let since = now - began;
            return Err(format!(
                "all was well for {since:?}: {open} sends have no answer, {behind} readers are behind"
            ));
        }
    }
}

/// How many readers of a room have not come to its end.
fn behind(far: &Progress, log: &[Standing], people: &[String]) -> usize {
    let head = |room: &str| log.iter().filter(|e| e.room == room).map(|e| e.seq).max();
    let heads = ROOMS.map(|room| (room, head(room)));
    let reads = people.iter().flat_map(|person| {
        heads.iter().map(move |(room, head)| {
            (far.read.get(&(person.clone(), (*room).to_owned())).copied(), *head)
        })
    });
    reads.filter(|(read, head)| read != head).count()
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
