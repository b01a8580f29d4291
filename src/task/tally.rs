//! How many tasks of each name run, for whoever looks into the node. The
//! process's, as its log is.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

static TALLY: Mutex<BTreeMap<&'static str, Tally>> = Mutex::new(BTreeMap::new());

/// The tasks of one name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// They run now.
    pub running: u64,
    /// They were started, since the process began.
    pub started: u64,
    /// They ended by a panic.
    pub panicked: u64,
}

/// Every name that was ever used, in order. Names are few: they stand in the
/// source.
pub fn all() -> Vec<(&'static str, Tally)> {
    lock().iter().map(|(name, tally)| (*name, *tally)).collect()
}

/// Counts a task while it is held.
pub(super) struct Counted(&'static str);

impl Counted {
    pub(super) fn begin(name: &'static str) -> Self {
        let mut tally = lock();
        let tally = tally.entry(name).or_default();
        tally.running += 1;
        tally.started += 1;
        Self(name)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut tally = lock();
        let tally = tally.entry(self.0).or_default();
        tally.running = tally.running.saturating_sub(1);
        tally.panicked += u64::from(std::thread::panicking());
    }
}

fn lock() -> MutexGuard<'static, BTreeMap<&'static str, Tally>> {
    TALLY.lock().unwrap_or_else(PoisonError::into_inner)
}
