//! The tables, and who has which row locked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::ledger::Books;
use crate::principal::Principal;
use crate::store::chat::{Entry, KeyRecord, MemberRecord, PartitionState, RoomId, RoomRecord};
use crate::store::cluster::{Agreement, Letter, NodeRecord, Observation, StoreIdentity};

/// Everything that is committed, and the locks.
#[derive(Debug, Default)]
pub(super) struct Data {
    pub(super) identity: StoreIdentity,
    pub(super) agreement: Option<Agreement>,
    /// Each part of an append has a transaction of its own.
    pub(super) apart: bool,
    pub(super) partitions: BTreeMap<u16, PartitionState>,
    pub(super) rooms: BTreeMap<(u16, RoomId), Room>,
    pub(super) entries: BTreeMap<(u16, RoomId, u64), Entry>,
    pub(super) keys: BTreeMap<Key, KeyRecord>,
    pub(super) members: BTreeMap<(u16, RoomId, Principal), MemberRecord>,
    pub(super) nodes: BTreeMap<String, NodeRecord>,
    pub(super) letters: BTreeMap<i64, Posted>,
    pub(super) last_letter: i64,
    /// Accounts and payments.
    pub(super) books: Books,
    /// Which transaction has which partition's row locked.
    pub(super) locks: BTreeMap<u16, u64>,
    pub(super) last_transaction: u64,
    /// Transactions that were ended by others.
    pub(super) ended: BTreeSet<u64>,
}

/// (partition, room, sender, client message id)
pub(super) type Key = (u16, RoomId, Principal, Arc<str>);

/// A room's row.
#[derive(Debug, Clone)]
pub(super) struct Room {
    pub(super) record: RoomRecord,
    /// Deleted, and there is something left to erase.
    pub(super) erase: bool,
}

/// A letter and its answer.
#[derive(Debug, Clone)]
pub(super) struct Posted {
    pub(super) letter: Letter,
    pub(super) answer: Option<Vec<u8>>,
}

/// Heads as of before a takeover waited, by partition and room: what the planted
/// fault [`crate::fault::Plant::HeadInTake`] works with.
pub(super) type Stale = BTreeMap<u16, BTreeMap<RoomId, u64>>;

impl Data {
    /// The heads of a partition's rooms.
    pub(super) fn heads_of(&self, partition: u16) -> BTreeMap<RoomId, u64> {
        let rooms = self.rooms.range((partition, RoomId::from(""))..);
        rooms
            .take_while(|((of, _), _)| *of == partition)
            .map(|((_, room), row)| (room.clone(), row.record.head))
            .collect()
    }

    /// Everything that the nodes of a cluster look at.
    pub(super) fn observation(&self) -> Observation {
        Observation { nodes: self.nodes.values().cloned().collect(), partitions: self.states() }
    }

    /// The partitions' rows.
    pub(super) fn states(&self) -> Vec<PartitionState> {
        self.partitions.values().cloned().collect()
    }
}
