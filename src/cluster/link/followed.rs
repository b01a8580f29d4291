//! What a change of owners or links means to rooms that are followed and to
//! jobs that wait.

use std::sync::Arc;

use super::asking::Outgoing;
use super::peer::Peer;
use super::{LinkEvent, Shared};
use crate::cluster::directory::Owner;
use crate::fault::{self, Plant};
use crate::store::chat::PartitionState;

impl Shared {
    /// Somebody says who owns a partition.
    pub(in crate::cluster) fn learn(&self, partition: u16, node: &str, epoch: u64) {
        let before = self.directory.owner(partition);
        if self.directory.learn(partition, node, epoch) {
            self.moved(partition, before);
        }
    }

    /// The store says who owns a partition.
    pub(super) fn read(&self, row: &PartitionState) {
        let before = self.directory.owner(row.partition);
        if !self.directory.read(row.partition, &row.owner, row.epoch) {
            return;
        }
        let disproved = before.as_ref().is_some_and(|before| before.epoch > row.epoch);
        if disproved && *row.owner == **self.directory.me() {
            // Against what was believed it could not be settled: it is taken anew.
            let (partition, epoch) = (row.partition, row.epoch);
            self.events.tell(LinkEvent::Lost { partition, epoch });
        }
        self.moved(row.partition, before);
    }

    /// Another owner is known than before.
    fn moved(&self, partition: u16, before: Option<Owner>) {
        if before.is_some_and(|before| before.settled) {
            // Whoever follows its rooms here must go elsewhere.
            self.let_go(partition);
        }
        self.followed_elsewhere(partition);
        if self.link_to_owner(partition).is_some()
            && let Some(partitions) = self.partitions()
            && !fault::planted(Plant::InterestLost)
        {
            partitions.refollow(partition);
        }
        self.pump(partition);
    }

    /// The appends of a partition come over no link any more.
    pub(super) fn followed_elsewhere(&self, partition: u16) {
        let links = self.all_links();
        let followed = links.iter().filter(|link| link.forget(partition)).count();
        if followed > 0
            && let Some(partitions) = self.partitions()
        {
            partitions.unlinked(partition);
        }
    }

    /// The appends of a partition come over this link and no other.
    pub(super) fn forget_others(&self, link: &Arc<Outgoing>, partition: u16) {
        let links = self.all_links();
        for other in links.iter().filter(|other| !Arc::ptr_eq(other, link)) {
            other.forget(partition);
        }
    }

    /// A link stands: what its sibling carried in its place comes back to it, the
    /// rooms of its partitions are asked for, and what waits for it is sent.
    pub(super) fn link_up(&self, peer: &Peer, link: &Arc<Outgoing>) {
        let moved = peer.up(self, link);
        let Some(partitions) = self.partitions() else { return };
        for partition in moved {
            let siblings = peer.links();
            if siblings.iter().filter(|sibling| sibling.forget(partition)).count() > 0 {
                // What is still on its way there is passed over from now on.
                partitions.unlinked(partition);
            }
            self.carried_anew(partition);
        }
    }

    /// A link is gone: its siblings, if any stands, carry what it carried.
    pub(super) fn link_down(&self, peer: &Peer, link: &Arc<Outgoing>, why: &str) {
        let moved = peer.down(self, link, why);
        if let Some(partitions) = self.partitions() {
            link.forget_all().into_iter().for_each(|partition| partitions.unlinked(partition));
        }
        self.relays_broken(link.generation());
        self.router.broken(self, link.generation());
        if peer.any_link().is_some() {
            moved.into_iter().for_each(|partition| self.carried_anew(partition));
        }
    }

    /// A link to a partition's owner carries it that did not before.
    fn carried_anew(&self, partition: u16) {
        if let Some(partitions) = self.partitions()
            && !fault::planted(Plant::InterestLost)
        {
            partitions.refollow(partition);
        }
        self.pump(partition);
    }

    fn all_links(&self) -> Vec<Arc<Outgoing>> {
        self.peers().values().flat_map(|peer| peer.links()).collect()
    }

    /// This node orders a partition no more: whoever follows its rooms over a
    /// link is told to read the store and to look for the owner.
    pub(super) fn let_go(&self, partition: u16) {
        let links: Vec<_> = self.incoming().values().cloned().collect();
        for link in links {
            self.interest.resync(&link, partition);
        }
    }
}
