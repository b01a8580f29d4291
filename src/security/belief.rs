//! Whether what proved a caller is still believed.
//!
//! A key that leaves its issuer's set, or an authority that leaves its bundle,
//! must end what rests on it: new calls are refused because they are proven
//! anew, open streams because their permits hold a [`Belief`].

use std::sync::Arc;

use tokio::sync::watch;

/// One side: whoever believes, and may stop to. Clones share it.
#[derive(Debug, Clone)]
pub struct Believed(Arc<watch::Sender<bool>>);

/// The other side: whoever rests on it.
#[derive(Debug, Clone)]
pub struct Belief(watch::Receiver<bool>);

impl Believed {
    /// Believed, until it is withdrawn.
    #[allow(clippy::new_without_default)] // Not a value among others.
    pub fn new() -> Self {
        Self(Arc::new(watch::channel(false).0))
    }

    /// For what is proven by it.
    pub fn belief(&self) -> Belief {
        Belief(self.0.subscribe())
    }

    /// Ends what rests on it.
    pub fn withdraw(&self) {
        self.0.send_replace(true);
    }

    /// Whether both are one belief.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Belief {
    /// Whether it was withdrawn.
    pub fn is_withdrawn(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is withdrawn. Cancel safe.
    pub async fn withdrawn(&mut self) {
        // Nobody is left who could withdraw it.
        if self.0.wait_for(|withdrawn| *withdrawn).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
