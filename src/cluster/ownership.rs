//! Who should own which partition, and what this node does about it.
//!
//! *Desired owners* come of a rendezvous hash over the nodes that take part and
//! do not drain: every node computes the same from the same rows, and a node
//! that joins or goes moves only the partitions that become or were its own.
//!
//! *Nothing is taken from a node that is alive:* it is asked for nothing either,
//! it hands over by itself ([`Action::HandOver`]) what others ought to own. Taken
//! is what nobody owns, what a node owned that is dead by the table, and what
//! names this node although it does not hold it (from a life before, or after a
//! commit whose outcome it does not know).
//!
//! *A second choice.* The desired owner of an orphan may be unable to take it (it
//! reads an older table, it is cut off and not yet dead). The next in the ranking
//! takes what has been an orphan for [`PATIENCE`], the one after it twice that.
//!
//! Every action is a compare-and-set on the row that was seen: two nodes with
//! different views never both succeed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::store::chat::PartitionState;
use crate::store::cluster::{NodeRecord, NodeState};

/// How long each node of a ranking waits for the one before it.
pub const PATIENCE: Duration = Duration::from_millis(1_500);

/// How long the live nodes must have been the same before anything moves that
/// need not: a roll changes them several times within seconds.
pub const SETTLED: Duration = Duration::from_secs(1);

/// What to do; each step for itself, in any order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Take a partition, if its row is still so.
    Take {
        /// The row.
        seen: PartitionState,
        /// The incarnation that held it, as far as it is known, else empty: its
        /// hanging transactions may be ended.
        from_incarnation: String,
    },
    /// Stop, flush and release a partition that this node holds.
    HandOver {
        /// The partition.
        partition: u16,
        /// The node that is to have it.
        successor: String,
    },
    /// The partition is held here no more: its row shows a later epoch than the
    /// one under which this node held it.
    Lose {
        /// The partition.
        partition: u16,
    },
}

/// What a decision rests on.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// This node.
    pub me: &'a str,
    /// This run of it.
    pub incarnation: &'a str,
    /// It hands over everything.
    pub draining: bool,
    /// The node table as of the last read.
    pub nodes: &'a [NodeRecord],
    /// The partition table as of the same read.
    pub rows: &'a [PartitionState],
    /// What this node holds, with the epoch of each.
    pub held: &'a BTreeMap<u16, u64>,
    /// Partitions on which a step is under way; left alone.
    pub busy: &'a BTreeSet<u16>,
    /// Since when rows have been orphans.
    pub orphans: &'a Orphans,
    /// When the live nodes last changed (the boot clock's time).
    pub changed: Duration,
    /// Now.
    pub now: Duration,
    /// How many hand-overs may begin now; a node that drains begins all.
    pub moves: usize,
}

/// Since when which partitions have had no living owner, as this node saw it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Orphans(BTreeMap<u16, Duration>);

impl Orphans {
    /// A read showed these tables, at this time.
    pub fn observed(&mut self, nodes: &[NodeRecord], rows: &[PartitionState], now: Duration) {
        let before = std::mem::take(&mut self.0);
        self.0 = rows
            .iter()
            .filter(|row| !owner_lives(nodes, row))
            .map(|row| (row.partition, before.get(&row.partition).copied().unwrap_or(now)))
            .collect();
    }

    /// For how long a partition has been one; nothing when it is none.
    fn age(&self, partition: u16, now: Duration) -> Duration {
        self.0.get(&partition).map_or(Duration::ZERO, |since| now.saturating_sub(*since))
    }
}

/// What this node does now: losses, takes, then hand-overs, by partition.
pub fn plan(view: &View<'_>) -> Vec<Action> {
    let mut candidates = candidates(view.nodes);
    // Before its row says so, a node that drains knows it. Where all the others
    // drain too, somebody must have what the dead leave.
    let live = |id: &str| {
        view.nodes.iter().any(|node| node.info.id == id && node.state == NodeState::Live)
    };
    if view.draining && candidates.iter().any(|id| *id != view.me && live(id)) {
        candidates.retain(|id| *id != view.me);
    }
    let rows = || view.rows.iter().filter(|row| !view.busy.contains(&row.partition));
    let mut actions: Vec<Action> = rows()
        .filter(|row| view.held.get(&row.partition).is_some_and(|epoch| *epoch < row.epoch))
        .map(|row| Action::Lose { partition: row.partition })
        .collect();
    actions.extend(rows().filter_map(|row| take(view, &candidates, row)));
    let may_move = view.draining || view.now.saturating_sub(view.changed) >= SETTLED;
    let moves = match may_move {
        true if view.draining => usize::MAX,
        true => view.moves,
        false => 0,
    };
    actions.extend(rows().filter_map(|row| hand_over(view, &candidates, row)).take(moves));
    actions
}

/// The step that takes a row, if it is this node's turn.
fn take(view: &View<'_>, candidates: &[&str], row: &PartitionState) -> Option<Action> {
    // A row as old as what is held is held, or was read before it was taken.
    if view.held.get(&row.partition).is_some_and(|epoch| *epoch >= row.epoch) {
        return None;
    }
    if row.owner == view.me {
        let from_incarnation = view.incarnation.to_owned();
        return Some(Action::Take { seen: row.clone(), from_incarnation });
    }
    if owner_lives(view.nodes, row) {
        return None;
    }
    let place = ranking(row.partition, candidates).iter().position(|id| *id == view.me)?;
    let wait = PATIENCE.saturating_mul(u32::try_from(place).unwrap_or(u32::MAX));
    if view.orphans.age(row.partition, view.now) < wait {
        return None;
    }
    let held_by = view.nodes.iter().find(|node| node.info.id == row.owner);
    let from_incarnation = held_by.map(|node| node.info.incarnation.clone()).unwrap_or_default();
    Some(Action::Take { seen: row.clone(), from_incarnation })
}

/// The step that hands a row over, if it is held and somebody else's by right.
fn hand_over(view: &View<'_>, candidates: &[&str], row: &PartitionState) -> Option<Action> {
    if row.owner != view.me || view.held.get(&row.partition) != Some(&row.epoch) {
        return None;
    }
    // Where everybody drains there is nobody to hand over to.
    let draining = |id: &str| {
        view.nodes.iter().any(|node| node.info.id == id && node.state == NodeState::Draining)
    };
    ranking(row.partition, candidates)
        .first()
        .filter(|successor| **successor != view.me && !draining(successor))
        .map(|successor| Action::HandOver {
            partition: row.partition,
            successor: (*successor).to_owned(),
        })
}

/// Whether the row's owner takes part.
fn owner_lives(nodes: &[NodeRecord], row: &PartitionState) -> bool {
    nodes.iter().any(|node| node.info.id == row.owner && node.state.is_alive())
}

/// The nodes that may own: the live ones; those that drain when there are no
/// others.
fn candidates(nodes: &[NodeRecord]) -> Vec<&str> {
    let of = |state| {
        let those = nodes.iter().filter(move |node| node.state == state);
        those.map(|node| node.info.id.as_str()).collect::<Vec<_>>()
    };
    let live = of(NodeState::Live);
    if live.is_empty() { of(NodeState::Draining) } else { live }
}

/// The node that ought to own a partition, by the node table.
pub fn desired(partition: u16, nodes: &[NodeRecord]) -> Option<&str> {
    ranking(partition, &candidates(nodes)).first().copied()
}

/// The ids from the most to the least desired owner.
pub fn ranking<'a>(partition: u16, ids: &[&'a str]) -> Vec<&'a str> {
    let mut ranked = ids.to_vec();
    ranked.sort_by_cached_key(|id| (Reverse(weight(partition, id)), *id));
    ranked
}

/// The rendezvous weight: FNV-1a of the id, mixed with the mixed partition
/// number. Part of the contract between releases, since nodes of two releases
/// must desire the same owners: never to be changed.
pub fn weight(partition: u16, id: &str) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let name = id.bytes().fold(BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    mix(name ^ mix(u64::from(partition)))
}

/// The finalizer of splitmix64: each bit of the input moves about half of those
/// of the output.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests;
