//! Recording what became of an operation, in one transaction with its postings.
//!
//! Everything begins with the outbox row, locked: whoever holds the lease now
//! keeps it until the commit, and nobody else can come between.

use sqlx::postgres::PgConnection;

use super::claim::{enqueue, one};
use super::rows::blob;
use crate::store::StoreError;
use crate::store::payment::sealed::{seal, seal_action};
use crate::store::payment::{Change, Hold, Leased, OperationStatus, Row, Task};
use crate::store::postgres::ledger;

const OVER: &str = "the lease is over";

pub(super) async fn record(
    connection: &mut PgConnection,
    change: &Change,
) -> Result<(), StoreError> {
    let trace = lock_row(connection, change.row, &change.owner).await?;
    update_payment(connection, change).await?;
    update_operation(connection, change).await?;
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

/// Locks the row while its lease is this owner's; gives its trace context.
async fn lock_row(
    connection: &mut PgConnection,
    row: i64,
    owner: &str,
) -> Result<String, StoreError> {
    let trace = sqlx::query_scalar(
        "SELECT trace FROM outbox WHERE id = $1 AND lease_owner = $2 FOR UPDATE",
    )
    .bind(row)
    .bind(owner)
    .fetch_optional(connection)
    .await?;
    trace.ok_or(StoreError::Conflict(OVER))
}

async fn update_payment(connection: &mut PgConnection, change: &Change) -> Result<(), StoreError> {
    let proven = &change.proven;
    let updated = sqlx::query(
        "UPDATE payment SET status = $4, captured = $5, refunded = $6, unknown = $7, \
         failure_code = $8, failure_detail = $9, next_action = $10, updated_at = $11, \
         version = version + 1 WHERE id = $1 AND status = $2 AND version = $3",
    )
    .bind(blob(&change.payment_id))
    .bind(change.status as i16)
    .bind(i64::try_from(change.version).unwrap_or(i64::MAX))
    .bind(proven.status as i16)
    .bind(proven.captured)
    .bind(proven.refunded)
    .bind(proven.unknown)
    .bind(proven.failure.as_ref().map(|failure| failure.code.clone()))
    .bind(proven.failure.as_ref().map(|failure| seal(&failure.message)))
    .bind(proven.next_action.as_ref().map(seal_action))
    .bind(change.now)
    .execute(connection)
    .await?;
    one(updated.rows_affected(), "the payment has moved")
}

async fn update_operation(
    connection: &mut PgConnection,
    change: &Change,
) -> Result<(), StoreError> {
    let failure = change.operation_failure.as_ref();
    let updated = sqlx::query(
        "UPDATE operation SET status = $2, failure_code = coalesce($3, failure_code), \
         failure_detail = coalesce($4, failure_detail), \
         method = CASE WHEN $5 THEN NULL ELSE method END, updated_at = $6 WHERE id = $1",
    )
    .bind(blob(&change.operation_id))
    .bind(change.operation as i16)
    .bind(failure.map(|failure| failure.code.clone()))
    .bind(failure.map(|failure| seal(&failure.message)))
    .bind(change.erase_method)
    .bind(change.now)
    .execute(connection)
    .await?;
    one(updated.rows_affected(), "the operation is gone")
}

/// Refused when the lease has gone to somebody else: whoever has it now will
/// come to the same end.
pub(super) async fn move_row(
    connection: &mut PgConnection,
    row: i64,
    owner: &str,
    then: Row,
) -> Result<(), StoreError> {
    let moved = match then {
        Row::Remove => {
            sqlx::query("DELETE FROM outbox WHERE id = $1 AND lease_owner = $2")
                .bind(row)
                .bind(owner)
                .execute(connection)
                .await?
        }
        Row::Again { at, attempts } => {
            sqlx::query(
                "UPDATE outbox SET lease_owner = '', lease_until = 0, hastened = FALSE, \
                 next_at = CASE WHEN hastened THEN 0 ELSE $3 END, attempts = $4 \
                 WHERE id = $1 AND lease_owner = $2",
            )
            .bind(row)
            .bind(owner)
            .bind(at)
            .bind(i64::from(attempts))
            .execute(connection)
            .await?
        }
    };
    one(moved.rows_affected(), OVER)
}

/// The row's lock keeps the lease from running out into another's hands between
/// the look at it and the commit.
pub(super) async fn mark_submitting(
    connection: &mut PgConnection,
    leased: &Leased,
    now: i64,
) -> Result<(), StoreError> {
    let held = sqlx::query(
        "SELECT 1 FROM outbox WHERE id = $1 AND lease_owner = $2 AND lease_until > $3 FOR UPDATE",
    )
    .bind(leased.row)
    .bind(&leased.owner)
    .bind(now)
    .fetch_optional(&mut *connection)
    .await?;
    if held.is_none() {
        return Err(StoreError::Conflict(OVER));
    }
    let marked = sqlx::query(
        "UPDATE operation SET status = $2, updated_at = $3 WHERE id = $1 AND status IN (1, 2, 5)",
    )
    .bind(blob(&leased.operation.id))
    .bind(OperationStatus::Submitting as i16)
    .bind(now)
    .execute(connection)
    .await?;
    one(marked.rows_affected(), OVER)
}
