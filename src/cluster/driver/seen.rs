//! What the driver knows, for whoever asks: operators, metrics, the node.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::store::chat::PartitionState;
use crate::store::cluster::NodeRecord;

/// The cluster as of the newest read. Shared by the driver and its readers.
#[derive(Debug, Default)]
pub struct Seen {
    newest: Mutex<Picture>,
}

/// One picture.
#[derive(Debug, Clone, Default)]
pub struct Picture {
    /// When the read ended, microseconds since 1970; 0 before the first.
    pub observed_at: i64,
    /// The nodes by id, with the boot clock's time at which each beat was last
    /// seen to change.
    pub nodes: Vec<(NodeRecord, Duration)>,
    /// The partitions, by number.
    pub partitions: Vec<PartitionState>,
}

impl Seen {
    /// The newest picture.
    pub fn picture(&self) -> Picture {
        self.lock().clone()
    }

    pub(super) fn show(&self, picture: Picture) {
        *self.lock() = picture;
    }

    fn lock(&self) -> MutexGuard<'_, Picture> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
