//! The small world: its state, what can happen in it, and what must hold.

use stateright::{Model, Property};

use crate::heal;
use crate::steps::Step;

/// How many nodes there are.
pub(crate) const NODES: usize = 3;
/// How many partitions there are.
pub(crate) const PARTITIONS: usize = 2;

/// Every seq of a log stands there once, in order.
pub(crate) const SEQS: &str = "seqs are 1, 2, 3 without gaps or doubles";
/// Every acknowledged entry stands in a log.
pub(crate) const ACKED: &str = "no acknowledged entry is lost";
const EPOCHS: &str = "no two owners commit under one epoch";
const OWNERS: &str = "after healing every partition has an owner";

/// What is wrong on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Appends do not look at the partition's row.
    NoFence,
    /// A take reads the head as of when its statement began.
    HeadInTake,
    /// Sends are acknowledged before their commit.
    AckFirst,
}

/// How much may happen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct World {
    pub(crate) fault: Fault,
    /// Partitions at work; the others stand still.
    pub(crate) partitions: u8,
    /// Sends.
    pub(crate) values: u8,
    /// Processes that end without a word.
    pub(crate) crashes: u8,
    /// Declarations of death, right or wrong.
    pub(crate) deaths: u8,
    /// Answers to COMMIT that are lost, with or without the commit.
    pub(crate) losses: u8,
    /// Whether each state is healed, to see that its partitions find owners.
    pub(crate) heals: bool,
}

impl World {
    /// For what must never happen.
    pub(crate) fn safety() -> Self {
        Self {
            fault: Fault::None,
            partitions: 1,
            values: 2,
            crashes: 1,
            deaths: 1,
            losses: 1,
            heals: false,
        }
    }

    /// For what must always be possible again.
    pub(crate) fn liveness() -> Self {
        Self { values: 1, heals: true, ..Self::safety() }
    }

    /// Both partitions at work. They meet in their nodes alone, so that almost
    /// all of its states are pairs of those of one partition: millions.
    pub(crate) fn wide() -> Self {
        Self { partitions: 2, values: 1, crashes: 0, ..Self::safety() }
    }

    /// With a planted fault.
    pub(crate) fn with(fault: Fault) -> Self {
        Self { fault, partitions: 2, losses: 0, ..Self::safety() }
    }
}

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) up: bool,
    pub(crate) incarnation: u8,
    pub(crate) parts: [Part; PARTITIONS],
}

/// What a process holds of one partition, and what it is about to do to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Part {
    pub(crate) held: Option<Held>,
    pub(crate) doing: Option<Doing>,
}

/// An ownership, as its owner knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Held {
    pub(crate) epoch: u8,
    pub(crate) head: u8,
}

/// A step decided and not yet done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Doing {
    /// Taking the row that was seen so. `head` is what the planted fault read
    /// when the statement began.
    Take { owner: Option<u8>, epoch: u8, head: u8 },
    /// Taken under this epoch; the head is to be read.
    Taken { epoch: u8, head: u8 },
    /// Stopped and flushed; to be released to a successor.
    Release { epoch: u8, successor: u8 },
}

/// An append on the store's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Append {
    pub(crate) node: u8,
    pub(crate) incarnation: u8,
    pub(crate) partition: u8,
    pub(crate) epoch: u8,
    pub(crate) seq: u8,
    pub(crate) value: u8,
    /// COMMIT has been sent: it may land whatever becomes of the node.
    pub(crate) sent: bool,
}

/// A partition's row and log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub(crate) owner: Option<u8>,
    pub(crate) epoch: u8,
    pub(crate) log: Vec<Entry>,
}

/// An entry, with who wrote it under which epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    pub(crate) seq: u8,
    pub(crate) value: u8,
    pub(crate) epoch: u8,
    pub(crate) by: (u8, u8),
}

/// A row of the node table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Member {
    pub(crate) incarnation: u8,
    pub(crate) alive: bool,
}

/// What was reached on the way, to show that the world proves something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Reached {
    pub(crate) landed_dead: bool,
    pub(crate) handed: bool,
    pub(crate) waited: bool,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) nodes: [Node; NODES],
    pub(crate) members: [Member; NODES],
    pub(crate) rows: [Row; PARTITIONS],
    pub(crate) appends: Vec<Append>,
    /// Sent so far, acknowledged, and what is left of the world's budget.
    pub(crate) values: u8,
    pub(crate) acked: Vec<u8>,
    pub(crate) crashes: u8,
    pub(crate) deaths: u8,
    pub(crate) losses: u8,
    pub(crate) reached: Reached,
}

impl State {
    /// Three nodes; the second one has joined last and owns nothing yet.
    fn begin() -> Self {
        let mut nodes = [Node { up: true, incarnation: 1, parts: Default::default() }; NODES];
        let mut rows: [Row; PARTITIONS] = Default::default();
        for (at, row) in rows.iter_mut().enumerate() {
            let owner = 2 * at;
            (row.owner, row.epoch) = (Some(owner as u8), 1);
            nodes[owner].parts[at].held = Some(Held { epoch: 1, head: 0 });
        }
        Self {
            nodes,
            members: [Member { incarnation: 1, alive: true }; NODES],
            rows,
            appends: Vec::new(),
            values: 0,
            acked: Vec::new(),
            crashes: 0,
            deaths: 0,
            losses: 0,
            reached: Reached::default(),
        }
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.rows.iter().flat_map(|row| &row.log)
    }
}

impl Model for World {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::begin()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        actions.extend(Step::possible(self, state));
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = state.clone();
        step.done(self, &mut next);
        next.appends.sort_by_key(|append| append.value);
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(EPOCHS, |_, state: &State| {
                state.rows.iter().all(|row| {
                    row.log.windows(2).all(|two| {
                        let [before, after] = two else { return true };
                        before.epoch < after.epoch
                            || (before.epoch == after.epoch && before.by == after.by)
                    })
                })
            }),
            Property::always(SEQS, |_, state: &State| {
                let is_next = |(at, entry): (usize, &Entry)| usize::from(entry.seq) == at + 1;
                state.rows.iter().all(|row| row.log.iter().enumerate().all(is_next))
            }),
            Property::always(ACKED, |_, state: &State| {
                let stands = |value: &u8| state.entries().any(|entry| entry.value == *value);
                // What is in the middle of its commit was not acknowledged yet.
                state.acked.iter().all(stands)
            }),
            Property::always(OWNERS, |world: &World, state: &State| {
                !world.heals || heal::finds_owners(world, state)
            }),
            Property::sometimes(
                "a commit lands after its node was declared dead",
                |_, state: &State| state.reached.landed_dead,
            ),
            Property::sometimes(
                "a handed over partition is written by its successor",
                |_, state: &State| state.reached.handed && state.entries().count() > 0,
            ),
            Property::sometimes(
                "a partition is written again after a lost answer",
                |_, state: &State| {
                    state.losses > 0
                        && state.rows.iter().any(|row| {
                            row.log.len() > 1 && row.log.windows(2).any(|w| w[0].epoch < w[1].epoch)
                        })
                },
            ),
            Property::sometimes("a take waits for a commit under way", |_, state: &State| {
                state.reached.waited
            }),
        ]
    }
}
