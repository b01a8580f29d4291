//! Everything that is stored of one payment, for those who explain it.

use async_trait::async_trait;
use uuid::Uuid;

use super::{OperationRecord, Task};
use crate::store::StoreError;
use crate::store::ledger::LedgerEntry;

/// What stands of a payment beside its own row. Its parts are read one after
/// the other: a payment that is being worked on may have moved between them,
/// which its version tells.
#[derive(Debug, Clone, Default)]
pub struct Trail {
    /// What was done to it, oldest first, with the time of its last change,
    /// microseconds since 1970. Without method tokens.
    pub operations: Vec<(OperationRecord, i64)>,
    /// What is still to be done.
    pub waiting: Vec<WaitingRow>,
    /// What it holds beside its payee's balance, minor units.
    pub held: Option<i64>,
    /// What was posted, by account and position.
    pub entries: Vec<LedgerEntry>,
}

/// A row of the outbox. Times are microseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingRow {
    /// What is to be done.
    pub task: Task,
    /// The operation.
    pub operation_id: Uuid,
    /// When it is due.
    pub next_at: i64,
    /// How often it was tried since it last went on.
    pub attempts: u32,
    /// Who works on it; empty for nobody.
    pub lease_owner: String,
    /// Until when.
    pub lease_until: i64,
    /// It is due again as soon as its lease ends.
    pub hastened: bool,
    /// The trace context of whoever asked for it, or empty.
    pub trace: String,
    /// When it was written.
    pub created_at: i64,
}

/// The area of those who explain.
#[async_trait]
pub trait TrailStore: Send + Sync + std::fmt::Debug {
    /// What stands of a payment; nothing for one that there is not.
    async fn trail(&self, payment: Uuid) -> Result<Trail, StoreError>;
}
