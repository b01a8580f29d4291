//! A transaction that holds partitions' rows: the fence of an append, and what a
//! takeover waits for.

use std::sync::Arc;
use std::time::Duration;

use super::data::Data;
use super::{MemoryStore, Shared, unavailable};
use crate::chance;
use crate::fault::{self, Plant};
use crate::store::StoreError;

/// A row that another transaction holds is looked at again for so long.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// A transaction that keeps a takeover waiting for so long hangs, and is ended.
const IDLE: Duration = Duration::from_millis(500);

/// What a commit does, all or nothing.
type Work = Box<dyn FnOnce(&mut Data) -> Result<(), StoreError> + Send + Sync>;

/// An open transaction. Dropped, it is rolled back; unless its COMMIT was on the
/// way: that lands, or does not.
pub(super) struct Transaction {
    shared: Arc<Shared>,
    id: u64,
    sent: Option<Work>,
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let mut data = self.shared.lock();
        if let Some(work) = self.sent.take()
            && chance::below(2) == 0
            && !data.ended.contains(&self.id)
        {
            // Nobody hears whether it worked.
            let _ = work(&mut data);
        }
        data.locks.retain(|_, holder| *holder != self.id);
        data.ended.remove(&self.id);
        drop(data);
        self.shared.changed.notify_waiters();
    }
}

impl MemoryStore {
    /// Begins a transaction.
    pub(super) fn transaction(&self) -> Transaction {
        let mut data = self.shared.lock();
        data.last_transaction += 1;
        Transaction { shared: self.shared.clone(), id: data.last_transaction, sent: None }
    }

    /// FOR NO KEY UPDATE SKIP LOCKED, until each row was had or is another's:
    /// says for each part whether it is locked under its epoch now.
    pub(super) async fn fence(
        &self,
        transaction: &Transaction,
        parts: &[(u16, u64)],
    ) -> Result<Vec<bool>, StoreError> {
        let all = async {
            loop {
                let changed = self.shared.changed.notified();
                if let Some(answers) = transaction.look(parts) {
                    return answers;
                }
                changed.await;
            }
        };
        let waited = tokio::time::timeout(LOCK_TIMEOUT, all).await;
        waited.map_err(|_| unavailable("a partition's row stays locked"))
    }

    /// COMMIT: sent, landed, answered.
    pub(super) async fn commit(
        &self,
        mut transaction: Transaction,
        work: impl FnOnce(&mut Data) -> Result<(), StoreError> + Send + Sync + 'static,
    ) -> Result<(), StoreError> {
        transaction.sent = Some(Box::new(work));
        self.trip().await?;
        let landed = transaction.land();
        drop(transaction);
        landed?;
        self.answer().await
    }

    /// Waits until nobody has the row locked; who hangs is ended.
    pub(super) async fn wait_for(&self, partition: u16) {
        let free = async {
            loop {
                let changed = self.shared.changed.notified();
                if !self.shared.lock().locks.contains_key(&partition) {
                    return;
                }
                changed.await;
            }
        };
        if tokio::time::timeout(IDLE, free).await.is_err() {
            let mut data = self.shared.lock();
            if let Some(holder) = data.locks.remove(&partition) {
                data.locks.retain(|_, other| *other != holder);
                data.ended.insert(holder);
            }
            drop(data);
            self.shared.changed.notify_waiters();
        }
    }
}

impl Transaction {
    /// One look at the rows; `None` when one that should be had is locked.
    fn look(&self, parts: &[(u16, u64)]) -> Option<Vec<bool>> {
        let mut data = self.shared.lock();
        if fault::planted(Plant::NoFence) {
            return Some(vec![true; parts.len()]);
        }
        let mut answers = Vec::with_capacity(parts.len());
        for (partition, epoch) in parts {
            let stands = data.partitions.get(partition).is_some_and(|row| row.epoch == *epoch);
            let holder = data.locks.get(partition).copied();
            match holder {
                Some(other) if other != self.id => return None,
                _ if stands => {
                    data.locks.insert(*partition, self.id);
                }
                _ => {}
            }
            answers.push(stands);
        }
        Some(answers)
    }

    fn land(&mut self) -> Result<(), StoreError> {
        let mut data = self.shared.lock();
        if data.ended.contains(&self.id) {
            self.sent = None;
            return Err(unavailable("the session was ended"));
        }
        match self.sent.take() {
            Some(work) => work(&mut data),
            None => Ok(()),
        }
    }
}
