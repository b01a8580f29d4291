//! Where everything durable lives: one trait, split by area, over engines.
//!
//! An engine is done when the conformance suite (`tests/`) passes on it. What
//! every engine promises: a write that returned has been fsynced; a write that
//! failed left nothing; entries of one room and positions of one account have
//! no gaps.

pub mod backup;
pub mod chat;
pub mod cluster;
mod database_error;
pub mod datadir;
pub(crate) mod inspect;
pub mod ledger;
pub mod location;
#[cfg(feature = "fault")]
pub mod memory;
pub mod operation;
pub mod payment;
pub mod postgres;
pub mod sqlite;
mod words;

use std::time::Duration;

use crate::refusal::{Reason, Refusal};

pub use chat::ChatStore;
pub use cluster::ClusterStore;
pub use ledger::LedgerStore;
pub use payment::{PaymentStore, TrailStore};

/// All areas together.
pub trait Store: ChatStore + PaymentStore + LedgerStore + TrailStore {}

impl<T: ChatStore + PaymentStore + LedgerStore + TrailStore> Store for T {}

/// Why the store did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Disk full, an I/O or fsync error, a closed or locked database, a server
    /// that does not answer. The engine recovers by itself when it can. Nothing
    /// was kept, except on a database server: there the answer to a commit can
    /// be lost, and what was being committed may stand.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// What was expected to be so no longer is (compare-and-set, a key that is
    /// taken). Nothing was kept.
    #[error("conflict: {0}")]
    Conflict(&'static str),
    /// What stands in the store cannot be so. Nothing was kept.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    /// Made by another, newer release: not to be touched. Nothing was changed.
    #[error("this release cannot use the store: {0}")]
    Version(String),
    /// A statement is wrong: our bug. Nothing was kept.
    #[error("store fault: {0}")]
    Fault(String),
}

impl StoreError {
    /// What [`kind`](Self::kind) can say.
    const KINDS: [&str; 4] = ["corrupt", "fault", "unavailable", "version"];

    /// The sort of a failure, for metrics and spans; `None` for a conflict,
    /// which is an answer like another.
    fn kind(&self) -> Option<&'static str> {
        match self {
            Self::Unavailable(_) => Some("unavailable"),
            Self::Conflict(_) => None,
            Self::Corrupt(_) => Some("corrupt"),
            Self::Version(_) => Some("version"),
            Self::Fault(_) => Some("fault"),
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => {
                Refusal::new(Reason::StoreUnavailable, "the store cannot be used now")
                    .retry_after(Duration::from_secs(1))
            }
            // A conflict that reaches a caller was not handled where it should be.
            StoreError::Conflict(_)
            | StoreError::Corrupt(_)
            | StoreError::Version(_)
            | StoreError::Fault(_) => {
                tracing::error!(%error, "store");
                Refusal::new(Reason::Internal, "the store failed")
            }
        }
    }
}
