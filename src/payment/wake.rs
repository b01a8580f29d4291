//! Wakes those who wait for one payment.
//!
//! Only payments that somebody waits for have an entry, so the map is as large
//! as the number of waiting calls, which the traffic layers bound.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use uuid::Uuid;

type Waiting = Arc<Mutex<HashMap<Uuid, watch::Sender<()>>>>;

#[derive(Debug, Clone, Default)]
pub(super) struct Hub {
    waiting: Waiting,
}

impl Hub {
    /// To be called before the payment is read, or a change could be missed.
    pub(super) fn subscribe(&self, payment: Uuid) -> Subscription {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = waiting.entry(payment).or_insert_with(|| watch::channel(()).0);
        Subscription { payment, changes: Some(sender.subscribe()), waiting: self.waiting.clone() }
    }

    /// The payment changed.
    pub(super) fn touch(&self, payment: Uuid) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = waiting.get(&payment) {
            sender.send_replace(());
        }
    }
}

#[derive(Debug)]
pub(super) struct Subscription {
    payment: Uuid,
    /// Taken only by drop.
    changes: Option<watch::Receiver<()>>,
    waiting: Waiting,
}

impl Subscription {
    /// Waits for a change since the last time. Cancel safe.
    pub(super) async fn changed(&mut self) {
        if let Some(changes) = &mut self.changes {
            // The sender stays in the map as long as a subscription does.
            let _ = changes.changed().await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        self.changes = None;
        if waiting.get(&self.payment).is_some_and(|sender| sender.receiver_count() == 0) {
            waiting.remove(&self.payment);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everyone_who_waits_is_woken_and_nobody_is_remembered() {
        let hub = Hub::default();
        let payment = crate::id::fresh();
        let (mut first, mut second) = (hub.subscribe(payment), hub.subscribe(payment));
        hub.touch(payment);
        first.changed().await;
        second.changed().await;
        drop(first);
        hub.touch(payment);
        second.changed().await;
        drop(second);
        assert!(hub.waiting.lock().expect("nobody panicked").is_empty());
    }
}
