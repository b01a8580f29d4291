//! Bad luck, drawn from a seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use simpul::fault::domain;
use simpul::store::memory::{Conditions, MemoryStore};

/// How long it goes on.
pub(crate) const LASTS: Duration = Duration::from_secs(8);

/// What is wrong for a while; nodes by number.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Trouble {
    /// No packet between two nodes.
    Cut(usize, usize),
    /// Packets between two nodes come much later.
    Held(usize, usize),
    /// No packet between a person and a node.
    CutOff(usize, usize),
    /// The process is gone, and started again later.
    Crash(usize),
    /// It is stopped, and continued later.
    Freeze(usize),
    /// Its way to the store.
    Store(usize, Conditions),
}

/// A schedule that unfolds.
pub(crate) struct Chaos {
    rng: StdRng,
    names: Vec<String>,
    people: Vec<String>,
    stores: Vec<MemoryStore>,
    until: Duration,
    next: Duration,
    /// What is wrong now, and until when.
    wrong: Vec<(Duration, Trouble)>,
}

impl Chaos {
    pub(crate) fn new(
        seed: u64,
        now: Duration,
        names: Vec<String>,
        people: Vec<String>,
        stores: Vec<MemoryStore>,
    ) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        let (until, next) = (now + LASTS, now);
        Self { rng, names, people, stores, until, next, wrong: Vec::new() }
    }

    /// Lets begin and end what is due; says what. True once all is well for good.
    pub(crate) fn step(
        &mut self,
        sim: &mut turmoil::Sim<'_>,
        told: &mut impl FnMut(String),
    ) -> bool {
        let now = sim.elapsed();
        let due: Vec<_> = self.wrong.extract_if(.., |(end, _)| *end <= now).collect();
        for (_, trouble) in due {
            told(format!("over: {trouble:?}"));
            self.end(trouble, sim);
        }
        if now >= self.until {
            return self.wrong.is_empty();
        }
        if now >= self.next {
            self.next = now + Duration::from_millis(self.rng.random_range(100..1_500));
            let trouble = self.draw();
            // One trouble of a kind at a time, or the end of one ends the other.
            if self.wrong.iter().all(|(_, other)| !overlap(other, &trouble)) {
                let long = Duration::from_millis(self.rng.random_range(50..4_000));
                told(format!("for {long:?}: {trouble:?}"));
                self.begin(trouble, sim);
                self.wrong.push((now + long, trouble));
            }
        }
        false
    }

    fn draw(&mut self) -> Trouble {
        let one = self.rng.random_range(0..self.names.len());
        let other = (one + self.rng.random_range(1..self.names.len())) % self.names.len();
        let person = self.rng.random_range(0..self.people.len());
        let slow = Duration::from_millis(self.rng.random_range(5..300));
        let well = Conditions { at_most: Duration::from_millis(3), ..Conditions::default() };
        match self.rng.random_range(0..12) {
            0 | 1 => Trouble::Cut(one, other),
            2 => Trouble::Held(one, other),
            3 => Trouble::CutOff(person, one),
            4..=6 => Trouble::Crash(one),
            7 | 8 => Trouble::Freeze(one),
            9 => Trouble::Store(one, Conditions { cut: true, ..well }),
            10 => Trouble::Store(one, Conditions { loses: 0.3, fails: 0.1, ..well }),
            _ => Trouble::Store(one, Conditions { at_most: slow, ..well }),
        }
    }

    fn begin(&self, trouble: Trouble, sim: &mut turmoil::Sim<'_>) {
        match trouble {
            Trouble::Cut(a, b) => sim.partition(&*self.names[a], &*self.names[b]),
            Trouble::Held(a, b) => sim.hold(&*self.names[a], &*self.names[b]),
            Trouble::CutOff(person, node) => {
                sim.partition(&*self.people[person], &*self.names[node]);
            }
            Trouble::Crash(node) => sim.crash(&*self.names[node]),
            Trouble::Freeze(node) => domain::freeze(domain_of(node)),
            Trouble::Store(node, conditions) => self.stores[node].set(conditions),
        }
    }

    fn end(&self, trouble: Trouble, sim: &mut turmoil::Sim<'_>) {
        match trouble {
            Trouble::Cut(a, b) => sim.repair(&*self.names[a], &*self.names[b]),
            Trouble::Held(a, b) => sim.release(&*self.names[a], &*self.names[b]),
            Trouble::CutOff(person, node) => sim.repair(&*self.people[person], &*self.names[node]),
            Trouble::Crash(node) => sim.bounce(&*self.names[node]),
            Trouble::Freeze(node) => domain::thaw(domain_of(node)),
            Trouble::Store(node, _) => self.stores[node].set(usual()),
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

/// Whether the one would be changed by the end of the other.
fn overlap(a: &Trouble, b: &Trouble) -> bool {
    use Trouble::{Crash, Cut, CutOff, Freeze, Held, Store};
    match (*a, *b) {
        (Cut(a, b) | Held(a, b), Cut(c, d) | Held(c, d)) => (a, b) == (c, d) || (a, b) == (d, c),
        (CutOff(a, b), CutOff(c, d)) => (a, b) == (c, d),
        (Crash(a) | Freeze(a), Crash(b) | Freeze(b)) => a == b,
        (Store(a, _), Store(b, _)) => a == b,
        _ => false,
    }
}
