//! What the driver asks of its surroundings, as traits: the links, the memory of
//! past runs, and whoever clears up after a node that died.

use std::time::Duration;

use async_trait::async_trait;

use crate::chat::peers::Position;
use crate::store::chat::PartitionState;
use crate::store::cluster::{NodeInfo, NodeRecord, StoreIdentity};

/// The links to the other nodes. Nothing here blocks.
#[async_trait]
pub trait Mesh: Send + Sync + std::fmt::Debug {
    /// Of nodes that live, those that cannot be linked with this one as things are,
    /// since either does not believe the other; none of them when at least one can
    /// be. Who cannot be reached says nothing. Seconds at most. Cancel safe.
    async fn distrust(&self, nodes: &[NodeInfo]) -> Vec<Distrust>;

    /// This node takes part, as this incarnation, on this database: what its
    /// Hello says from now on.
    fn joined(&self, node: &NodeInfo, store: &StoreIdentity);

    /// A read: the nodes that are believed to live, this one included, and the
    /// partitions. `began` is the boot clock's time at which the read began.
    fn observed(&self, alive: &[NodeRecord], partitions: &[PartitionState], began: Duration);

    /// Partitions are this node's since just now, and chat orders them: others
    /// may follow them.
    fn owning(&self, positions: &[Position]);

    /// A partition is not ordered here any more; who is to have it, the next
    /// read shows.
    fn lost(&self, partition: u16, epoch: u64);

    /// A partition was released in the store, under this epoch, to a node.
    fn hand_over(&self, to: &str, partition: u16, epoch: u64);

    /// This node is stopping.
    fn draining(&self);

    /// How each node is reached, by id; nodes that were never dialed are absent.
    fn links(&self) -> Vec<LinkState>;
}

/// A node and this one do not believe each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distrust {
    /// The node's id.
    pub node: String,
    /// Who does not believe whom, and why not.
    pub why: String,
}

/// How another node is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkState {
    /// The node.
    pub node: String,
    /// How many of the connections to it stand.
    pub connections: u32,
    /// The newest round trip.
    pub round_trip: Option<Duration>,
    /// Bytes that wait to be sent.
    pub backlog_bytes: u64,
    /// Why there is no link; empty when there is one.
    pub problem: String,
}

/// Remembers which incarnations ran on this node's data directory. Whoever
/// holds the directory's lock knows that all of them are over.
pub trait Incarnations: Send + Sync + std::fmt::Debug {
    /// Those of earlier runs, and of this one.
    fn known(&self) -> Vec<String>;

    /// This one begins. It is durable when this returns.
    fn begin(&self, incarnation: &str) -> std::io::Result<()>;
}

/// Clears up after a node that died.
#[async_trait]
pub trait Recovery: Send + Sync + std::fmt::Debug {
    /// The incarnation is over: what it had under way is taken up by somebody.
    /// Called again until it succeeds, and by more than one node.
    async fn recover_of(&self, incarnation: &str) -> Result<(), String>;
}
