//! Which node owns which partition, as far as this one knows.
//!
//! It learns from reads of the store and, sooner, from what nodes say on links.
//! An epoch only ever grows, so whatever names a higher one is newer, whoever
//! says it; an old word changes nothing. A wrong belief costs a detour, never
//! more: the owner itself refuses what it does not own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    rows: Mutex<Vec<Owner>>,
}

impl Directory {
    /// Nobody owns anything yet.
    pub fn new(me: &str, partitions: u16) -> Self {
        let nobody = Owner { node: "".into(), epoch: 0, settled: false };
        Self { me: me.into(), rows: Mutex::new(vec![nobody; usize::from(partitions)]) }
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
        self.rows().get(usize::from(partition)).cloned()
    }

    /// The partitions of a node, by number.
    pub fn of(&self, node: &str) -> Vec<u16> {
        let rows = self.rows();
        let owned = rows.iter().enumerate().filter(|(_, owner)| *owner.node == *node);
        owned.filter_map(|(partition, _)| u16::try_from(partition).ok()).collect()
    }

    /// The partitions that this node orders, by number.
    pub fn settled(&self) -> Vec<u16> {
        let rows = self.rows();
        let settled = rows.iter().enumerate().filter(|(_, owner)| owner.settled);
        settled.filter_map(|(partition, _)| u16::try_from(partition).ok()).collect()
    }

    /// What somebody says. True when that changes who owns it, or under which
    /// epoch.
    pub fn learn(&self, partition: u16, node: &str, epoch: u64) -> bool {
        let mut rows = self.rows();
        let Some(row) = rows.get_mut(usize::from(partition)) else { return false };
        let newer = epoch > row.epoch;
        // What was fenced here is whose it was by the store until it is taken
        // anew; the name comes back, not the right to order.
        let again = epoch == row.epoch && *row.node != *node;
        if !(newer || again) {
            return false;
        }
        *row = Owner { node: node.into(), epoch, settled: false };
        true
    }

    /// This node has taken the partition and orders it. True when that is new.
    pub fn settle(&self, partition: u16, epoch: u64) -> bool {
        let mut rows = self.rows();
        let Some(row) = rows.get_mut(usize::from(partition)) else { return false };
        if epoch < row.epoch {
            return false;
        }
        let settled = Owner { node: self.me.clone(), epoch, settled: true };
        let changed = *row != settled;
        *row = settled;
        changed
    }

    /// This node orders the partition no more under this epoch.
    pub fn unsettle(&self, partition: u16, epoch: u64) {
        let mut rows = self.rows();
        if let Some(row) = rows.get_mut(usize::from(partition))
            && row.epoch == epoch
        {
            row.settled = false;
        }
    }

    fn rows(&self) -> MutexGuard<'_, Vec<Owner>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
