//! Claiming a key and beginning what it stands for, in one transaction.

use secrecy::ExposeSecret;
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

use super::rows::{blob, id};
use crate::store::StoreError;
use crate::store::payment::sealed::{damaged, seal};
use crate::store::payment::{
    Claim, Claimed, Failure, Key, KeyRecord, NewPayment, OperationKind, OperationStatus, Status,
    Task, Work,
};
use crate::store::sqlite::ledger;

pub(super) const KEY: &str = "SELECT request_hash, payment_id, operation_id FROM idempotency \
     WHERE account = ?1 AND method = ?2 AND key = ?3";

pub(super) async fn claim(
    connection: &mut SqliteConnection,
    claim: Claim,
) -> Result<Claimed, StoreError> {
    if let Some(known) = known(connection, &claim.key).await? {
        return Ok(Claimed::Known(known));
    }
    let (kind, minor_units, method) = match &claim.work {
        Work::Pay(payment) => {
            insert_payment(connection, &claim, payment).await?;
            let method = seal(payment.method.expose_secret());
            (OperationKind::Charge, payment.amount.minor_units, Some(method))
        }
        Work::Operate { version, kind, minor_units, reservation } => {
            if !touch(connection, claim.payment_id, *version, claim.now).await? {
                return Ok(Claimed::Moved);
            }
            if let Some(transfer) = reservation {
                ledger::post(connection, transfer).await?;
            }
            (*kind, *minor_units, None)
        }
        Work::Withdraw { version, minor_units, failure } => {
            if !withdraw(connection, &claim, *version, failure).await? {
                return Ok(Claimed::Moved);
            }
            (OperationKind::Cancel, *minor_units, None)
        }
    };
    let withdrawn = matches!(claim.work, Work::Withdraw { .. });
    let status = if withdrawn { OperationStatus::Done } else { OperationStatus::New };
    sqlx::query(
        "INSERT INTO operation (id, payment_id, kind, status, minor_units, provider_key, method, \
         created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)",
    )
    .bind(blob(&claim.operation_id))
    .bind(blob(&claim.payment_id))
    .bind(kind as i64)
    .bind(status as i64)
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
    insert_key(connection, &claim).await?;
    Ok(Claimed::New)
}

async fn known(
    connection: &mut SqliteConnection,
    key: &Key,
) -> Result<Option<KeyRecord>, StoreError> {
    let row = sqlx::query(KEY)
        .bind(key.account.as_str())
        .bind(key.method.as_str())
        .bind(&key.key)
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(key_record).transpose()
}

pub(super) fn key_record(row: &sqlx::sqlite::SqliteRow) -> Result<KeyRecord, StoreError> {
    let hash: Vec<u8> = row.try_get("request_hash")?;
    Ok(KeyRecord {
        request_hash: hash.try_into().map_err(|_| damaged("a request hash has not 32 bytes"))?,
        payment_id: id(row, "payment_id")?,
        operation_id: id(row, "operation_id")?,
    })
}

async fn insert_key(connection: &mut SqliteConnection, claim: &Claim) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO idempotency (account, method, key, request_hash, payment_id, operation_id, \
         created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
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
    Ok(())
}

async fn insert_payment(
    connection: &mut SqliteConnection,
    claim: &Claim,
    payment: &NewPayment,
) -> Result<(), StoreError> {
    let metadata = serde_json::to_string(&payment.metadata)
        .map_err(|_| StoreError::Fault("metadata cannot be written".to_owned()))?;
    sqlx::query(
        "INSERT INTO payment (id, payer, payee, currency, minor_units, capture, status, \
         description, metadata, room_id, provider, created_at, updated_at, version) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?12, 1)",
    )
    .bind(blob(&claim.payment_id))
    .bind(payment.payer.as_str())
    .bind(payment.payee.as_str())
    .bind(payment.amount.currency.as_str())
    .bind(payment.amount.minor_units)
    .bind(payment.capture as i64)
    .bind(Status::Created as i64)
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
async fn touch(
    connection: &mut SqliteConnection,
    payment: Uuid,
    version: u64,
    now: i64,
) -> Result<bool, StoreError> {
    let touched = sqlx::query(
        "UPDATE payment SET version = version + 1, updated_at = ?3 WHERE id = ?1 AND version = ?2 \
         AND NOT EXISTS (SELECT 1 FROM operation WHERE payment_id = ?1 AND status IN (1, 2, 5))",
    )
    .bind(blob(&payment))
    .bind(i64::try_from(version).unwrap_or(i64::MAX))
    .bind(now)
    .execute(connection)
    .await?;
    Ok(touched.rows_affected() == 1)
}

/// Ends the charge of a payment that has not moved, if it was never sent, and
/// the payment with it. Whoever has leased its row finds neither the row nor a
/// charge that may be marked SUBMITTING: from here on it cannot be sent.
async fn withdraw(
    connection: &mut SqliteConnection,
    claim: &Claim,
    version: u64,
    failure: &Failure,
) -> Result<bool, StoreError> {
    let charge = sqlx::query(
        "UPDATE operation SET status = ?2, failure_code = ?3, failure_detail = ?4, method = NULL, \
         updated_at = ?5 WHERE payment_id = ?1 AND kind = ?6 AND status = ?7 \
         AND EXISTS (SELECT 1 FROM payment WHERE id = ?1 AND version = ?8)",
    )
    .bind(blob(&claim.payment_id))
    .bind(OperationStatus::Failed as i64)
    .bind(&failure.code)
    .bind(seal(&failure.message))
    .bind(claim.now)
    .bind(OperationKind::Charge as i64)
    .bind(OperationStatus::New as i64)
    .bind(i64::try_from(version).unwrap_or(i64::MAX))
    .execute(&mut *connection)
    .await?;
    if charge.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query("DELETE FROM outbox WHERE payment_id = ?1")
        .bind(blob(&claim.payment_id))
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "UPDATE payment SET status = ?2, unknown = 0, next_action = NULL, updated_at = ?3, \
         version = version + 1 WHERE id = ?1",
    )
    .bind(blob(&claim.payment_id))
    .bind(Status::Canceled as i64)
    .bind(claim.now)
    .execute(connection)
    .await?;
    Ok(true)
}

pub(super) async fn enqueue(
    connection: &mut SqliteConnection,
    task: Task,
    payment: Uuid,
    operation: Uuid,
    trace: &str,
    now: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO outbox (task, payment_id, operation_id, next_at, trace, created_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?4)",
    )
    .bind(task as i64)
    .bind(blob(&payment))
    .bind(blob(&operation))
    .bind(now)
    .bind(trace)
    .execute(connection)
    .await?;
    Ok(())
}
