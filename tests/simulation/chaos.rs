//! Bad luck, drawn from a seed.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use simpul::fault::domain;
use simpul::store::memory::{Conditions, MemoryStore};
use tokio::sync::watch;

/// How long it goes on.
pub(crate) const LASTS: Duration = Duration::from_secs(8);

/// What is wrong for a while; nodes by number.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Trouble {
    /// No packet between two nodes; a third may reach both.
    Cut(usize, usize),
    /// No packet between one node and the others.
    Alone(usize),
    /// No packet between any two nodes.
    Apart,
    /// Packets between two nodes come much later.
    Held(usize, usize),
    /// No packet between a person and a node.
    CutOff(usize, usize),
    /// The process is gone, and started again later.
    Crash(usize),
    /// It is stopped, and continued later.
    Freeze(usize),
    /// It is asked to stop: it hands over, sends people elsewhere and leaves.
    /// It is started again later, whether it has left by then or not.
    Stop(usize),
    /// Its way to the store.
    Store(usize, Conditions),
}

/// Who takes part. What is of nodes is in their order.
pub(crate) struct Cast {
    /// The nodes.
    pub(crate) names: Vec<String>,
    pub(crate) people: Vec<String>,
    pub(crate) stores: Vec<MemoryStore>,
    /// Asks a node to stop.
    pub(crate) stops: Vec<Arc<watch::Sender<bool>>>,
}

/// A schedule that unfolds.
pub(crate) struct Chaos {
    rng: StdRng,
    cast: Cast,
    until: Duration,
    next: Duration,
    /// What is wrong now, and until when.
    wrong: Vec<(Duration, Trouble)>,
    /// Processes that were killed in the step before.
    killed: Vec<Killed>,
}

/// What becomes of a killed process once it has dropped everything.
#[derive(Debug, Clone, Copy)]
enum Killed {
    Stays(usize),
    StartsAgain(usize),
}

impl Chaos {
    pub(crate) fn new(seed: u64, now: Duration, cast: Cast) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        let (until, next) = (now + LASTS, now);
        Self { rng, cast, until, next, wrong: Vec::new(), killed: Vec::new() }
    }

    /// Lets begin and end what is due; says what. True once all is well for good.
    pub(crate) fn step(
        &mut self,
        sim: &mut turmoil::Sim<'_>,
        told: &mut impl FnMut(String),
    ) -> bool {
        let now = sim.elapsed();
        self.bury(sim);
        let due: Vec<_> = self.wrong.extract_if(.., |(end, _)| *end <= now).collect();
        for (_, trouble) in due {
            told(format!("over: {trouble:?}"));
            self.end(trouble, sim);
        }
        if now >= self.until {
            return self.wrong.is_empty() && self.killed.is_empty();
        }
        if now >= self.next {
            self.next = now + Duration::from_millis(self.rng.random_range(100..1_500));
            let trouble = self.draw();
            // One trouble of a kind at a time, or the end of one ends the other.
            if self.wrong.iter().all(|(_, other)| !self.overlap(other, &trouble)) {
                // To hand over and to leave takes its time.
                let least = if matches!(trouble, Trouble::Stop(_)) { 1_500 } else { 50 };
                let long = Duration::from_millis(self.rng.random_range(least..4_000));
                told(format!("for {long:?}: {trouble:?}"));
                self.begin(trouble, sim);
                self.wrong.push((now + long, trouble));
            }
        }
        false
    }

    fn draw(&mut self) -> Trouble {
        let one = self.rng.random_range(0..self.cast.names.len());
        let other = (one + self.rng.random_range(1..self.cast.names.len())) % self.cast.names.len();
        let person = self.rng.random_range(0..self.cast.people.len());
        let slow = Duration::from_millis(self.rng.random_range(5..300));
        let well = Conditions { at_most: Duration::from_millis(3), ..Conditions::default() };
        match self.rng.random_range(0..16) {
            0 | 1 => Trouble::Cut(one, other),
            2 => Trouble::Held(one, other),
            3 => Trouble::CutOff(person, one),
            4..=6 => Trouble::Crash(one),
            7 | 8 => Trouble::Freeze(one),
            9 => Trouble::Store(one, Conditions { cut: true, ..well }),
            10 => Trouble::Store(one, Conditions { loses: 0.3, fails: 0.1, ..well }),
            11 => Trouble::Store(one, Conditions { at_most: slow, ..well }),
            12 => Trouble::Alone(one),
            13 => Trouble::Apart,
            _ => Trouble::Stop(one),
        }
    }

    /// A process ends by itself, in its own order; then its runtime goes.
    fn kill(&mut self, killed: Killed) {
        let (Killed::Stays(node) | Killed::StartsAgain(node)) = killed;
        domain::kill(domain_of(node));
        self.killed.push(killed);
    }

    fn bury(&mut self, sim: &mut turmoil::Sim<'_>) {
        for killed in self.killed.drain(..) {
            let (Killed::Stays(node) | Killed::StartsAgain(node)) = killed;
            sim.crash(&*self.cast.names[node]);
            domain::revive(domain_of(node));
            if let Killed::StartsAgain(_) = killed {
                sim.bounce(&*self.cast.names[node]);
            }
        }
    }

    fn begin(&mut self, trouble: Trouble, sim: &mut turmoil::Sim<'_>) {
        let Cast { names, people, stores, stops } = &self.cast;
        match trouble {
            Trouble::Cut(..) | Trouble::Alone(_) | Trouble::Apart => {
                for (a, b) in self.between(&trouble) {
                    sim.partition(&*names[a], &*names[b]);
                }
            }
            Trouble::Held(a, b) => sim.hold(&*names[a], &*names[b]),
            Trouble::CutOff(person, node) => sim.partition(&*people[person], &*names[node]),
            Trouble::Crash(node) => self.kill(Killed::Stays(node)),
            Trouble::Freeze(node) => domain::freeze(domain_of(node)),
            Trouble::Stop(node) => drop(stops[node].send_replace(true)),
            Trouble::Store(node, conditions) => stores[node].set(conditions),
        }
    }

    fn end(&mut self, trouble: Trouble, sim: &mut turmoil::Sim<'_>) {
        let Cast { names, people, stores, stops } = &self.cast;
        match trouble {
            Trouble::Cut(..) | Trouble::Alone(_) | Trouble::Apart => {
                for (a, b) in self.between(&trouble) {
                    sim.repair(&*names[a], &*names[b]);
                }
            }
            Trouble::Held(a, b) => sim.release(&*names[a], &*names[b]),
            Trouble::CutOff(person, node) => sim.repair(&*people[person], &*names[node]),
            Trouble::Crash(node) => sim.bounce(&*names[node]),
            Trouble::Freeze(node) => domain::thaw(domain_of(node)),
            Trouble::Stop(node) => {
                stops[node].send_replace(false);
                self.kill(Killed::StartsAgain(node));
            }
            Trouble::Store(node, _) => stores[node].set(usual()),
        }
    }

    /// The pairs of nodes that it comes between, the lower first.
    fn between(&self, trouble: &Trouble) -> Vec<(usize, usize)> {
        let nodes = self.cast.names.len();
        let all = (0..nodes).flat_map(|a| (a + 1..nodes).map(move |b| (a, b)));
        let is = |(a, b): &(usize, usize)| match *trouble {
            Trouble::Cut(c, d) | Trouble::Held(c, d) => (*a, *b) == (c.min(d), c.max(d)),
            Trouble::Alone(node) => [*a, *b].contains(&node),
            Trouble::Apart => true,
            _ => false,
        };
        all.filter(is).collect()
    }

    /// Whether the one would be changed by the end of the other.
    fn overlap(&self, a: &Trouble, b: &Trouble) -> bool {
        use Trouble::{Crash, CutOff, Freeze, Stop, Store};
        match (*a, *b) {
            (CutOff(a, b), CutOff(c, d)) => (a, b) == (c, d),
            (Crash(a) | Freeze(a) | Stop(a), Crash(b) | Freeze(b) | Stop(b)) => a == b,
            (Store(a, _), Store(b, _)) => a == b,
            _ => {
                let (one, other) = (self.between(a), self.between(b));
                one.iter().any(|pair| other.contains(pair))
            }
        }
    }
}

/// How it goes when nothing is wrong.
pub(crate) fn usual() -> Conditions {
    Conditions { at_most: Duration::from_millis(3), ..Conditions::default() }
}

/// The domain of a node; people have none.
pub(crate) fn domain_of(node: usize) -> u32 {
    u32::try_from(node).unwrap_or(0) + 1
}
