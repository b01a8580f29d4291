//! Recording what became of an operation, in one transaction with its postings.

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::claim::enqueue;
use super::rows::blob;
use crate::store::StoreError;
use crate::store::payment::sealed::{seal, seal_action};
use crate::store::payment::{Change, Hold, Leased, OperationStatus, Row, Task};
use crate::store::sqlite::ledger;

pub(super) async fn record(
    connection: &mut SqliteConnection,
    change: Change,
) -> Result<(), StoreError> {
    update_payment(connection, &change).await?;
    update_operation(connection, &change).await?;
    for transfer in &change.transfers {
        ledger::post(connection, transfer).await?;
    }
    match &change.hold {
        Hold::Keep => {}
        Hold::Put { account, currency, minor_units } => {
            ledger::put_hold(connection, account, *currency, change.payment_id, *minor_units)
                .await?;
        }
        Hold::Release => {
            ledger::release_hold(connection, change.payment_id).await?;
        }
    }
    if change.receipt {
        let trace = trace(connection, change.row).await?;
        enqueue(
            connection,
            Task::Receipt,
            change.payment_id,
            change.operation_id,
            &trace,
            change.now,
        )
        .await?;
    }
    move_row(connection, change.row, &change.owner, change.then).await
}

async fn update_payment(
    connection: &mut SqliteConnection,
    change: &Change,
) -> Result<(), StoreError> {
    let proven = &change.proven;
    let updated = sqlx::query(
        "UPDATE payment SET status = ?4, captured = ?5, refunded = ?6, unknown = ?7, \
         failure_code = ?8, failure_detail = ?9, next_action = ?10, updated_at = ?11, \
         version = version + 1 WHERE id = ?1 AND status = ?2 AND version = ?3",
    )
    .bind(blob(&change.payment_id))
    .bind(change.status as i64)
    .bind(i64::try_from(change.version).unwrap_or(i64::MAX))
    .bind(proven.status as i64)
    .bind(proven.captured)
    .bind(proven.refunded)
    .bind(i64::from(proven.unknown))
    .bind(proven.failure.as_ref().map(|failure| failure.code.clone()))
    .bind(proven.failure.as_ref().map(|failure| seal(&failure.message)))
    .bind(proven.next_action.as_ref().map(seal_action))
    .bind(change.now)
    .execute(connection)
    .await?;
    one(updated.rows_affected(), "the payment has moved")
}

async fn update_operation(
    connection: &mut SqliteConnection,
    change: &Change,
) -> Result<(), StoreError> {
    let failure = change.operation_failure.as_ref();
    let updated = sqlx::query(
        "UPDATE operation SET status = ?2, failure_code = coalesce(?3, failure_code), \
         failure_detail = coalesce(?4, failure_detail), \
         method = CASE WHEN ?5 THEN NULL ELSE method END, updated_at = ?6 WHERE id = ?1",
    )
    .bind(blob(&change.operation_id))
    .bind(change.operation as i64)
    .bind(failure.map(|failure| failure.code.clone()))
    .bind(failure.map(|failure| seal(&failure.message)))
    .bind(change.erase_method)
    .bind(change.now)
    .execute(connection)
    .await?;
    one(updated.rows_affected(), "the operation is gone")
}

async fn trace(connection: &mut SqliteConnection, row: i64) -> Result<String, StoreError> {
    let row = sqlx::query("SELECT trace FROM outbox WHERE id = ?1")
        .bind(row)
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|row| row.try_get("trace")).transpose()?.unwrap_or_default())
}

/// Refused when the lease has gone to somebody else: whoever has it now will
/// come to the same end.
pub(super) async fn move_row(
    connection: &mut SqliteConnection,
    row: i64,
    owner: &str,
    then: Row,
) -> Result<(), StoreError> {
    let moved = match then {
        Row::Remove => {
            sqlx::query("DELETE FROM outbox WHERE id = ?1 AND lease_owner = ?2")
                .bind(row)
                .bind(owner)
                .execute(connection)
                .await?
        }
        Row::Again { at, attempts } => {
            sqlx::query(
                "UPDATE outbox SET lease_owner = '', lease_until = 0, hastened = 0, \
                 next_at = CASE WHEN hastened THEN 0 ELSE ?3 END, attempts = ?4 \
                 WHERE id = ?1 AND lease_owner = ?2",
            )
            .bind(row)
            .bind(owner)
            .bind(at)
            .bind(i64::from(attempts))
            .execute(connection)
            .await?
        }
    };
    one(moved.rows_affected(), "the lease is over")
}

pub(super) async fn mark_submitting(
    connection: &mut SqliteConnection,
    leased: &Leased,
    now: i64,
) -> Result<(), StoreError> {
    let marked = sqlx::query(
        "UPDATE operation SET status = ?4, updated_at = ?5 WHERE id = ?1 AND status IN (1, 2, 5) \
         AND EXISTS (SELECT 1 FROM outbox WHERE id = ?2 AND lease_owner = ?3 AND lease_until > ?5)",
    )
    .bind(blob(&leased.operation.id))
    .bind(leased.row)
    .bind(&leased.owner)
    .bind(OperationStatus::Submitting as i64)
    .bind(now)
    .execute(connection)
    .await?;
    one(marked.rows_affected(), "the lease is over")
}

fn one(rows: u64, otherwise: &'static str) -> Result<(), StoreError> {
    if rows == 1 { Ok(()) } else { Err(StoreError::Conflict(otherwise)) }
}
