//! Which partitions this node owns, and how long ago that was last seen in the
//! store.
//!
//! Memberships in memory are right as long as nobody else can have changed
//! them: while the partition is ours. A reader goes on only if a read of the
//! partition's row that began at most a second ago said so. The boot clock
//! measures it: a process that was frozen stops first and asks.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::chat::peers::Position;
use crate::clock;
use crate::store::chat::PartitionState;

/// How old the view may be.
const FRESH: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Partition {
    /// The epoch under which it is ours; 0 when it is not.
    epoch: AtomicU64,
    /// When the last read that confirmed this began: microseconds of the boot
    /// clock; 0 for never.
    confirmed: AtomicU64,
    /// Everything up to this commit is in memory, and was given to the peers.
    commit_no: AtomicU64,
}

/// The node's view of its partitions.
#[derive(Debug)]
pub(crate) struct View {
    owner: String,
    partitions: Vec<Partition>,
    /// Some reader stopped for a stale view and waits to be woken.
    halted: AtomicBool,
}

impl View {
    /// A view in which nothing is ours yet.
    pub(crate) fn new(owner: &str, count: u16) -> Self {
        let partitions = (0..count.max(1)).map(|_| Partition::default()).collect();
        Self { owner: owner.into(), partitions, halted: AtomicBool::new(false) }
    }

    /// How many partitions there are.
    pub(crate) fn count(&self) -> u16 {
        u16::try_from(self.partitions.len()).unwrap_or(u16::MAX)
    }

    /// The epoch under which the partition is ours.
    pub(crate) fn epoch(&self, partition: u16) -> Option<u64> {
        let epoch = self.partitions.get(usize::from(partition))?.epoch.load(Ordering::Acquire);
        (epoch != 0).then_some(epoch)
    }

    /// Took partitions by a write that began at `began`.
    pub(crate) fn take(&self, taken: &[PartitionState], began: Duration) {
        for state in taken {
            if let Some(place) = self.partitions.get(usize::from(state.partition)) {
                place.confirmed.store(micros(began), Ordering::Release);
                place.commit_no.store(state.commit_no, Ordering::Release);
                place.epoch.store(state.epoch, Ordering::Release);
            }
        }
    }

    /// A commit under this epoch is in memory and was given to the peers.
    pub(crate) fn committed(&self, partition: u16, epoch: u64, commit_no: u64) {
        if self.epoch(partition) == Some(epoch)
            && let Some(place) = self.partitions.get(usize::from(partition))
        {
            place.commit_no.fetch_max(commit_no, Ordering::AcqRel);
        }
    }

    /// How far a partition of ours is; `None` for others.
    pub(crate) fn position(&self, partition: u16) -> Option<Position> {
        let place = self.partitions.get(usize::from(partition))?;
        let commit_no = place.commit_no.load(Ordering::Acquire);
        let epoch = self.epoch(partition)?;
        Some(Position { partition, epoch, commit_no })
    }

    /// When the partition was last known to be ours, microseconds of the boot
    /// clock; 0 for never.
    pub(crate) fn confirmed(&self, partition: u16) -> u64 {
        let place = self.partitions.get(usize::from(partition));
        place.map_or(0, |place| place.confirmed.load(Ordering::Acquire))
    }

    /// The partition is no longer ours.
    pub(crate) fn lose(&self, partition: u16) {
        if let Some(place) = self.partitions.get(usize::from(partition)) {
            place.epoch.store(0, Ordering::Release);
            place.confirmed.store(0, Ordering::Release);
        }
    }

    /// Nothing is ours, until it is taken again.
    pub(crate) fn lose_all(&self) {
        (0..self.count()).for_each(|partition| self.lose(partition));
    }

    /// Whether a partition that was taken is somebody else's now. Of use to a
    /// node that is alone: it has all of them, or has lost some.
    pub(crate) fn has_lost(&self) -> bool {
        self.partitions.iter().any(|place| place.confirmed.load(Ordering::Acquire) == 0)
    }

    /// What a read that began at `began` said. A partition that is somebody
    /// else's, or ours under another epoch, is confirmed no more.
    pub(crate) fn confirm(&self, states: &[PartitionState], began: Duration) {
        for state in states {
            let Some(place) = self.partitions.get(usize::from(state.partition)) else { continue };
            let epoch = place.epoch.load(Ordering::Acquire);
            if epoch == 0 {
                continue;
            }
            if state.owner == self.owner && state.epoch == epoch {
                // A take that came between wrote a later time.
                place.confirmed.fetch_max(micros(began), Ordering::AcqRel);
            } else if state.epoch > epoch {
                place.confirmed.store(0, Ordering::Release);
            }
        }
    }

    /// Whether memberships of the partition's rooms may be relied on now.
    pub(crate) fn fresh(&self, partition: u16, now: Duration) -> bool {
        let Some(place) = self.partitions.get(usize::from(partition)) else { return false };
        let confirmed = place.confirmed.load(Ordering::Acquire);
        // A confirmation may cross a loss: the epoch has the last word.
        let ours = place.epoch.load(Ordering::Acquire) != 0;
        ours && is_fresh(confirmed, now)
    }

    /// A reader stops until the view is fresh. True for the first of a time.
    pub(crate) fn halt(&self) -> bool {
        !self.halted.swap(true, Ordering::AcqRel)
    }

    /// Whether readers wait to be woken; asked once.
    pub(crate) fn take_halted(&self) -> bool {
        self.halted.swap(false, Ordering::AcqRel)
    }
}

/// Whether what was known at a time (0 for never) may be relied on now.
pub(crate) fn is_fresh(known: u64, now: Duration) -> bool {
    known != 0 && micros(now).saturating_sub(known) <= micros(FRESH)
}

/// Never 0, which means never.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1)
}

/// The boot clock's time.
pub(crate) fn now() -> Duration {
    clock::since_boot()
}
