//! What everything about links shares: this node as it shows itself, the other
//! nodes and the links from and to them.
//!
//! Locks are taken for single steps and nothing waits inside one; where two are
//! needed, `peers` comes before a peer's own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;

use super::hello::{HelloRefused, Identity};
use super::incoming::Incoming;
use super::interest::Interest;
use super::network::Network;
use super::peer::Peer;
use super::relay::Relays;
use super::wire::Encoded;
use super::{Events, LinkEvent, LinkMetrics, OnTouched, Parts};
use crate::chat::Partitions;
use crate::cluster::directory::Directory;
use crate::cluster::router::Router;
use crate::proto::cluster::v1 as pb;
use crate::store::cluster::ClusterStore;

/// Nodes whose refusals are remembered.
const REFUSALS: usize = 256;

/// What everything about links shares.
#[derive(Debug)]
pub(in crate::cluster) struct Shared {
    pub(in crate::cluster) me: Identity,
    /// This run of the node: another than `me`'s once that was declared dead.
    pub(super) incarnation: Mutex<Arc<str>>,
    pub(in crate::cluster) connections: u16,
    pub(in crate::cluster) backlog: usize,
    pub(in crate::cluster) network: Arc<dyn Network>,
    pub(in crate::cluster) store: Arc<dyn ClusterStore>,
    pub(super) touched: Arc<dyn OnTouched>,
    pub(in crate::cluster) metrics: LinkMetrics,
    pub(in crate::cluster) directory: Directory,
    pub(in crate::cluster) router: Router,
    pub(in crate::cluster) events: Events,
    pub(super) interest: Interest,
    /// What chat is told; set when links start.
    pub(super) partitions: OnceLock<Arc<dyn Partitions>>,
    /// The other nodes, by id.
    pub(super) peers: Mutex<BTreeMap<String, Arc<Peer>>>,
    /// Told whenever the peers change. Who waits is woken in the order of coming,
    /// which a watch does not keep: a simulation repeats itself.
    pub(super) membership: Notify,
    /// Links that others opened, by node and connection.
    pub(super) incoming: Mutex<BTreeMap<(String, u32), Arc<Incoming>>>,
    /// The newest refusal of each node that was refused, so that the log says it
    /// once.
    pub(super) refusals: Mutex<BTreeMap<String, HelloRefused>>,
    /// Publishes sent on for others.
    pub(super) relays: Relays,
    /// Of the database that this node writes to.
    pub(super) timeline: AtomicU64,
    /// The newest seen anywhere.
    pub(super) newest: AtomicU64,
    /// Names links, over the node's whole life.
    pub(super) generation: AtomicU64,
    pub(super) draining: AtomicBool,
}

impl Shared {
    /// Of a node that is linked to nobody yet.
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { identity, timeline, config, network, store, touched, metrics } = parts;
        let directory = Directory::new(&identity.node_id, identity.partitions);
        let router = Router::new(config.backlog_bytes, metrics.clone());
        Self {
            incarnation: Mutex::new(identity.incarnation.clone()),
            me: identity,
            connections: u16::from(config.connections.max(1)),
            backlog: config.backlog_bytes,
            network,
            store,
            touched,
            metrics,
            directory,
            router,
            events: Events::default(),
            interest: Interest::default(),
            partitions: OnceLock::new(),
            peers: Mutex::default(),
            membership: Notify::new(),
            incoming: Mutex::default(),
            refusals: Mutex::default(),
            relays: Relays::default(),
            timeline: AtomicU64::new(timeline),
            newest: AtomicU64::new(timeline),
            generation: AtomicU64::new(1),
            draining: false.into(),
        }
    }

    pub(in crate::cluster) fn peers(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn incoming(&self) -> MutexGuard<'_, BTreeMap<(String, u32), Arc<Incoming>>> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This run of the node.
    pub(in crate::cluster) fn incarnation(&self) -> Arc<str> {
        self.incarnation.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What this node says first on a link.
    pub(super) fn hello(&self, connection: u32) -> pb::Hello {
        let incarnation = self.incarnation().to_string();
        pb::Hello { incarnation, ..self.me.hello(self.own_timeline(), connection) }
    }

    /// What chat is; `None` before the links were started.
    pub(in crate::cluster) fn partitions(&self) -> Option<&Arc<dyn Partitions>> {
        self.partitions.get()
    }

    pub(super) fn next_generation(&self) -> u64 {
        self.generation.fetch_add(1, Relaxed)
    }

    /// Names one try to have a job ordered elsewhere.
    pub(in crate::cluster) fn next_attempt(&self) -> u64 {
        self.next_generation()
    }

    /// The timeline of the database that this node writes to.
    pub(super) fn own_timeline(&self) -> u64 {
        self.timeline.load(Relaxed)
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Whether every other node has a link to this one.
    pub(in crate::cluster) fn is_linked_by_all(&self) -> bool {
        let incoming = self.incoming();
        self.peers().keys().all(|node| incoming.keys().any(|(linked, _)| linked == node))
    }

    /// The newest timeline of the database that was seen anywhere.
    pub(super) fn newest_timeline(&self) -> u64 {
        self.newest.load(Relaxed)
    }

    /// Another node's Hello was good.
    pub(super) fn saw_timeline(&self, timeline: u64) {
        if self.newest.fetch_max(timeline, Relaxed) < timeline {
            self.events.tell(LinkEvent::Timeline { timeline });
        }
    }

    /// Whether this is not what the node was refused for before.
    pub(super) fn first_refusal(&self, node: &str, refused: &HelloRefused) -> bool {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if refusals.len() >= REFUSALS && !refusals.contains_key(node) {
            refusals.clear();
        }
        refusals.insert(node.to_owned(), refused.clone()).as_ref() != Some(refused)
    }

    pub(super) fn tell_all(&self, frame: &Encoded) {
        for peer in self.peers().values() {
            if let Some(link) = peer.any_link() {
                link.outbox().push(frame.clone());
            }
        }
    }

    pub(super) fn end(&self) {
        self.peers().values().for_each(|peer| peer.stop());
        self.incoming().values().for_each(|link| link.outbox().close());
    }
}
