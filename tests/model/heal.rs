//! Healing: from any state on nothing goes wrong any more, time passes, and
//! every process does what its real cores say until nothing moves.
//!
//! This is where liveness is checked, as something that must always be so: the
//! checker's `eventually` does not see cycles.

use std::time::Duration;

use simpul::cluster::membership::{Membership, Rules};
use simpul::cluster::ownership::Orphans;

use crate::steps::{self, Step};
use crate::world::{NODES, PARTITIONS, State, World};

/// The time between two reads.
const ROUND: Duration = Duration::from_millis(250);
/// Enough for a silence, a restart, a patience and a planned move.
const ROUNDS: u32 = 60;

/// A process as it watches the others.
struct Watcher {
    membership: Membership,
    orphans: Orphans,
    incarnation: u8,
    up: bool,
}

impl Watcher {
    /// A process that has to come up again watches its own row like any other.
    fn of(state: &State, node: usize) -> Self {
        let own = &state.nodes[node];
        let (id, incarnation) = match own.up {
            true => (format!("n{node}"), own.incarnation.to_string()),
            false => (String::new(), String::new()),
        };
        Self {
            membership: Membership::new(&id, &incarnation, Rules::default()),
            orphans: Orphans::default(),
            incarnation: own.incarnation,
            up: own.up,
        }
    }

    fn is_of(&self, state: &State, node: usize) -> bool {
        let own = &state.nodes[node];
        (self.up, self.incarnation) == (own.up, own.incarnation)
    }
}

/// Whether every partition ends up with an owner that holds it under the row's
/// epoch and knows the log's end.
pub(crate) fn finds_owners(world: &World, state: &State) -> bool {
    let mut state = state.clone();
    let mut beats = [1; NODES];
    let mut watchers: Vec<_> = (0..NODES).map(|node| Watcher::of(&state, node)).collect();
    for round in 1..=ROUNDS {
        settle(world, &mut state);
        // Nothing of what is owned so moves again but to be balanced.
        if is_owned(world, &state) && everybody_lives(&state) {
            return true;
        }
        for (node, watcher) in watchers.iter_mut().enumerate() {
            if !watcher.is_of(&state, node) {
                *watcher = Watcher::of(&state, node);
            }
            act(world, &mut state, &mut beats, node, watcher, ROUND * round);
        }
    }
    false
}

/// Every transaction ends, every decided step is done.
fn settle(world: &World, state: &mut State) {
    while let Some(append) = state.appends.first().copied() {
        let node = &state.nodes[usize::from(append.node)];
        let runs = node.up && node.incarnation == append.incarnation;
        match runs || append.sent {
            true => steps::land(state, append.value, true),
            false => steps::abort(state, append.value),
        }
    }
    for node in 0..NODES as u8 {
        for partition in 0..PARTITIONS as u8 {
            for _ in 0..3 {
                Step::Proceed { node, partition }.done(world, state);
            }
        }
    }
}

/// One round of one process: beat, read, declare, decide.
fn act(
    world: &World,
    state: &mut State,
    beats: &mut [u64; NODES],
    node: usize,
    watcher: &mut Watcher,
    now: Duration,
) {
    let member = state.members[node];
    let number = node as u8;
    if !state.nodes[node].up && !member.alive {
        return steps::restart(state, number);
    }
    if state.nodes[node].up {
        if !member.alive || member.incarnation != state.nodes[node].incarnation {
            state.nodes[node].up = false;
            state.nodes[node].parts = Default::default();
            return;
        }
        beats[node] += 1;
    }
    let records = steps::records(&state.members, *beats);
    watcher.membership.observed(now, now, &records);
    for suspect in watcher.membership.suspects(now) {
        for (at, record) in records.iter().enumerate() {
            if record.info.id == suspect.id && beats[at] == suspect.beat {
                state.members[at].alive = false;
            }
        }
    }
    if state.nodes[node].up {
        let rows = steps::states(&state.rows);
        watcher.orphans.observed(&records, &rows, now);
        let times = (watcher.membership.changed(), now);
        let actions = steps::plan(state, number, &records, &watcher.orphans, times);
        steps::decide(world, state, number, actions);
    }
}

fn is_owned(world: &World, state: &State) -> bool {
    state.rows.iter().enumerate().take(world.partitions.into()).all(|(at, row)| {
        row.owner.is_some_and(|owner| {
            let node = &state.nodes[usize::from(owner)];
            let held = node.parts[at].held;
            node.up
                && held.is_some_and(|held| {
                    held.epoch == row.epoch && usize::from(held.head) == row.log.len()
                })
        })
    })
}

fn everybody_lives(state: &State) -> bool {
    state
        .nodes
        .iter()
        .zip(&state.members)
        .all(|(node, member)| node.up && member.alive && member.incarnation == node.incarnation)
}
