//! Another node, and the links that this one has opened to it.
//!
//! *Which link carries a partition.* Each has a home among the connections, by
//! its number; while that one is down, the next that stands. So a link that
//! breaks or comes back moves partitions, and says which: whoever relied on the
//! link that they were on must follow and send anew.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::asking::Outgoing;
use super::{LinkEvent, Shared, dial};
use crate::cluster::driver::LinkState;
use crate::store::cluster::NodeInfo;
use crate::{clock, task};

/// Another node.
#[derive(Debug)]
pub(in crate::cluster) struct Peer {
    pub(super) info: NodeInfo,
    /// One place for each connection.
    slots: Mutex<Slots>,
    stopped: CancellationToken,
    started: AtomicBool,
}

#[derive(Debug)]
struct Slots {
    links: Vec<Option<Arc<Outgoing>>>,
    problem: String,
}

/// Dials who is new, leaves who is gone.
pub(super) fn replace(shared: &Arc<Shared>, nodes: &[NodeInfo]) {
    {
        let mut peers = shared.peers();
        let wanted = |info: &NodeInfo| info.id != *shared.me.node_id;
        let same = |peer: &Peer, info: &NodeInfo| {
            peer.info.incarnation == info.incarnation && peer.info.mesh_address == info.mesh_address
        };
        peers.retain(|id, peer| {
            let kept = nodes.iter().any(|info| info.id == *id && same(peer, info));
            if !kept {
                peer.stop();
            }
            kept
        });
        for info in nodes.iter().filter(|info| wanted(info)) {
            if !peers.contains_key(&info.id) {
                let peer = Arc::new(Peer::new(info.clone(), shared.connections));
                if shared.partitions().is_some() {
                    peer.start(shared);
                }
                peers.insert(info.id.clone(), peer);
            }
        }
    }
    shared.membership.notify_waiters();
    // What takes part no more must not go on asking, an older run of a node
    // among them.
    for link in shared.incoming().values() {
        let present = nodes
            .iter()
            .any(|info| info.id == link.node() && info.incarnation == link.incarnation());
        if !present {
            link.outbox().close();
        }
    }
}

impl Peer {
    fn new(info: NodeInfo, connections: u16) -> Self {
        let links = vec![None; usize::from(connections)];
        let slots = Mutex::new(Slots { links, problem: "not dialed yet".into() });
        Self { info, slots, stopped: CancellationToken::new(), started: AtomicBool::new(false) }
    }

    /// Begins to dial, once.
    pub(super) fn start(self: &Arc<Self>, shared: &Arc<Shared>) {
        if self.started.swap(true, Ordering::Relaxed) {
            return;
        }
        for connection in 0..shared.connections {
            let dialing = dial::run(shared.clone(), self.clone(), connection);
            task::spawn("link dialer", dialing);
        }
    }

    /// Closes the links and dials no more.
    pub(super) fn stop(&self) {
        self.stopped.cancel();
        for link in self.slots().links.iter().flatten() {
            link.outbox().close();
        }
    }

    /// Waits until it is to be dialed no more. Cancel safe.
    pub(super) async fn stopped(&self) {
        self.stopped.cancelled().await;
    }

    /// The link that carries a partition, if any stands.
    pub(super) fn link_for(&self, partition: u16) -> Option<Arc<Outgoing>> {
        self.slots().carrier(partition).cloned()
    }

    /// The link that is a partition's home, if it stands.
    fn home_of(&self, partition: u16) -> Option<Arc<Outgoing>> {
        let slots = self.slots();
        slots.links.get(slots.home(partition)).and_then(Clone::clone)
    }

    /// Whether this link is the one that carries a partition.
    fn carries(&self, link: &Arc<Outgoing>, partition: u16) -> bool {
        self.slots().carrier(partition).is_some_and(|carrier| Arc::ptr_eq(carrier, link))
    }

    /// Any link that stands.
    pub(super) fn any_link(&self) -> Option<Arc<Outgoing>> {
        self.slots().links.iter().flatten().next().cloned()
    }

    /// The links that stand.
    pub(super) fn links(&self) -> Vec<Arc<Outgoing>> {
        self.slots().links.iter().flatten().cloned().collect()
    }

    /// A link stands. Gives those of its node's partitions that it carries from
    /// now on.
    pub(super) fn up(&self, shared: &Shared, link: &Arc<Outgoing>) -> Vec<u16> {
        let (first, moved) = {
            let mut slots = self.slots();
            let first = slots.links.iter().all(Option::is_none);
            if let Some(slot) = slots.links.get_mut(usize::from(link.connection())) {
                *slot = Some(link.clone());
            }
            slots.problem.clear();
            (first, slots.carried_by(shared, link))
        };
        shared.metrics.links.inc();
        if first {
            shared.metrics.nodes.inc();
            let NodeInfo { id: node, incarnation, .. } = self.info.clone();
            tracing::info!(node, "linked");
            shared.events.tell(LinkEvent::Up { node, incarnation, at: clock::since_boot() });
        }
        moved
    }

    /// A link is gone. Gives those of its node's partitions that it carried until
    /// now.
    pub(super) fn down(&self, shared: &Shared, link: &Arc<Outgoing>, why: &str) -> Vec<u16> {
        let (last, moved) = {
            let mut slots = self.slots();
            // Together with the change: two links that break at once leave no
            // partition between them.
            let moved = slots.carried_by(shared, link);
            if let Some(slot) = slots.links.get_mut(usize::from(link.connection())) {
                *slot = None;
            }
            let last = slots.links.iter().all(Option::is_none);
            if last {
                slots.problem = why.to_owned();
            }
            (last, moved)
        };
        shared.metrics.links.dec();
        if !self.stopped.is_cancelled() && !shared.is_draining() {
            shared.metrics.lost.inc();
        }
        if last {
            shared.metrics.nodes.dec();
            let NodeInfo { id: node, incarnation, .. } = self.info.clone();
            tracing::info!(node, why, "the link is gone");
            shared.events.tell(LinkEvent::Down { node, incarnation, at: clock::since_boot() });
        }
        moved
    }

    /// Dialing failed. True when that is not what it failed with before.
    pub(super) fn failed(&self, why: &str) -> bool {
        let mut slots = self.slots();
        if slots.links.iter().any(Option::is_some) || slots.problem == why {
            return false;
        }
        why.clone_into(&mut slots.problem);
        true
    }

    /// How its links are.
    pub(super) fn status(&self) -> LinkState {
        let slots = self.slots();
        let standing: Vec<_> = slots.links.iter().flatten().collect();
        LinkState {
            node: self.info.id.clone(),
            connections: u32::try_from(standing.len()).unwrap_or(u32::MAX),
            round_trip: standing.iter().filter_map(|link| link.round_trip()).min(),
            backlog_bytes: standing.iter().map(|link| link.outbox().bytes() as u64).sum(),
            problem: if standing.is_empty() { slots.problem.clone() } else { String::new() },
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    fn home(&self, partition: u16) -> usize {
        usize::from(partition) % self.links.len().max(1)
    }

    fn carrier(&self, partition: u16) -> Option<&Arc<Outgoing>> {
        let (before, from_home) = self.links.split_at_checked(self.home(partition))?;
        from_home.iter().chain(before).flatten().next()
    }

    /// The partitions of a link's node that go over it.
    fn carried_by(&self, shared: &Shared, link: &Arc<Outgoing>) -> Vec<u16> {
        let mut owned = shared.directory.of(link.node());
        owned.retain(|partition| {
            self.carrier(*partition).is_some_and(|carrier| Arc::ptr_eq(carrier, link))
        });
        owned
    }
}

impl Shared {
    /// The nodes that this one is linked to, by id.
    pub(super) fn linked(&self) -> BTreeSet<String> {
        let peers = self.peers();
        let up = peers.values().filter(|peer| peer.any_link().is_some());
        up.map(|peer| peer.info.id.clone()).collect()
    }

    /// The link to a node that carries a partition.
    pub(in crate::cluster) fn link_to(&self, node: &str, partition: u16) -> Option<Arc<Outgoing>> {
        self.peers().get(node).and_then(|peer| peer.link_for(partition))
    }

    /// Whether this link is the one of its node that carries a partition.
    pub(super) fn is_carried_by(&self, link: &Arc<Outgoing>, partition: u16) -> bool {
        self.peers().get(link.node()).is_some_and(|peer| peer.carries(link, partition))
    }

    /// The link to a partition's owner.
    pub(super) fn link_to_owner(&self, partition: u16) -> Option<Arc<Outgoing>> {
        let owner = self.directory.owner(partition)?;
        self.link_to(&owner.node, partition)
    }

    /// The link to a node over which another node's publishes are sent on: always
    /// the same, for nobody here waits for what is under way before the next.
    pub(super) fn home_to(&self, node: &str, partition: u16) -> Option<Arc<Outgoing>> {
        self.peers().get(node).and_then(|peer| peer.home_of(partition))
    }

    /// A link through which another node can be reached, for a partition.
    pub(in crate::cluster) fn link_through(
        &self,
        node: &str,
        partition: u16,
    ) -> Option<Arc<Outgoing>> {
        let peers = self.peers();
        let links = peers.values().filter_map(|peer| peer.link_for(partition));
        links.into_iter().find(|link| link.reaches(node))
    }

    /// Whether a node takes part, as far as is known.
    pub(in crate::cluster) fn is_member(&self, node: &str) -> bool {
        self.peers().contains_key(node)
    }
}
