//! Whether the node is ready to serve: named guards that must each be released
//! once, and may be taken again when a part fails.
//!
//! A part takes a [`Guard`] by name while it is not ready and drops it when it
//! is. Probes list the names that are still pending.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

/// Shared state of all guards. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Readiness {
    pending: Arc<watch::Sender<BTreeMap<&'static str, usize>>>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self { pending: Arc::new(watch::channel(BTreeMap::new()).0) }
    }
}

impl Readiness {
    /// Nothing pending yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the node not ready until the guard is dropped. The name is what a
    /// probe shows. Example: `store open`.
    pub fn hold(&self, name: &'static str) -> Guard {
        self.pending.send_modify(|pending| *pending.entry(name).or_default() += 1);
        Guard { pending: self.pending.clone(), name }
    }

    /// The names that are still pending, in order.
    pub fn pending(&self) -> Vec<&'static str> {
        self.pending.borrow().keys().copied().collect()
    }

    /// Whether nothing is pending.
    pub fn is_ready(&self) -> bool {
        self.pending.borrow().is_empty()
    }

    /// Sees every change of the pending names.
    pub fn subscribe(&self) -> watch::Receiver<BTreeMap<&'static str, usize>> {
        self.pending.subscribe()
    }

    /// Waits until nothing is pending. Cancel safe.
    pub async fn ready(&self) {
        // The sender lives in `self`: the wait cannot fail.
        let _ = self.pending.subscribe().wait_for(BTreeMap::is_empty).await;
    }
}

/// Keeps the node not ready until it is dropped.
#[derive(Debug)]
#[must_use = "the node is not ready only while the guard is held"]
pub struct Guard {
    pending: Arc<watch::Sender<BTreeMap<&'static str, usize>>>,
    name: &'static str,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.pending.send_modify(|pending| {
            if let Some(held) = pending.get_mut(self.name) {
                *held -= 1;
                if *held == 0 {
                    pending.remove(self.name);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_when_the_last_guard_of_every_name_is_gone() {
        let readiness = Readiness::new();
        let store = readiness.hold("store open");
        let first = readiness.hold("certificates loaded");
        let second = readiness.hold("certificates loaded");
        assert_eq!(readiness.pending(), ["certificates loaded", "store open"]);
        drop((store, first));
        assert_eq!(readiness.pending(), ["certificates loaded"]);
        drop(second);
        assert!(readiness.is_ready());
    }
}
