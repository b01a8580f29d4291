//! Who takes part, and who owns which partition: what the nodes of a cluster
//! share through the store.
//!
//! Everything here is compare-and-set on single rows, so that it is safe
//! whatever a node believes: a claim that rests on an old view changes nothing.
//! No clock of the store is read and none is compared.

use async_trait::async_trait;

use super::StoreError;
use super::chat::PartitionState;

/// What a node is; the numbers are the contract's and the database's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum NodeState {
    /// It takes part.
    Live = 1,
    /// It hands over what it owns. An operator may ask for it by writing it.
    Draining = 2,
    /// It stopped by itself.
    Left = 3,
    /// It was declared dead; this incarnation never beats again.
    Dead = 4,
}

impl NodeState {
    /// The state of a number; `None` for any other.
    pub fn from_number(number: i64) -> Option<Self> {
        Some(match number {
            1 => NodeState::Live,
            2 => NodeState::Draining,
            3 => NodeState::Left,
            4 => NodeState::Dead,
            _ => return None,
        })
    }

    /// Whether the node takes part.
    pub fn is_alive(self) -> bool {
        matches!(self, NodeState::Live | NodeState::Draining)
    }
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its stable id.
    pub id: String,
    /// This run of it, a UUID.
    pub incarnation: String,
    /// Where clients reach it, `host:port`; empty when it does not say.
    pub public_address: String,
    /// Where nodes reach it, `host:port`.
    pub mesh_address: String,
    /// Where it stands; empty when it does not say.
    pub zone: String,
    /// Its release.
    pub release: String,
    /// Microseconds since 1970, by its own clock.
    pub started_at: i64,
}

/// A node's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// What it said when it joined.
    pub info: NodeInfo,
    /// What it is.
    pub state: NodeState,
    /// Raised as long as it lives.
    pub beat: u64,
    /// Open chat sessions, as of the last beat.
    pub sessions: u32,
    /// Where liveness is a lock and not a beat (several nodes on one SQLite
    /// file): whether the lock is held. `None` on the other engines.
    pub locked: Option<bool>,
}

/// One read of everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observation {
    /// By id; nodes that are not alive are kept for a day or longer.
    pub nodes: Vec<NodeRecord>,
    /// By partition.
    pub partitions: Vec<PartitionState>,
}

/// What became of a join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Joined {
    /// The node takes part.
    New,
    /// Another incarnation of the id is alive as far as the store knows.
    Taken(Box<NodeRecord>),
}

/// What the nodes of a cluster have alike, each by its own configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreement {
    /// The cluster's name.
    pub cluster: String,
    /// The trust domain of its nodes.
    pub trust_domain: String,
}

/// Which database this is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreIdentity {
    /// A name of its own, the same on its standbys.
    pub system_id: String,
    /// Raised when a standby is promoted; 0 where the engine has none.
    pub timeline: u64,
}

/// Something left in the store for a partition's owner, by a node that reaches
/// the store but not the owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Names it.
    pub id: i64,
    /// For whoever owns this partition.
    pub partition: u16,
    /// The incarnation that waits for the answer.
    pub from: String,
    /// An encoded `simpul.cluster.v1.Publish`.
    pub body: Vec<u8>,
}

/// The cluster area. Every future is cancel safe in the sense that what it
/// writes happens whole or not at all.
#[async_trait]
pub trait ClusterStore: Send + Sync + std::fmt::Debug {
    /// Which database this is, asked anew each time.
    async fn identity(&self) -> Result<StoreIdentity, StoreError>;

    /// Another node works on this timeline of the same database: a server of an
    /// older one must not be used from now on.
    fn saw_timeline(&self, _timeline: u64) {}

    /// Makes the partitions exist, 0 to `count` - 1, owned by nobody. Refuses
    /// ([`StoreError::Version`]) a store that was made with another count.
    async fn ensure_partitions(&self, count: u16) -> Result<(), StoreError>;

    /// What the first node wrote of these into the store: `own` where nobody has
    /// yet. For good: a store is one cluster's. A release that knows nothing of
    /// it works on the same store.
    async fn agree(&self, own: &Agreement) -> Result<Agreement, StoreError>;

    /// Puts the node's row, LIVE with beat 1, in the place of an incarnation
    /// that is not alive.
    async fn join(&self, node: &NodeInfo) -> Result<Joined, StoreError>;

    /// Raises the beat and says how many sessions there are. Gives the state, so
    /// that a wish to drain is seen; `None` when this incarnation has been
    /// declared dead or replaced: it must not go on.
    async fn beat(
        &self,
        id: &str,
        incarnation: &str,
        sessions: u32,
    ) -> Result<Option<NodeState>, StoreError>;

    /// Everything, in one snapshot.
    async fn observe(&self) -> Result<Observation, StoreError>;

    /// Declares an incarnation dead if it is alive and its beat is still this
    /// one. False when it is not so.
    async fn declare_dead(
        &self,
        id: &str,
        incarnation: &str,
        beat: u64,
    ) -> Result<bool, StoreError>;

    /// Changes the state of an incarnation that is alive (to DRAINING or LEFT).
    /// False when it is not alive.
    async fn set_state(
        &self,
        id: &str,
        incarnation: &str,
        state: NodeState,
    ) -> Result<bool, StoreError>;

    /// Takes a partition whose row still names this owner and epoch: the owner
    /// becomes `by`, the epoch is raised by one; nothing else is done in that
    /// transaction. `None` when the row names something else. An append that
    /// has the row fenced is waited for, and ended if it hangs: `from`, the
    /// incarnation that held it, names its sessions ("" when not known).
    async fn take(
        &self,
        seen: &PartitionState,
        by: &str,
        from: &str,
    ) -> Result<Option<PartitionState>, StoreError>;

    /// Releases a partition that is owned under this epoch to a successor: the
    /// row then names it, under the next epoch. `None` when it is not owned so.
    async fn release(
        &self,
        partition: u16,
        owner: &str,
        epoch: u64,
        successor: &str,
    ) -> Result<Option<PartitionState>, StoreError>;

    /// Leaves a letter; gives its id.
    async fn leave_letter(
        &self,
        partition: u16,
        from: &str,
        body: &[u8],
    ) -> Result<i64, StoreError>;

    /// Letters for these partitions that have no answer yet, oldest first.
    async fn letters(&self, partitions: &[u16], limit: u32) -> Result<Vec<Letter>, StoreError>;

    /// Answers letters (encoded `simpul.cluster.v1.Published`).
    async fn answer_letters(&self, answers: Vec<(i64, Vec<u8>)>) -> Result<(), StoreError>;

    /// Takes the answers to one's letters away.
    async fn collect_answers(&self, from: &str) -> Result<Vec<(i64, Vec<u8>)>, StoreError>;

    /// Removes what nobody needs: the rows of these incarnations, if they are
    /// not alive, and the letters of every incarnation that is not.
    async fn tidy_cluster(&self, over: Vec<String>) -> Result<(), StoreError>;
}
