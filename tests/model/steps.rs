//! What can happen, one step at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use simpul::cluster::ownership::{self, Action, Orphans, View};
use simpul::store::chat::PartitionState;
use simpul::store::cluster::{NodeInfo, NodeRecord, NodeState};

use crate::world::{
    Append, Doing, Entry, Fault, Held, Member, NODES, Node, PARTITIONS, Part, Row, State, World,
};

/// One step; the numbers are a node's, a partition's, a value's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// The node reads both tables and decides. Everything has been as it is for
    /// long: second choices act and planned moves begin, which is more than can
    /// happen at any other time.
    Plan { node: u8 },
    /// The next store step of what it decided.
    Proceed { node: u8, partition: u8 },
    /// An append's first statement: the fence.
    Begin { node: u8, partition: u8 },
    /// The node sends COMMIT.
    Commit { value: u8 },
    /// It becomes durable; the answer arrives unless it is lost.
    Land { value: u8, answered: bool },
    /// The store ends a transaction that was idle, or whose session broke.
    Abort { value: u8 },
    /// Somebody declares the node dead; whether it is does not matter.
    Declare { node: u8 },
    /// The process ends without a word.
    Crash { node: u8 },
    /// It comes up as a new incarnation, once the old one is not alive.
    Restart { node: u8 },
    /// It learns that it was declared dead, and ends.
    Learn { node: u8 },
}

fn id(node: usize) -> String {
    format!("n{node}")
}

fn number(id: &str) -> Option<u8> {
    id.strip_prefix('n')?.parse().ok()
}

pub(crate) fn records(members: &[Member; NODES], beats: [u64; NODES]) -> Vec<NodeRecord> {
    let record = |(at, member): (usize, &Member)| NodeRecord {
        info: NodeInfo {
            id: id(at),
            incarnation: member.incarnation.to_string(),
            public_address: String::new(),
            mesh_address: String::new(),
            zone: String::new(),
            release: String::new(),
            started_at: 0,
        },
        state: if member.alive { NodeState::Live } else { NodeState::Dead },
        beat: beats[at],
        sessions: 0,
        locked: None,
    };
    members.iter().enumerate().map(record).collect()
}

pub(crate) fn states(rows: &[Row; PARTITIONS]) -> Vec<PartitionState> {
    let state = |(at, row): (usize, &Row)| PartitionState {
        partition: at as u16,
        owner: row.owner.map(|owner| id(owner.into())).unwrap_or_default(),
        epoch: row.epoch.into(),
        commit_no: row.log.len() as u64,
    };
    rows.iter().enumerate().map(state).collect()
}

/// What the real core decides for a node.
pub(crate) fn plan(
    state: &State,
    node: u8,
    nodes: &[NodeRecord],
    orphans: &Orphans,
    (changed, now): (Duration, Duration),
) -> Vec<Action> {
    let own = &state.nodes[usize::from(node)];
    let parts = || own.parts.iter().enumerate().map(|(at, part)| (at as u16, part));
    let held: BTreeMap<u16, u64> = parts()
        .filter_map(|(at, part)| part.held.map(|held| (at, u64::from(held.epoch))))
        .collect();
    let busy: BTreeSet<u16> =
        parts().filter(|(_, part)| part.doing.is_some()).map(|(at, _)| at).collect();
    ownership::plan(&View {
        me: &id(node.into()),
        incarnation: &own.incarnation.to_string(),
        draining: false,
        nodes,
        rows: &states(&state.rows),
        held: &held,
        busy: &busy,
        orphans,
        changed,
        now,
        moves: PARTITIONS,
    })
}

/// Notes decisions as steps to be done.
pub(crate) fn decide(world: &World, state: &mut State, node: u8, actions: Vec<Action>) {
    let works = |partition: u16| partition < u16::from(world.partitions);
    let in_flight = |state: &State, partition: u16| {
        state.appends.iter().any(|append| {
            append.node == node
                && u16::from(append.partition) == partition
                && append.incarnation == state.nodes[usize::from(node)].incarnation
        })
    };
    for action in actions {
        match action {
            Action::Take { seen, .. } if works(seen.partition) => {
                let at = usize::from(seen.partition);
                let head = state.rows[at].log.len() as u8;
                let (owner, epoch) = (number(&seen.owner), seen.epoch as u8);
                let part = &mut state.nodes[usize::from(node)].parts[at];
                part.held = None;
                part.doing = Some(Doing::Take { owner, epoch, head });
            }
            // The flush: stopped only when no append is under way.
            Action::HandOver { partition, .. } if in_flight(state, partition) => {}
            Action::Take { .. } => {}
            Action::HandOver { partition, .. } if !works(partition) => {}
            Action::HandOver { partition, successor } => {
                let part = &mut state.nodes[usize::from(node)].parts[usize::from(partition)];
                let successor = number(&successor).expect("a node");
                if let Some(held) = part.held.take() {
                    part.doing = Some(Doing::Release { epoch: held.epoch, successor });
                }
            }
            Action::Lose { partition } => {
                state.nodes[usize::from(node)].parts[usize::from(partition)].held = None;
            }
        }
    }
}

impl Step {
    /// Everything that can happen now.
    pub(crate) fn possible(world: &World, state: &State) -> Vec<Step> {
        let mut steps = Vec::new();
        for node in 0..NODES as u8 {
            let own = &state.nodes[usize::from(node)];
            let member = state.members[usize::from(node)];
            let is_member = member.alive && member.incarnation == own.incarnation;
            if own.up {
                steps.push(Step::Plan { node });
                steps.extend((0..world.partitions).flat_map(|partition| {
                    [Step::Proceed { node, partition }, Step::Begin { node, partition }]
                }));
                if state.crashes < world.crashes {
                    steps.push(Step::Crash { node });
                }
                if !is_member {
                    steps.push(Step::Learn { node });
                }
            } else if !member.alive {
                steps.push(Step::Restart { node });
            }
            if member.alive && state.deaths < world.deaths {
                steps.push(Step::Declare { node });
            }
        }
        for append in &state.appends {
            let value = append.value;
            if !append.sent {
                steps.extend([Step::Commit { value }, Step::Abort { value }]);
                continue;
            }
            steps.push(Step::Land { value, answered: true });
            if state.losses < world.losses {
                steps.extend([Step::Land { value, answered: false }, Step::Abort { value }]);
            }
        }
        steps
    }

    /// What the step makes of the state; nothing where it is not possible.
    pub(crate) fn done(self, world: &World, state: &mut State) {
        match self {
            Step::Plan { node } => {
                let nodes = records(&state.members, [1; NODES]);
                let mut orphans = Orphans::default();
                orphans.observed(&nodes, &states(&state.rows), Duration::ZERO);
                let now = Duration::from_secs(60);
                let actions = plan(state, node, &nodes, &orphans, (Duration::ZERO, now));
                decide(world, state, node, actions);
            }
            Step::Proceed { node, partition } => proceed(world, state, node, partition),
            Step::Begin { node, partition } => begin(world, state, node, partition),
            Step::Commit { value } => {
                let append = state.appends.iter_mut().find(|append| append.value == value);
                if let Some(append) = append {
                    append.sent = true;
                }
            }
            Step::Land { value, answered } => land(state, value, answered),
            Step::Abort { value } => abort(state, value),
            Step::Declare { node } => {
                state.members[usize::from(node)].alive = false;
                state.deaths += 1;
            }
            Step::Crash { node } => {
                state.crashes += 1;
                end(state, node);
            }
            Step::Learn { node } => end(state, node),
            Step::Restart { node } => restart(state, node),
        }
    }
}

/// The process is gone. What it had not committed is rolled back when the store
/// notices ([`Step::Abort`]).
fn end(state: &mut State, node: u8) {
    let own = &mut state.nodes[usize::from(node)];
    own.up = false;
    own.parts = [Part::default(); PARTITIONS];
}

pub(crate) fn restart(state: &mut State, node: u8) {
    let own = &mut state.nodes[usize::from(node)];
    let incarnation = own.incarnation + 1;
    *own = Node { up: true, incarnation, parts: Default::default() };
    state.members[usize::from(node)] = Member { incarnation, alive: true };
}

fn is_locked(state: &State, partition: u8) -> bool {
    state.appends.iter().any(|append| append.partition == partition)
}

fn proceed(world: &World, state: &mut State, node: u8, partition: u8) {
    let locked = is_locked(state, partition) && world.fault != Fault::NoFence;
    let at = usize::from(partition);
    let row = &mut state.rows[at];
    let part = &mut state.nodes[usize::from(node)].parts[at];
    match part.doing {
        Some(Doing::Take { .. }) if locked => state.reached.waited = true,
        Some(Doing::Release { .. }) if locked => {}
        Some(Doing::Take { owner, epoch, head }) => {
            part.doing = (row.owner == owner && row.epoch == epoch)
                .then_some(Doing::Taken { epoch: epoch + 1, head });
            if part.doing.is_some() {
                (row.owner, row.epoch) = (Some(node), epoch + 1);
            }
        }
        Some(Doing::Taken { .. }) => read_head(world, state, node, at),
        Some(Doing::Release { epoch, successor }) => {
            part.doing = None;
            if row.owner == Some(node) && row.epoch == epoch {
                (row.owner, row.epoch) = (Some(successor), epoch + 1);
                state.reached.handed = true;
            }
        }
        None => {}
    }
}

/// The later statement that reads what is owned now.
fn read_head(world: &World, state: &mut State, node: u8, at: usize) {
    let now = state.rows[at].log.len() as u8;
    let part = &mut state.nodes[usize::from(node)].parts[at];
    if let Some(Doing::Taken { epoch, head }) = part.doing {
        let head = if world.fault == Fault::HeadInTake { head } else { now };
        *part = Part { held: Some(Held { epoch, head }), doing: None };
    }
}

fn begin(world: &World, state: &mut State, node: u8, partition: u8) {
    let at = usize::from(partition);
    let own = &mut state.nodes[usize::from(node)];
    let incarnation = own.incarnation;
    let Some(held) = own.parts[at].held else { return };
    let mine = |append: &Append| {
        append.partition == partition && (append.node, append.incarnation) == (node, incarnation)
    };
    if state.values == world.values || state.appends.iter().any(mine) {
        return;
    }
    if world.fault != Fault::NoFence {
        let row = &state.rows[at];
        if row.owner != Some(node) || row.epoch != held.epoch {
            own.parts[at].held = None;
            return;
        }
        // Skipped is not fenced: it is looked at again.
        if state.appends.iter().any(|append| append.partition == partition) {
            return;
        }
    }
    let value = state.values;
    state.values += 1;
    let Held { epoch, head } = held;
    let seq = head + 1;
    state.appends.push(Append { node, incarnation, partition, epoch, seq, value, sent: false });
    if world.fault == Fault::AckFirst {
        state.acked.push(value);
    }
}

fn take_append(state: &mut State, value: u8) -> Option<Append> {
    let at = state.appends.iter().position(|append| append.value == value)?;
    Some(state.appends.remove(at))
}

/// The ownership under which an append was made, if its node still has it.
fn holder<'a>(state: &'a mut State, append: &Append) -> Option<&'a mut Part> {
    let node = &mut state.nodes[usize::from(append.node)];
    let part = &mut node.parts[usize::from(append.partition)];
    let holds = part.held.is_some_and(|held| held.epoch == append.epoch);
    (node.up && node.incarnation == append.incarnation && holds).then_some(part)
}

pub(crate) fn land(state: &mut State, value: u8, answered: bool) {
    let Some(append) = take_append(state, value) else { return };
    let Append { node, incarnation, partition, epoch, seq, .. } = append;
    state.losses += u8::from(!answered);
    let by = (node, incarnation);
    state.rows[usize::from(partition)].log.push(Entry { seq, value, epoch, by });
    let member = state.members[usize::from(node)];
    state.reached.landed_dead |= !member.alive || member.incarnation != incarnation;
    let Some(part) = holder(state, &append) else { return };
    if answered {
        part.held = Some(Held { epoch, head: seq });
        if !state.acked.contains(&value) {
            state.acked.push(value);
        }
    } else {
        // The outcome is not known: the partition is taken again.
        part.held = None;
    }
}

pub(crate) fn abort(state: &mut State, value: u8) {
    let Some(append) = take_append(state, value) else { return };
    state.losses += u8::from(append.sent);
    // Its node cannot tell this from a lost answer.
    if let Some(part) = holder(state, &append) {
        part.held = None;
    }
}
