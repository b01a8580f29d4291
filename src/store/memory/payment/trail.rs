//! Everything that is stored of one payment.

use async_trait::async_trait;
use uuid::Uuid;

use super::{Due, without_method};
use crate::store::StoreError;
use crate::store::memory::MemoryStore;
use crate::store::memory::data::Data;
use crate::store::payment::{Trail, TrailStore, WaitingRow};

#[async_trait]
impl TrailStore for MemoryStore {
    async fn trail(&self, payment: Uuid) -> Result<Trail, StoreError> {
        self.read(|data| trail(data, payment)).await
    }
}

fn trail(data: &Data, payment: Uuid) -> Trail {
    let payments = &data.books.payments;
    let changed = |id: Uuid, made: i64| payments.updated.get(&id).copied().unwrap_or(made);
    let mut operations: Vec<_> = payments
        .of(payment)
        .map(|operation| (without_method(operation), changed(operation.id, operation.created_at)))
        .collect();
    operations.sort_by_key(|(operation, _)| (operation.created_at, operation.id));
    let due = payments.outbox.values().filter(|row| row.payment == payment);
    let (held, entries) = data.books.of_payment(payment);
    Trail { operations, waiting: due.map(waiting).collect(), held, entries }
}

fn waiting(row: &Due) -> WaitingRow {
    WaitingRow {
        task: row.task,
        operation_id: row.operation,
        next_at: row.next_at,
        attempts: row.attempts,
        lease_owner: row.lease_owner.clone(),
        lease_until: row.lease_until,
        hastened: row.hastened,
        trace: row.trace.clone(),
        created_at: row.created_at,
    }
}
