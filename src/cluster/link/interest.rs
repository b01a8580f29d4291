//! Which links want what is appended to which room.
//!
//! The owner's committer asks here after each commit: one look-up for each room
//! of it. What is appended is encoded once, however many links want it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::LinkMetrics;
use super::incoming::{Incoming, Wanted};
use super::wire::{self, Encoded};
use crate::chat::peers::Delivery;
use crate::proto::cluster::v1 as pb;
use crate::store::chat::RoomId;

/// Rooms and the links that want them.
#[derive(Debug, Default)]
pub(super) struct Interest {
    /// Looked up by room, never walked through.
    rooms: Mutex<BTreeMap<RoomId, Vec<Arc<Incoming>>>>,
    count: AtomicUsize,
    /// Names rows of subscriptions.
    named: AtomicU64,
}

impl Interest {
    /// Whether anybody wants anything.
    pub(super) fn is_any(&self) -> bool {
        self.count.load(Relaxed) > 0
    }

    /// The nodes that want a room, in order.
    pub(super) fn nodes(&self, room: &RoomId) -> Vec<String> {
        let rooms = self.rooms();
        let links = rooms.get(room).into_iter().flatten();
        let nodes: BTreeSet<_> = links.map(|link| link.node()).collect();
        nodes.into_iter().map(str::to_owned).collect()
    }

    /// A link wants rooms of a partition. Names the row of subscriptions; `None`
    /// when the link has ended.
    pub(super) fn add(
        &self,
        link: &Arc<Incoming>,
        partition: u16,
        rooms: &[RoomId],
    ) -> Option<u64> {
        let mut table = self.rooms();
        let mut subscribed = link.subscribed();
        let own = subscribed.as_mut()?.entry(partition).or_insert_with(|| Wanted {
            since: self.named.fetch_add(1, Relaxed),
            rooms: BTreeSet::new(),
        });
        for room in rooms {
            if own.rooms.insert(room.clone()) {
                table.entry(room.clone()).or_default().push(link.clone());
                self.count.fetch_add(1, Relaxed);
            }
        }
        Some(own.since)
    }

    /// Says something about a partition to a link if nothing was left out of
    /// what it wanted since. Before a Resync, or not at all.
    pub(super) fn answer(&self, link: &Incoming, partition: u16, since: u64, frame: Encoded) {
        let subscribed = link.subscribed();
        let wanted = subscribed.as_ref().and_then(|all| all.get(&partition));
        if wanted.is_some_and(|wanted| wanted.since == since) {
            link.outbox().push(frame);
        }
    }

    /// A link wants rooms no more.
    pub(super) fn remove(&self, link: &Arc<Incoming>, partition: u16, rooms: &[RoomId]) {
        let mut table = self.rooms();
        let mut subscribed = link.subscribed();
        let Some(all) = subscribed.as_mut() else { return };
        let Some(own) = all.get_mut(&partition) else { return };
        for room in rooms {
            if own.rooms.remove(room) {
                self.take_out(&mut table, link, room);
            }
        }
        if own.rooms.is_empty() {
            all.remove(&partition);
        }
    }

    /// A link wants nothing of a partition any more. False when it wanted
    /// nothing of it.
    pub(super) fn remove_partition(&self, link: &Arc<Incoming>, partition: u16) -> bool {
        let mut table = self.rooms();
        let mut subscribed = link.subscribed();
        let removed = subscribed.as_mut().and_then(|all| all.remove(&partition));
        let any = removed.is_some();
        for room in removed.into_iter().flat_map(|wanted| wanted.rooms) {
            self.take_out(&mut table, link, &room);
        }
        any
    }

    /// A link has ended: it wants nothing, and nothing can be added for it.
    pub(super) fn end(&self, link: &Arc<Incoming>) {
        let mut table = self.rooms();
        let all = link.subscribed().take();
        for room in all.into_iter().flatten().flat_map(|(_, wanted)| wanted.rooms) {
            self.take_out(&mut table, link, &room);
        }
    }

    fn take_out(
        &self,
        table: &mut BTreeMap<RoomId, Vec<Arc<Incoming>>>,
        link: &Arc<Incoming>,
        room: &RoomId,
    ) {
        if let Some(links) = table.get_mut(room) {
            links.retain(|other| !Arc::ptr_eq(other, link));
            if links.is_empty() {
                table.remove(room);
            }
        }
        self.count.fetch_sub(1, Relaxed);
    }

    /// This node committed: whoever wants it gets it. A link whose backlog is
    /// full is told to read the store instead.
    pub(super) fn appended(&self, delivery: &Delivery, metrics: &LinkMetrics) {
        if !self.is_any() {
            return;
        }
        let mut encoded: Vec<Encoded> = Vec::new();
        // By link, the places in `encoded`; in the links' order, so that a run
        // repeats itself.
        let mut wanted: BTreeMap<u64, (Arc<Incoming>, Vec<usize>)> = BTreeMap::new();
        {
            let table = self.rooms();
            for room in &delivery.rooms {
                let Some(links) = table.get(&room.room) else { continue };
                let place = encoded.len();
                encoded.push(wire::room(room));
                for link in links {
                    let entry =
                        wanted.entry(link.generation()).or_insert_with(|| (link.clone(), vec![]));
                    entry.1.push(place);
                }
            }
        }
        for (link, places) in wanted.into_values() {
            let rooms = places.iter().filter_map(|place| encoded.get(*place));
            if link.outbox().push_append(Encoded::append(delivery, rooms)) {
                continue;
            }
            if self.resync(&link, delivery.partition) {
                metrics.resyncs.inc();
            }
        }
    }

    /// Tells a link to read a partition from the store; it is sent nothing more
    /// of it until it subscribes anew. False when it wanted nothing of it.
    pub(super) fn resync(&self, link: &Arc<Incoming>, partition: u16) -> bool {
        let wanted = self.remove_partition(link, partition);
        if wanted {
            let resync = pb::Resync { partition: partition.into() };
            let frame = pb::response_frame::Frame::Resync(resync);
            link.outbox().push(Encoded::response(frame));
        }
        wanted
    }

    fn rooms(&self) -> MutexGuard<'_, BTreeMap<RoomId, Vec<Arc<Incoming>>>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::outbox::Outbox;
    use super::*;

    /// Heads that were read before a gap prove nothing about what is after it.
    #[test]
    fn what_was_asked_before_a_resync_is_not_answered_after_it() {
        let interest = Interest::default();
        let outbox = Outbox::new(1 << 20, Default::default());
        let link = Incoming::new(&pb::Hello::default(), 1, outbox.clone());
        let (rooms, other): ([RoomId; 1], [RoomId; 1]) = (["r".into()], ["s".into()]);
        let frame = || {
            let pong = pb::response_frame::Frame::Pong(pb::Pong { nonce: 1, ..Default::default() });
            Encoded::response(pong)
        };
        let said = |since: u64| {
            let before = outbox.bytes();
            interest.answer(&link, 3, since, frame());
            outbox.bytes() > before
        };
        let first = interest.add(&link, 3, &rooms).expect("it stands");
        assert_eq!(interest.add(&link, 3, &other), Some(first));
        assert!(said(first));
        assert!(interest.resync(&link, 3));
        assert!(!said(first));
        let second = interest.add(&link, 3, &rooms).expect("it stands");
        assert!(!said(first) && said(second), "the older heads are from before the gap");
        interest.end(&link);
        assert!(!said(second) && interest.add(&link, 3, &rooms).is_none());
        assert!(!interest.is_any());
    }
}
