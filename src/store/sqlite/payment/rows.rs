//! Rows of the payment area as records.

use secrecy::SecretString;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use crate::money::Money;
use crate::principal::Principal;
use crate::store::StoreError;
use crate::store::payment::sealed::{action, damaged, unseal};
use crate::store::payment::{
    CaptureMode, Failure, OperationKind, OperationRecord, OperationStatus, PaymentRecord, Proven,
    Status,
};

/// An id as it is bound.
pub(super) fn blob(id: &Uuid) -> &[u8] {
    id.as_bytes().as_slice()
}

pub(super) fn id(row: &SqliteRow, column: &str) -> Result<Uuid, StoreError> {
    let bytes: Vec<u8> = row.try_get(column)?;
    Uuid::from_slice(&bytes).map_err(|_| damaged("an id has not 16 bytes"))
}

fn text(row: &SqliteRow, column: &str) -> Result<String, StoreError> {
    unseal(row.try_get::<&[u8], _>(column)?)
}

fn optional_text(row: &SqliteRow, column: &str) -> Result<Option<String>, StoreError> {
    row.try_get::<Option<&[u8]>, _>(column)?.map(unseal).transpose()
}

fn principal(row: &SqliteRow, column: &str) -> Result<Principal, StoreError> {
    row.try_get::<&str, _>(column)?.parse().map_err(|_| damaged("an account is no principal"))
}

fn word<T>(
    row: &SqliteRow,
    column: &str,
    read: impl Fn(i64) -> Option<T>,
) -> Result<T, StoreError> {
    read(row.try_get(column)?).ok_or_else(|| damaged("a number stands for no word"))
}

fn failure(row: &SqliteRow, code: &str, detail: &str) -> Result<Option<Failure>, StoreError> {
    let code: Option<String> = row.try_get(code)?;
    let message = optional_text(row, detail)?.unwrap_or_default();
    Ok(code.map(|code| Failure { code, message }))
}

/// The columns of a payment under the alias `p`, as [`payment`] reads them.
macro_rules! payment_columns {
    () => {
        "p.id, p.payer, p.payee, p.currency, p.minor_units, p.capture, p.status, p.captured, \
         p.refunded, p.unknown, p.failure_code, p.failure_detail, p.next_action, p.description, \
         p.metadata, p.room_id, p.provider, p.created_at, p.updated_at, p.version, \
         EXISTS (SELECT 1 FROM operation AS live WHERE live.payment_id = p.id \
         AND live.status IN (1, 2, 5)) AS busy, \
         EXISTS (SELECT 1 FROM operation AS unsent WHERE unsent.payment_id = p.id \
         AND unsent.kind = 1 AND unsent.status = 1) AS unsent"
    };
}

/// The columns of an operation under the alias `o`, as [`operation`] reads them.
macro_rules! operation_columns {
    () => {
        "o.id AS o_id, o.payment_id AS o_payment, o.kind AS o_kind, o.status AS o_status, \
         o.minor_units AS o_units, o.provider_key AS o_key, o.failure_code AS o_code, \
         o.failure_detail AS o_detail, o.created_at AS o_created, \
         (SELECT charge.provider_key FROM operation AS charge \
         WHERE charge.payment_id = o.payment_id AND charge.kind = 1) AS o_charge_key"
    };
}

pub(super) use {operation_columns, payment_columns};

pub(super) fn payment(row: &SqliteRow) -> Result<PaymentRecord, StoreError> {
    let currency = row
        .try_get::<&str, _>("currency")?
        .parse()
        .map_err(|_| damaged("a payment's currency is unknown"))?;
    let metadata = serde_json::from_str(&text(row, "metadata")?)
        .map_err(|_| damaged("a payment's metadata cannot be read"))?;
    Ok(PaymentRecord {
        id: id(row, "id")?,
        payer: principal(row, "payer")?,
        payee: principal(row, "payee")?,
        amount: Money { currency, minor_units: row.try_get("minor_units")? },
        capture: word(row, "capture", CaptureMode::from_number)?,
        proven: Proven {
            status: word(row, "status", Status::from_number)?,
            captured: row.try_get("captured")?,
            refunded: row.try_get("refunded")?,
            unknown: row.try_get::<i64, _>("unknown")? != 0,
            failure: failure(row, "failure_code", "failure_detail")?,
            next_action: optional_text(row, "next_action")?.as_deref().map(action),
        },
        busy: row.try_get::<i64, _>("busy")? != 0,
        unsent: row.try_get::<i64, _>("unsent")? != 0,
        description: text(row, "description")?,
        metadata,
        room_id: row.try_get("room_id")?,
        provider: row.try_get("provider")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
        version: row.try_get::<i64, _>("version")?.unsigned_abs(),
    })
}

/// The method token is read only where it is sent: see `method`.
pub(super) fn operation(row: &SqliteRow) -> Result<OperationRecord, StoreError> {
    Ok(OperationRecord {
        id: id(row, "o_id")?,
        payment_id: id(row, "o_payment")?,
        kind: word(row, "o_kind", OperationKind::from_number)?,
        status: word(row, "o_status", OperationStatus::from_number)?,
        minor_units: row.try_get("o_units")?,
        provider_key: row.try_get("o_key")?,
        charge_key: row.try_get("o_charge_key")?,
        method: None,
        failure: failure(row, "o_code", "o_detail")?,
        created_at: row.try_get("o_created")?,
    })
}

/// The method token of a row that has the column `o_method`.
pub(super) fn method(row: &SqliteRow) -> Result<Option<SecretString>, StoreError> {
    Ok(optional_text(row, "o_method")?.map(SecretString::from))
}
