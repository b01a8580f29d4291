//! Claiming a key and beginning what it stands for, in one transaction.
//!
//! The key is written first: of two nodes that claim it at once the second
//! waits there until the first has committed, and then finds what it stands for.
//! What is refused after that is an error, so that the key goes too.

use secrecy::ExposeSecret;
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::rows::{blob, id};
use crate::store::StoreError;
use crate::store::database_error::TRY_AGAIN;
use crate::store::payment::sealed::{damaged, seal};
use crate::store::payment::{
    Claim, Claimed, Failure, Key, KeyRecord, NewPayment, OperationKind, OperationStatus, Status,
    Task, Work,
};
use crate::store::postgres::ledger;

pub(super) const KEY: &str = "SELECT request_hash, payment_id, operation_id FROM idempotency \
     WHERE account = $1 AND method = $2 AND key = $3";

/// The refusal that [`Claimed::Moved`] stands for.
pub(super) const MOVED: &str = "the payment has moved, or an operation is under way";

pub(super) async fn claim(
    connection: &mut PgConnection,
    claim: &Claim,
) -> Result<Claimed, StoreError> {
    if !insert_key(connection, claim).await? {
        return match known(connection, &claim.key).await? {
            Some(known) => Ok(Claimed::Known(known)),
            // Forgotten by age between the two statements.
            None => Err(StoreError::Conflict(TRY_AGAIN)),
        };
    }
    let (kind, minor_units, method) = match &claim.work {
        Work::Pay(payment) => {
            insert_payment(connection, claim, payment).await?;
            let method = seal(payment.method.expose_secret());
            (OperationKind::Charge, payment.amount.minor_units, Some(method))
        }
        Work::Operate { version, kind, minor_units, reservation } => {
            touch(connection, claim.payment_id, *version, claim.now).await?;
            if let Some(transfer) = reservation {
                ledger::post(connection, transfer).await?;
            }
            (*kind, *minor_units, None)
        }
        Work::Withdraw { version, minor_units, failure } => {
            withdraw(connection, claim, *version, failure).await?;
            (OperationKind::Cancel, *minor_units, None)
        }
    };
    let withdrawn = matches!(claim.work, Work::Withdraw { .. });
    let status = if withdrawn { OperationStatus::Done } else { OperationStatus::New };
    sqlx::query(
        "INSERT INTO operation (id, payment_id, kind, status, minor_units, provider_key, method, \
         created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)",
    )
    .bind(blob(&claim.operation_id))
    .bind(blob(&claim.payment_id))
    .bind(kind as i16)
    .bind(status as i16)
    .bind(minor_units)
    .bind(claim.operation_id.simple().to_string())
    .bind(method)
    .bind(claim.now)
    .execute(&mut *connection)
    .await?;
    if !withdrawn {
        let (payment, operation) = (claim.payment_id, claim.operation_id);
        enqueue(connection, Task::Drive, payment, operation, &claim.trace, claim.now).await?;
    }
    Ok(Claimed::New)
}

async fn known(connection: &mut PgConnection, key: &Key) -> Result<Option<KeyRecord>, StoreError> {
    let row = sqlx::query(KEY)
        .bind(key.account.as_str())
        .bind(key.method.as_str())
        .bind(&key.key)
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(key_record).transpose()
}

pub(super) fn key_record(row: &PgRow) -> Result<KeyRecord, StoreError> {
    let hash: Vec<u8> = row.try_get("request_hash")?;
    Ok(KeyRecord {
        request_hash: hash.try_into().map_err(|_| damaged("a request hash has not 32 bytes"))?,
        payment_id: id(row, "payment_id")?,
        operation_id: id(row, "operation_id")?,
    })
}

/// False when the key is taken. Waits for whoever is claiming it.
async fn insert_key(connection: &mut PgConnection, claim: &Claim) -> Result<bool, StoreError> {
    let inserted = sqlx::query(
        "INSERT INTO idempotency (account, method, key, request_hash, payment_id, operation_id, \
         created_at) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
    )
    .bind(claim.key.account.as_str())
    .bind(claim.key.method.as_str())
    .bind(&claim.key.key)
    .bind(claim.request_hash.as_slice())
    .bind(blob(&claim.payment_id))
    .bind(blob(&claim.operation_id))
    .bind(claim.now)
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

async fn insert_payment(
    connection: &mut PgConnection,
    claim: &Claim,
    payment: &NewPayment,
) -> Result<(), StoreError> {
    let metadata = serde_json::to_string(&payment.metadata)
        .map_err(|_| StoreError::Fault("metadata cannot be written".to_owned()))?;
    sqlx::query(
        "INSERT INTO payment (id, payer, payee, currency, minor_units, capture, status, \
         description, metadata, room_id, provider, created_at, updated_at, version) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12, 1)",
    )
    .bind(blob(&claim.payment_id))
    .bind(payment.payer.as_str())
    .bind(payment.payee.as_str())
    .bind(payment.amount.currency.as_str())
    .bind(payment.amount.minor_units)
    .bind(payment.capture as i16)
    .bind(Status::Created as i16)
    .bind(seal(&payment.description))
    .bind(seal(&metadata))
    .bind(&payment.room_id)
    .bind(&payment.provider)
    .bind(claim.now)
    .execute(connection)
    .await?;
    Ok(())
}

/// Raises the version if the payment has not moved and nothing is under way.
/// Whoever waited here for another claim finds another version.
async fn touch(
    connection: &mut PgConnection,
    payment: Uuid,
    version: u64,
    now: i64,
) -> Result<(), StoreError> {
    let touched = sqlx::query(
        "UPDATE payment SET version = version + 1, updated_at = $3 WHERE id = $1 AND version = $2 \
         AND NOT EXISTS (SELECT 1 FROM operation WHERE payment_id = $1 AND status IN (1, 2, 5))",
    )
    .bind(blob(&payment))
    .bind(i64::try_from(version).unwrap_or(i64::MAX))
    .bind(now)
    .execute(connection)
    .await?;
    one(touched.rows_affected(), MOVED)
}

/// Ends the charge of a payment that has not moved, if it was never sent, and
/// the payment with it. Whoever has leased its row finds neither the row nor a
/// charge that may be marked SUBMITTING: from here on it cannot be sent.
async fn withdraw(
    connection: &mut PgConnection,
    claim: &Claim,
    version: u64,
    failure: &Failure,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM outbox WHERE payment_id = $1")
        .bind(blob(&claim.payment_id))
        .execute(&mut *connection)
        .await?;
    let payment = sqlx::query(
        "UPDATE payment SET status = $2, unknown = FALSE, next_action = NULL, updated_at = $3, \
         version = version + 1 WHERE id = $1 AND version = $4",
    )
    .bind(blob(&claim.payment_id))
    .bind(Status::Canceled as i16)
    .bind(claim.now)
    .bind(i64::try_from(version).unwrap_or(i64::MAX))
    .execute(&mut *connection)
    .await?;
    one(payment.rows_affected(), MOVED)?;
    let charge = sqlx::query(
        "UPDATE operation SET status = $2, failure_code = $3, failure_detail = $4, method = NULL, \
         updated_at = $5 WHERE payment_id = $1 AND kind = $6 AND status = $7",
    )
    .bind(blob(&claim.payment_id))
    .bind(OperationStatus::Failed as i16)
    .bind(&failure.code)
    .bind(seal(&failure.message))
    .bind(claim.now)
    .bind(OperationKind::Charge as i16)
    .bind(OperationStatus::New as i16)
    .execute(connection)
    .await?;
    one(charge.rows_affected(), MOVED)
}

pub(super) async fn enqueue(
    connection: &mut PgConnection,
    task: Task,
    payment: Uuid,
    operation: Uuid,
    trace: &str,
    now: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO outbox (task, payment_id, operation_id, next_at, trace, created_at) \
         VALUES ($1, $2, $3, $4, $5, $4)",
    )
    .bind(task as i16)
    .bind(blob(&payment))
    .bind(blob(&operation))
    .bind(now)
    .bind(trace)
    .execute(connection)
    .await?;
    Ok(())
}

/// Refused when a compare-and-set did not find what it compared with.
pub(super) fn one(rows: u64, otherwise: &'static str) -> Result<(), StoreError> {
    if rows == 1 { Ok(()) } else { Err(StoreError::Conflict(otherwise)) }
}
