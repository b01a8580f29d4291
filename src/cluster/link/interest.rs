//! Which links want what is appended to which room.
//!
//! The owner's committer asks here after each commit: one look-up for each room
//! of it. What is appended is encoded once, however many links want it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::LinkMetrics;
use super::incoming::Incoming;
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
        let nodes: std::collections::BTreeSet<_> = links.map(|link| link.node()).collect();
        nodes.into_iter().map(str::to_owned).collect()
    }

    /// A link wants rooms of a partition.
    pub(super) fn add(&self, link: &Arc<Incoming>, partition: u16, rooms: &[RoomId]) {
        let mut table = self.rooms();
        let mut subscribed = link.subscribed();
        let Some(own) = subscribed.as_mut().map(|own| own.entry(partition).or_default()) else {
            return;
        };
        for room in rooms {
            if own.insert(room.clone()) {
                table.entry(room.clone()).or_default().push(link.clone());
                self.count.fetch_add(1, Relaxed);
            }
        }
    }

    /// A link wants rooms no more.
    pub(super) fn remove(&self, link: &Arc<Incoming>, partition: u16, rooms: &[RoomId]) {
        let mut table = self.rooms();
        let mut subscribed = link.subscribed();
        let Some(all) = subscribed.as_mut() else { return };
        let Some(own) = all.get_mut(&partition) else { return };
        for room in rooms {
            if own.remove(room) {
                self.take_out(&mut table, link, room);
            }
        }
        if own.is_empty() {
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
        for room in removed.into_iter().flatten() {
            self.take_out(&mut table, link, &room);
        }
        any
    }

    /// A link has ended: it wants nothing, and nothing can be added for it.
    pub(super) fn end(&self, link: &Arc<Incoming>) {
        let mut table = self.rooms();
        let all = link.subscribed().take();
        for room in all.into_iter().flatten().flat_map(|(_, rooms)| rooms) {
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
