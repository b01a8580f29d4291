//! Wakes whoever follows an account when something was posted on it.
//!
//! A hint, not a delivery: who wakes reads the store, and reads it every few
//! seconds anyway. So nothing is lost when a wake-up is.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::store::ledger::AccountName;

/// The followers of accounts on this node. Cheap to clone; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Touched {
    followed: Arc<Mutex<HashMap<AccountName, watch::Sender<()>>>>,
}

impl Touched {
    /// Nobody follows anything yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Something was posted on the account, and is committed.
    pub fn touched(&self, account: &AccountName) {
        if let Some(followers) = self.lock().get(account) {
            followers.send_replace(());
        }
    }

    /// Sees every touch from now on. Subscribe first, then read.
    pub fn subscribe(&self, account: AccountName) -> Subscription {
        let receiver = match self.lock().entry(account.clone()) {
            Entry::Occupied(followers) => followers.get().subscribe(),
            Entry::Vacant(nobody) => nobody.insert(watch::Sender::new(())).subscribe(),
        };
        Subscription { hub: self.clone(), account, receiver: Some(receiver) }
    }

    /// How many accounts are followed.
    pub fn followed(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AccountName, watch::Sender<()>>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One follower of an account. The account leaves the hub with its last one.
#[derive(Debug)]
pub struct Subscription {
    hub: Touched,
    account: AccountName,
    receiver: Option<watch::Receiver<()>>,
}

impl Subscription {
    /// Waits for a touch since the last one that was seen. Cancel safe.
    pub async fn touched(&mut self) {
        let gone = match &mut self.receiver {
            Some(receiver) => receiver.changed().await.is_err(),
            None => true,
        };
        // The hub keeps the sender while a receiver lives: never.
        if gone {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut followed = self.hub.lock();
        self.receiver = None;
        if followed.get(&self.account).is_some_and(|followers| followers.receiver_count() == 0) {
            followed.remove(&self.account);
        }
    }
}
