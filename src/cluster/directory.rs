//! Which node owns which partition, as far as this one knows.
//!
//! It learns from reads of the store and, sooner, from what nodes say on links.
//! An epoch only ever grows, so whatever names a higher one is newer, whoever
//! says it; an old word changes nothing. A wrong belief costs a detour, never
//! more: the owner itself refuses what it does not own.
//!
//! *Except when a standby was promoted that had not heard of everything:* epochs
//! that were lost with the old primary are given again. Whoever learns of the
//! promotion forgets everything ([`Directory::forget`]), and what was said later
//! by one that had not yet is disproved by the store: a read may be older than
//! what was said, so many in a row are not.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Reads in a row that name a lower epoch than the one believed in. They come
/// four times a second, and one takes no longer than a second.
const DISPROVED: u8 = 12;

/// Who owns a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The node's id; empty for none.
    pub node: Arc<str>,
    /// The fencing number under which the store names it.
    pub epoch: u64,
    /// This node orders the partition now: it has taken it and was not fenced
    /// since. Being named by the store is not enough.
    pub settled: bool,
}

/// The partitions' owners. Nothing here blocks.
#[derive(Debug)]
pub struct Directory {
    me: Arc<str>,
    rows: Mutex<Vec<Row>>,
}

/// What is known of one partition.
#[derive(Debug, Clone)]
struct Row {
    owner: Owner,
    /// How many reads in a row knew of a lower epoch alone.
    doubts: u8,
}

impl From<Owner> for Row {
    fn from(owner: Owner) -> Self {
        Self { owner, doubts: 0 }
    }
}

impl Directory {
    /// Nobody owns anything yet.
    pub fn new(me: &str, partitions: u16) -> Self {
        Self { me: me.into(), rows: Mutex::new(vec![nobody().into(); usize::from(partitions)]) }
    }

    /// Nothing that was known is true any more.
    pub fn forget(&self) {
        self.rows().fill(nobody().into());
    }

    /// This node's id.
    pub fn me(&self) -> &Arc<str> {
        &self.me
    }

    /// How many partitions there are.
    pub fn count(&self) -> u16 {
        u16::try_from(self.rows().len()).unwrap_or(u16::MAX)
    }

    /// Who owns a partition; `None` for a number that there is not.
    pub fn owner(&self, partition: u16) -> Option<Owner> {
        self.rows().get(usize::from(partition)).map(|row| row.owner.clone())
    }

    /// The partitions of a node, by number.
    pub fn of(&self, node: &str) -> Vec<u16> {
        let rows = self.rows();
        let owned = rows.iter().enumerate().filter(|(_, row)| *row.owner.node == *node);
        owned.filter_map(|(partition, _)| u16::try_from(partition).ok()).collect()
    }

    /// The partitions that this node orders, by number.
    pub fn settled(&self) -> Vec<u16> {
        let rows = self.rows();
        let settled = rows.iter().enumerate().filter(|(_, row)| row.owner.settled);
        settled.filter_map(|(partition, _)| u16::try_from(partition).ok()).collect()
    }

    /// What somebody says. True when that changes who owns it, or under which
    /// epoch.
    pub fn learn(&self, partition: u16, node: &str, epoch: u64) -> bool {
        let mut rows = self.rows();
        let Some(row) = rows.get_mut(usize::from(partition)) else { return false };
        let newer = epoch > row.owner.epoch;
        // What was fenced here is whose it was by the store until it is taken
        // anew; the name comes back, not the right to order.
        let again = epoch == row.owner.epoch && *row.owner.node != *node;
        if !(newer || again) {
            return false;
        }
        *row = Owner { node: node.into(), epoch, settled: false }.into();
        true
    }

    /// What a read of the store showed; otherwise as [`Directory::learn`]. What
    /// this node orders itself is lost by its driver alone.
    pub fn read(&self, partition: u16, node: &str, epoch: u64) -> bool {
        if let Some(row) = self.rows().get_mut(usize::from(partition)) {
            row.doubts = match epoch < row.owner.epoch && !row.owner.settled {
                true => row.doubts + 1,
                false => 0,
            };
            if row.doubts >= DISPROVED {
                *row = Owner { node: node.into(), epoch, settled: false }.into();
                return true;
            }
        }
        self.learn(partition, node, epoch)
    }

    /// This node has taken the partition and orders it. True when that is new.
    pub fn settle(&self, partition: u16, epoch: u64) -> bool {
        let mut rows = self.rows();
        let Some(row) = rows.get_mut(usize::from(partition)) else { return false };
        if epoch < row.owner.epoch {
            return false;
        }
        let settled = Owner { node: self.me.clone(), epoch, settled: true };
        let changed = row.owner != settled;
        *row = settled.into();
        changed
    }

    /// This node orders the partition no more under this epoch.
    pub fn unsettle(&self, partition: u16, epoch: u64) {
        let mut rows = self.rows();
        if let Some(row) = rows.get_mut(usize::from(partition))
            && row.owner.epoch == epoch
        {
            row.owner.settled = false;
        }
    }

    fn rows(&self) -> MutexGuard<'_, Vec<Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn nobody() -> Owner {
    Owner { node: "".into(), epoch: 0, settled: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_that_the_store_does_not_know_is_not_believed_for_ever() {
        let directory = Directory::new("a", 1);
        assert!(directory.learn(0, "b", 9));
        for _ in 1..DISPROVED {
            assert!(!directory.read(0, "a", 7), "the read may be the older one");
        }
        assert!(!directory.read(0, "b", 9), "it was");
        assert!(directory.learn(0, "b", 10));
        for _ in 1..DISPROVED {
            assert!(!directory.read(0, "a", 7));
        }
        assert!(!directory.settle(0, 7), "not yet");
        assert!(directory.read(0, "a", 7));
        assert!(directory.settle(0, 7));
        for _ in 0..2 * DISPROVED {
            assert!(!directory.read(0, "b", 6), "its driver says what it lost");
        }
        directory.forget();
        assert!(directory.learn(0, "b", 1));
    }

    #[test]
    fn a_higher_epoch_wins_and_an_old_word_changes_nothing() {
        let directory = Directory::new("a", 4);
        assert!(directory.learn(1, "b", 3));
        assert!(!directory.learn(1, "c", 2));
        assert!(!directory.learn(1, "b", 3));
        assert!(!directory.learn(9, "b", 3), "there is no partition 9");
        assert_eq!(directory.owner(1).map(|owner| owner.node.to_string()).as_deref(), Some("b"));
        assert!(directory.learn(1, "a", 4));
        assert!(!directory.owner(1).expect("one").settled, "named, not taken");
        assert!(directory.settle(1, 5));
        assert!(!directory.settle(1, 5));
        assert!(directory.owner(1).expect("one").settled);
        directory.unsettle(1, 4);
        assert!(directory.owner(1).expect("one").settled, "an older ownership was lost");
        directory.unsettle(1, 5);
        assert!(!directory.owner(1).expect("one").settled);
        assert!(!directory.settle(1, 4), "an epoch never falls");
        assert_eq!(directory.of("a"), [1]);
    }
}
