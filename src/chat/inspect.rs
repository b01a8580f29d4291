//! What is in memory, for whoever looks into the node. Ids and numbers alone:
//! nothing of what was written.

use super::owner::Owner;
use crate::store::chat::{RoomId, partition_of};

/// Looks at the rooms in memory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Inspector(Owner);

/// A room in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomHere {
    /// The room.
    pub room: RoomId,
    /// Its partition.
    pub partition: u16,
    /// The newest entry that readers may have.
    pub head: u64,
    /// Streams that read it.
    pub readers: usize,
    /// Bytes of its entries in memory.
    pub bytes: usize,
    /// Nothing of it may be relied on until it was read anew.
    pub suspended: bool,
}

impl Inspector {
    pub(super) fn new(owner: Owner) -> Self {
        Self(owner)
    }

    /// Open sessions.
    pub fn sessions(&self) -> usize {
        self.0.shared().sessions.count()
    }

    /// The partition of a room.
    pub fn partition(&self, room: &str) -> u16 {
        partition_of(room, self.0.shared().view.count())
    }

    /// One room; `None` when it is not in memory.
    pub fn room(&self, room: &RoomId) -> Option<RoomHere> {
        self.0.shared().in_memory(room).map(|room| shown(&room))
    }

    /// How many rooms there are, and the first of them by id.
    pub fn rooms(&self, limit: usize) -> (usize, Vec<RoomHere>) {
        let rooms = self.0.shared().all_rooms();
        (rooms.len(), rooms.iter().take(limit).map(|room| shown(room)).collect())
    }
}

fn shown(room: &super::owner::Room) -> RoomHere {
    RoomHere {
        room: room.id().clone(),
        partition: room.partition(),
        head: room.head(),
        readers: room.readers().len(),
        bytes: room.bytes(),
        suspended: room.is_suspended(),
    }
}
