//! Links between nodes.
//!
//! Every node opens links of its own to every other node and *asks* on them: it
//! brings what is to be appended to the owner of its partition, and subscribes
//! to rooms that are read here. The other side *answers and sends*. So a pair
//! of nodes has links in both directions, and each direction has one meaning.
//!
//! ```text
//!   outgoing (asks)                          incoming (answers)
//!   Publish ─────────────────────────────▶   Partitions::order ──▶ Published
//!   Subscribe ───────────────────────────▶   interest, then heads ──▶ Subscribed
//!   Ping ────────────────────────────────▶   Partitions::positions ──▶ Pong
//!   Partitions::deliver  ◀───────── Append   ◀── Peers::appended
//! ```
//!
//! *No lost last message.* A room is registered before its head is read, frames
//! of a link stay in order, and a Pong says how far each followed partition is:
//! everything up to there has been sent before. Whatever breaks that chain (the
//! link, a full backlog, another owner, another epoch) is told to chat at once
//! ([`Partitions::unlinked`]); its rooms are then read from the store until they
//! are followed anew.
//!
//! *Which connection.* Partitions are spread over the connections to a node by
//! number, so everything of one partition is in order. While the connection of a
//! partition is down, the next one that stands carries it. Going there, and
//! back, breaks the chain as an end of the link does: the rooms are unlinked and
//! followed anew over the other connection, and jobs go over one connection at a
//! time: the next is used when what is under way has been answered or was lost.
//!
//! Nothing here decides who owns what or who lives: it tells ([`Events`]) and is
//! told ([`Links::peers_are`], [`Links::directory`], [`Links::own`]).

mod asking;
pub(super) mod convert;
mod dial;
mod events;
mod followed;
mod hello;
mod http;
mod incoming;
mod interest;
mod knock;
mod metrics;
pub mod network;
mod outbox;
mod peer;
mod peers;
mod relay;
mod release;
mod serve;
mod shared;
mod verdict;
mod wire;

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::AbortHandle;

pub use self::events::{Events, LinkEvent};
pub use self::hello::Identity;
pub use self::http::{
    CONNECTION_WINDOW, KEEPALIVE, MAX_FRAME, SEND_BUFFER, STREAM_WINDOW, UNACKNOWLEDGED,
};
pub use self::metrics::LinkMetrics;
pub use self::serve::{Answering, LinkRoute, serve};

pub(super) use self::asking::Outgoing;
use self::peers::{draining, position};
pub(super) use self::shared::Shared;
use self::wire::Encoded;
use super::driver::{Distrust, LinkState};
use super::router::letters;
use crate::chat::Partitions;
use crate::chat::peers::Position;
use crate::config::schema;
use crate::proto::cluster::v1 as pb;
use crate::store::chat::PartitionState;
use crate::store::cluster::{ClusterStore, NodeInfo};
use crate::{drain, task};
use network::Network;

/// The version of what is said on links. A node speaks with those of one more
/// and one less, so that releases can be rolled.
pub const PROTOCOL: u32 = 1;

/// The largest message that is taken from another node, bytes: a commit of very
/// many large entries.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// Who wants to know of accounts and payments that changed on other nodes.
pub trait OnTouched: Send + Sync + std::fmt::Debug {
    /// Accounts (`kind/id@trust-domain`) and payments (16 bytes) changed.
    fn touched(&self, accounts: &[String], payments: &[Vec<u8>]);
}

/// What links are made of.
#[derive(Debug)]
pub struct Parts {
    /// What this node says of itself.
    pub identity: Identity,
    /// The timeline of the database that it writes to, now.
    pub timeline: u64,
    /// How many connections, how large a backlog.
    pub config: schema::Cluster,
    /// How other nodes are reached.
    pub network: Arc<dyn Network>,
    /// For letters.
    pub store: Arc<dyn ClusterStore>,
    /// Who wants to know what changed elsewhere.
    pub touched: Arc<dyn OnTouched>,
    /// What is counted.
    pub metrics: LinkMetrics,
}

/// The links of this node, and the way of jobs over them. Dropping it ends them.
#[derive(Debug)]
pub struct Links {
    shared: Arc<Shared>,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Links {
    /// Nothing is dialed and nobody is answered before [`Links::start`].
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self { shared: Arc::new(Shared::new(parts)), tasks: Mutex::default() })
    }

    /// Begins to answer, to dial and to route. To be called once, with what chat
    /// is, before the mesh listener serves. Must be called within a runtime.
    pub fn start(&self, partitions: Arc<dyn Partitions>, drain: &drain::Watch) {
        if self.shared.partitions.set(partitions).is_err() {
            return;
        }
        let shared = &self.shared;
        let tasks = [
            task::spawn("job router", super::router::run(shared.clone())),
            task::spawn("local jobs", super::router::local(shared.clone())),
            task::spawn("letters", letters::run(shared.clone())),
            task::spawn("end of links", end(shared.clone(), drain.clone())),
        ];
        let mut kept = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(tasks.map(|task| task.abort_handle()));
        drop(kept);
        // Who was named before is dialed now.
        self.shared.peers().values().for_each(|peer| peer.start(shared));
    }

    /// Knocks at nodes that live: see [`Mesh::distrust`]. Takes 3 seconds at most.
    /// Cancel safe.
    ///
    /// [`Mesh::distrust`]: super::driver::Mesh::distrust
    pub async fn distrust(&self, nodes: &[NodeInfo]) -> Vec<Distrust> {
        knock::distrust(self.shared.network.as_ref(), nodes).await
    }

    /// What answers on the mesh listener: to be mounted under its name.
    pub fn service(&self) -> LinkRoute {
        LinkRoute::new(self.shared.clone())
    }

    /// The nodes that take part, as the membership has them: each but this one
    /// is dialed. A new incarnation takes the place of an older one.
    pub fn peers_are(&self, nodes: &[NodeInfo]) {
        peer::replace(&self.shared, nodes);
    }

    /// What a read of the partitions' rows showed.
    pub fn directory(&self, rows: &[PartitionState]) {
        for row in rows {
            self.shared.read(row);
        }
    }

    /// This node has taken these partitions and chat orders them: jobs go to it,
    /// and the other nodes are told.
    pub fn own(&self, taken: &[Position]) {
        for position in taken {
            if self.shared.directory.settle(position.partition, position.epoch) {
                self.shared.followed_elsewhere(position.partition);
            }
            self.shared.pump(position.partition);
        }
        if !taken.is_empty() {
            let partitions = taken.iter().map(position).collect();
            let owning = pb::request_frame::Frame::Owning(pb::Owning { partitions });
            self.shared.tell_all(&Encoded::request(owning));
        }
    }

    /// This node orders the partition no more (it was released, or lost).
    pub fn disown(&self, partition: u16, epoch: u64) {
        self.shared.directory.unsettle(partition, epoch);
        self.shared.let_go(partition);
    }

    /// This node released a partition in the store, under this epoch, and named
    /// a successor: it is told, if there is a link to it.
    pub fn handover(&self, partition: u16, epoch: u64, successor: &str) {
        self.shared.learn(partition, successor, epoch);
        if let Some(link) = self.shared.link_to(successor, partition) {
            let handover = pb::Handover { partition: partition.into(), epoch };
            let frame = pb::request_frame::Frame::Handover(handover);
            link.outbox().push(Encoded::request(frame));
        }
    }

    /// Accounts (`kind/id@trust-domain`) and payments (16 bytes) changed here:
    /// every node is told, at once and together with what else waits.
    pub fn touched(&self, accounts: &[String], payments: &[Vec<u8>]) {
        for peer in self.shared.peers().values() {
            if let Some(link) = peer.any_link() {
                link.outbox().touched(accounts, payments);
            }
        }
    }

    /// This node is stopping: the others give it nothing more.
    pub fn draining(&self) {
        self.shared.draining.store(true, Relaxed);
        self.shared.tell_all(&draining());
    }

    /// This node takes part as this incarnation: what new links say.
    pub fn joined(&self, incarnation: &str) {
        let mut now = self.shared.incarnation.lock().unwrap_or_else(PoisonError::into_inner);
        *now = incarnation.into();
    }

    /// The timeline of the database that this node writes to. On a newer one
    /// everything that was known of owners may have been lost.
    pub fn timeline(&self, timeline: u64) {
        if self.shared.timeline.swap(timeline, Relaxed) < timeline {
            self.shared.directory.forget();
        }
        self.shared.newest.fetch_max(timeline, Relaxed);
    }

    /// News for whoever drives the cluster.
    pub fn events(&self) -> &Events {
        &self.shared.events
    }

    /// Whether a link to the node stands.
    pub fn is_linked(&self, node: &str) -> bool {
        self.shared.peers().get(node).is_some_and(|peer| peer.any_link().is_some())
    }

    /// Every other node and how its links are, by node.
    pub fn status(&self) -> Vec<LinkState> {
        self.shared.peers().values().map(|peer| peer.status()).collect()
    }

    /// The nodes to which this one sends what is appended to a room, in order.
    pub fn followers(&self, room: &crate::store::chat::RoomId) -> Vec<String> {
        self.shared.interest.nodes(room)
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        let tasks = self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner);
        tasks.iter().for_each(AbortHandle::abort);
        self.shared.end();
    }
}

/// Ends the links when the stop is forced: until then they carry what is left.
async fn end(shared: Arc<Shared>, mut drain: drain::Watch) {
    drain.forced().await;
    shared.end();
}

#[cfg(test)]
mod tests;
