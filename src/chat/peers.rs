//! What chat and the other nodes of a cluster ask of each other.
//!
//! A node orders the rooms of the partitions that it owns, and follows rooms of
//! other partitions that somebody reads here. [`Peers`] is what chat needs of
//! the cluster for that; [`Partitions`] is what the cluster tells chat. A lone
//! node owns every partition and has no peers.
//!
//! *How fresh a followed room is.* An owner sends what it commits in order, with
//! the partition's commit number. A read of the partitions' rows that began at
//! T and shows commit number N proves every room that is followed over the link
//! to be as of T once everything up to N has arrived. A room without a link is
//! as of the last look at its head in the store. Readers go on only with a room
//! that is as of at most a second ago.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::Job;
use crate::refusal::Refusal;
use crate::store::chat::{Change, PartitionState, RoomId};

/// The other nodes. Called often and from everywhere: nothing here blocks.
pub trait Peers: Send + Sync + std::fmt::Debug {
    /// Brings a job to its partition's owner, wherever that is by then, this
    /// node included. Jobs of one partition arrive in the order of the calls.
    /// Each is answered, at the latest when its time is over; what cannot be
    /// taken in is refused at once.
    fn submit(&self, partition: u16, job: Job);

    /// Whether jobs of the partition wait here: others then go behind them, also
    /// when the partition is this node's by now.
    fn waits(&self, partition: u16) -> bool;

    /// A room of another node's partition is read here: its owner is to send
    /// what it appends. Answered by [`Partitions::followed`].
    fn follow(&self, partition: u16, room: &RoomId);

    /// The room is read here no more.
    fn unfollow(&self, partition: u16, room: &RoomId);

    /// Whether any other node follows rooms of this one: without, nobody needs
    /// [`Peers::appended`].
    fn is_followed(&self) -> bool;

    /// This node committed.
    fn appended(&self, delivery: &Delivery);

    /// An append was fenced, or its outcome is not known: the partition is this
    /// node's no more until it is assigned again.
    fn lost(&self, partition: u16, epoch: u64);
}

/// What one commit appended to one partition.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The partition.
    pub partition: u16,
    /// The epoch under which it was committed.
    pub epoch: u64,
    /// The partition's commit number after it.
    pub commit_no: u64,
    /// Room by room.
    pub rooms: Vec<RoomDelivery>,
}

/// What one commit appended to one room.
#[derive(Debug, Clone)]
pub struct RoomDelivery {
    /// The room.
    pub room: RoomId,
    /// Runs of framed entries, in order; their bytes are those that sessions
    /// send. None, unless the room was deleted, says that something happened
    /// which is not in here: the room is read from the store.
    pub runs: Vec<Run>,
    /// What changed beside the log, in order.
    pub changes: Vec<Change>,
    /// The traces (W3C traceparent) of entries that are traced, by seq.
    pub traces: Vec<(u64, String)>,
    /// The room was deleted.
    pub deleted: bool,
}

/// Framed entries with consecutive seqs, back to back.
#[derive(Debug, Clone)]
pub struct Run {
    /// The first entry's seq.
    pub first: u64,
    /// Where each entry ends, bytes.
    pub ends: Vec<u32>,
    /// The entries.
    pub bytes: Bytes,
}

/// What a partition was released with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// The epoch under which it was owned.
    pub epoch: u64,
}

/// How far an owned partition is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The partition.
    pub partition: u16,
    /// The epoch under which this node owns it.
    pub epoch: u64,
    /// Everything up to this commit has been given to [`Peers::appended`].
    pub commit_no: u64,
}

/// The heads of an owned partition's rooms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heads {
    /// Where the partition stands; the heads include everything up to it.
    pub position: Position,
    /// In the order asked; 0 for a room that is not there.
    pub heads: Vec<u64>,
}

/// What the cluster tells chat. `began` is always the boot clock's time at which
/// the read or write began that showed it.
#[async_trait]
pub trait Partitions: Send + Sync + std::fmt::Debug {
    /// How many there are.
    fn count(&self) -> u16;

    /// The partition is this node's, under this epoch and from this commit on.
    /// What is in memory of its rooms is read afresh.
    async fn assign(&self, taken: &PartitionState, began: Duration);

    /// Stops ordering the partition: jobs go to [`Peers::submit`] from now on.
    /// Returns when no append of it is under way; `None` when it is not owned.
    async fn release(&self, partition: u16) -> Option<Released>;

    /// The partition is not this node's (any more).
    fn lose(&self, partition: u16);

    /// What a read of the partitions' rows showed.
    fn observed(&self, rows: &[PartitionState], began: Duration);

    /// Orders a job that another node or a letter brought. It is never passed
    /// on: unless the partition is owned it is refused with NOT_OWNER. Waits for
    /// a place.
    async fn order(&self, job: Job);

    /// The heads of rooms, for a node that has just subscribed to them; `None`
    /// unless the partition is owned.
    async fn heads(&self, partition: u16, rooms: &[RoomId]) -> Option<Heads>;

    /// An owner sends from now on what it appends to these rooms; their heads
    /// were read after that.
    fn followed(&self, position: &Position, heads: &[(RoomId, u64)]);

    /// An owner committed; in order for each partition.
    fn deliver(&self, delivery: Delivery);

    /// Everything that the owner committed up to here has been delivered.
    fn reached(&self, position: &Position);

    /// Nobody sends the partition's appends (the link broke, or left something
    /// out, or the owner changed): its rooms are read from the store, until they
    /// are followed anew. Every followed room of the partition is asked for by
    /// [`Peers::follow`] again when [`Partitions::refollow`] is called.
    fn unlinked(&self, partition: u16);

    /// There is a link to the partition's owner: asks for each of its rooms that
    /// is read here with [`Peers::follow`].
    fn refollow(&self, partition: u16);

    /// Where each owned partition stands.
    fn positions(&self) -> Vec<Position>;

    /// Open sessions.
    fn sessions(&self) -> usize;

    /// Tells so many sessions, picked at random, to go elsewhere: Notice MOVE
    /// with these addresses, within a jitter. Returns how many were told.
    fn move_sessions(&self, count: usize, hints: &[String], jitter: Duration) -> usize;

    /// Ends every session with this refusal, after Notice DRAINING: for a node
    /// that can serve nobody (it reaches neither the store nor the owners).
    /// Returns how many there were; what has no sessions ends none.
    fn turn_away(&self, why: &Refusal) -> usize {
        let _ = why;
        0
    }
}
