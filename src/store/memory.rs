//! The engine in memory, for simulations: only with the cargo feature `fault`.
//!
//! It steps as a database server does, or it would hide the races that matter:
//! a transaction is a row of statements, each sees what is committed when it
//! begins, a locked row is waited for or skipped, a COMMIT is sent, lands, and is
//! answered, three moments that something can go wrong between. What SQL does in
//! one statement is done here in one step under one lock.
//!
//! [`Database`] is what the nodes share; each has a [`MemoryStore`] of its own,
//! with [`Conditions`] that a simulation changes: how slow the way is, how often
//! a statement fails, how often the answer to a COMMIT is lost, and whether the
//! database can be reached at all.

mod chat;
mod cluster;
mod data;
mod ledger;
mod payment;
mod transaction;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use self::data::Data;
use super::StoreError;
use super::cluster::{Observation, StoreIdentity};
use crate::chance;

/// A client gives up a statement after this long.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(2);

/// What the nodes share.
#[derive(Debug, Clone, Default)]
pub struct Database(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    data: Mutex<Data>,
    /// A lock was let go, or the conditions of a client changed.
    changed: Notify,
}

/// How it goes between one client and the database.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conditions {
    /// The shortest time of a statement.
    pub at_least: Duration,
    /// The longest.
    pub at_most: Duration,
    /// How often a statement fails and nothing of its transaction is kept,
    /// 0 to 1.
    pub fails: f64,
    /// How often the answer to a COMMIT is lost, 0 to 1.
    pub loses: f64,
    /// The database cannot be reached: statements wait, and fail in the end.
    pub cut: bool,
}

impl Default for Conditions {
    /// All is well, and takes no time.
    fn default() -> Self {
        Self {
            at_least: Duration::ZERO,
            at_most: Duration::ZERO,
            fails: 0.0,
            loses: 0.0,
            cut: false,
        }
    }
}

/// One client of the database: a node's.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
    conditions: Arc<Mutex<Conditions>>,
    /// What a planted fault remembers of takeovers.
    stale: Arc<Mutex<data::Stale>>,
}

impl Database {
    /// An empty one.
    pub fn new() -> Self {
        let database = Self::default();
        database.0.lock().identity = StoreIdentity { system_id: "memory".to_owned(), timeline: 1 };
        database
    }

    /// A new client, for which all is well.
    pub fn client(&self) -> MemoryStore {
        MemoryStore { shared: self.0.clone(), conditions: Arc::default(), stale: Arc::default() }
    }

    /// One that commits the parts of an append one by one, side by side, as one
    /// does that is distributed by partition.
    pub fn distributed() -> Self {
        let database = Self::new();
        database.0.lock().apart = true;
        database
    }

    /// Every entry of every room that is not deleted, in order: for a judge, who
    /// looks at the truth and not through a client.
    pub fn log(&self) -> Vec<super::chat::Entry> {
        self.0.lock().entries.values().cloned().collect()
    }

    /// The nodes and partitions, for a judge too.
    pub fn observation(&self) -> Observation {
        self.0.lock().observation()
    }

    /// Which timeline the database is of from now on: a standby was promoted, or
    /// an older primary is back.
    pub fn be_of_timeline(&self, timeline: u64) {
        self.0.lock().identity.timeline = timeline;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Data> {
        // What panicked while it held the lock is a test that has failed.
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryStore {
    /// How it goes from now on.
    pub fn set(&self, conditions: Conditions) {
        *self.conditions.lock().unwrap_or_else(PoisonError::into_inner) = conditions;
        self.shared.changed.notify_waiters();
    }

    fn conditions(&self) -> Conditions {
        *self.conditions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One way to the database and back, or one of both.
    async fn trip(&self) -> Result<(), StoreError> {
        let Conditions { at_least, at_most, fails, .. } = self.conditions();
        let slack = at_most.saturating_sub(at_least);
        let time = at_least + slack.mul_f64(chance::unit());
        if time.is_zero() {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(time).await;
        }
        self.reach().await?;
        if fails > 0.0 && chance::unit() < fails {
            return Err(unavailable("a statement failed"));
        }
        Ok(())
    }

    /// Waits while the database cannot be reached.
    async fn reach(&self) -> Result<(), StoreError> {
        let reached = async {
            loop {
                let changed = self.shared.changed.notified();
                if !self.conditions().cut {
                    return;
                }
                changed.await;
            }
        };
        let waited = tokio::time::timeout(STATEMENT_TIMEOUT, reached).await;
        waited.map_err(|_| unavailable("the database does not answer"))
    }

    /// One statement by itself that only reads.
    async fn read<T>(&self, look: impl FnOnce(&Data) -> T) -> Result<T, StoreError> {
        self.trip().await?;
        Ok(look(&self.shared.lock()))
    }

    /// One statement by itself that writes, whole: its commit may land although
    /// the answer is lost.
    async fn write<T>(
        &self,
        change: impl FnOnce(&mut Data) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.trip().await?;
        let outcome = change(&mut self.shared.lock())?;
        self.answer().await?;
        Ok(outcome)
    }

    /// The answer to a COMMIT that has landed.
    async fn answer(&self) -> Result<(), StoreError> {
        let Conditions { loses, .. } = self.conditions();
        if loses > 0.0 && chance::unit() < loses {
            return Err(unavailable("the answer to a commit was lost"));
        }
        self.reach().await
    }
}

fn unavailable(what: &str) -> StoreError {
    StoreError::Unavailable(what.to_owned())
}

#[cfg(test)]
mod tests;
