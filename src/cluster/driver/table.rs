//! The partitions as this node knows them: what reads showed, and what its own
//! steps did since. Pure.
//!
//! Epochs only grow, so of two rows of one partition the one with the higher
//! epoch is newer, whichever arrived first: a read that began before a take
//! ended does not undo it.

use std::collections::{BTreeMap, BTreeSet};

use crate::chat::peers::Position;
use crate::store::chat::PartitionState;

/// Rows, what is held, and where a step is under way.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: BTreeMap<u16, PartitionState>,
    /// What chat orders, with the epoch of each.
    pub(super) held: BTreeMap<u16, u64>,
    /// Partitions on which a step is under way.
    pub(super) stepping: BTreeSet<u16>,
    /// Partitions on which a step failed: left alone until the next read.
    resting: BTreeSet<u16>,
    /// What was lost while a step was under way.
    lost: BTreeMap<u16, u64>,
}

impl Table {
    /// A row, newer or older than what is known.
    pub(super) fn learn(&mut self, row: &PartitionState) {
        match self.rows.get_mut(&row.partition) {
            Some(known) if known.epoch > row.epoch => {}
            Some(known) => known.clone_from(row),
            None => drop(self.rows.insert(row.partition, row.clone())),
        }
    }

    /// A read of every row. `owned` is what chat says that it orders: what it
    /// does not is not held.
    pub(super) fn read(&mut self, rows: &[PartitionState], owned: &[Position]) {
        rows.iter().for_each(|row| self.learn(row));
        self.resting.clear();
        let owned: BTreeMap<u16, u64> = owned.iter().map(|at| (at.partition, at.epoch)).collect();
        let stepping = &self.stepping;
        self.held.retain(|partition, epoch| {
            stepping.contains(partition) || owned.get(partition) == Some(epoch)
        });
    }

    /// Every row, by partition.
    pub(super) fn rows(&self) -> Vec<PartitionState> {
        self.rows.values().cloned().collect()
    }

    /// What must be left alone.
    pub(super) fn busy(&self) -> BTreeSet<u16> {
        self.stepping.union(&self.resting).copied().collect()
    }

    /// Chat lost a partition. True when it was held so.
    pub(super) fn lost(&mut self, partition: u16, epoch: u64) -> bool {
        if self.stepping.contains(&partition) {
            self.lost.insert(partition, epoch);
        }
        let held = self.held.get(&partition) == Some(&epoch);
        if held {
            self.held.remove(&partition);
        }
        held
    }

    /// A partition was released to this node under this epoch.
    pub(super) fn released(&mut self, partition: u16, epoch: u64, me: &str) {
        let commit_no = self.rows.get(&partition).map_or(0, |row| row.commit_no);
        self.learn(&PartitionState { partition, owner: me.to_owned(), epoch, commit_no });
    }

    /// A take came to its end.
    pub(super) fn taken(&mut self, partition: u16, row: Option<&PartitionState>) {
        self.stepping.remove(&partition);
        let lost = self.lost.remove(&partition);
        match row {
            Some(row) => {
                self.learn(row);
                if lost != Some(row.epoch) {
                    self.held.insert(partition, row.epoch);
                }
            }
            None => drop(self.resting.insert(partition)),
        }
    }

    /// A hand-over came to its end: with the row that names the successor, if
    /// that is known.
    pub(super) fn handed_over(&mut self, partition: u16, row: Option<&PartitionState>) {
        self.stepping.remove(&partition);
        self.lost.remove(&partition);
        self.held.remove(&partition);
        match row {
            Some(row) => self.learn(row),
            None => drop(self.resting.insert(partition)),
        }
    }

    /// Whether nothing is held, and no row names this node.
    pub(super) fn is_free_of(&self, me: &str) -> bool {
        self.held.is_empty()
            && self.stepping.is_empty()
            && self.rows.values().all(|row| row.owner != me)
    }

    /// The database is another: what was known of it means nothing.
    pub(super) fn forget_rows(&mut self) {
        self.rows.clear();
        self.held.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(owner: &str, epoch: u64) -> PartitionState {
        PartitionState { partition: 1, owner: owner.to_owned(), epoch, commit_no: epoch }
    }

    fn owned(epoch: u64) -> [Position; 1] {
        [Position { partition: 1, epoch, commit_no: 0 }]
    }

    #[test]
    fn a_read_from_before_a_take_does_not_undo_it() {
        let mut table = Table::default();
        table.read(&[row("b", 3)], &[]);
        table.stepping.insert(1);
        table.taken(1, Some(&row("a", 4)));
        table.read(&[row("b", 3)], &owned(4));
        assert_eq!(table.rows(), [row("a", 4)]);
        assert_eq!(table.held.get(&1), Some(&4));
    }

    #[test]
    fn what_was_lost_before_the_take_was_noted_is_not_held() {
        let mut table = Table::default();
        table.stepping.insert(1);
        assert!(!table.lost(1, 4), "not held yet");
        table.taken(1, Some(&row("a", 4)));
        assert!(table.held.is_empty());
        table.stepping.insert(1);
        table.taken(1, Some(&row("a", 5)));
        assert!(!table.lost(1, 4), "an old loss");
        assert_eq!(table.held.get(&1), Some(&5));
        assert!(table.lost(1, 5));
        assert!(table.held.is_empty());
    }

    #[test]
    fn what_chat_does_not_order_is_not_held() {
        let mut table = Table::default();
        table.taken(1, Some(&row("a", 4)));
        table.read(&[row("a", 4)], &[]);
        assert!(table.held.is_empty());
    }

    #[test]
    fn a_failed_step_rests_until_the_next_read() {
        let mut table = Table::default();
        table.stepping.insert(1);
        table.taken(1, None);
        assert!(table.busy().contains(&1));
        table.read(&[row("b", 3)], &[]);
        assert!(table.busy().is_empty());
    }
}
