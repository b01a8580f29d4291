//! The payment area on SQLite.
//!
//! Every method that writes is one job of the writer, so one transaction.

mod claim;
mod outcome;
mod rows;
mod trail;

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

use self::rows::{blob, operation_columns, payment_columns};
use super::SqliteStore;
use crate::store::StoreError;
use crate::store::ledger::LACKS_BALANCE;
use crate::store::payment::sealed::damaged;
use crate::store::payment::{
    Backlog, Change, Claim, Claimed, Key, KeyRecord, Leased, Listing, OperationRecord,
    OperationStatus, PaymentRecord, PaymentStore, Row, Task, backlog,
};

const PAYMENT: &str = concat!("SELECT ", payment_columns!(), " FROM payment AS p WHERE p.id = ?1");

const CHARGE: &str = concat!(
    "SELECT ",
    operation_columns!(),
    " FROM operation AS o WHERE o.payment_id = ?1 AND o.kind = 1"
);

const OPERATION: &str =
    concat!("SELECT ", operation_columns!(), " FROM operation AS o WHERE o.id = ?1");

/// One branch an account's side, each by its index; a payment has two parties.
const LIST: &str = concat!(
    "SELECT * FROM (SELECT ",
    payment_columns!(),
    " FROM payment AS p WHERE p.payer = ?1 AND p.id < ?2 AND ((1 << p.status) & ?3) <> 0 \
     ORDER BY p.id DESC LIMIT ?4) UNION ALL SELECT * FROM (SELECT ",
    payment_columns!(),
    " FROM payment AS p WHERE p.payee = ?1 AND p.id < ?2 AND ((1 << p.status) & ?3) <> 0 \
     ORDER BY p.id DESC LIMIT ?4) ORDER BY id DESC LIMIT ?4"
);

const LEASED: &str = concat!(
    "SELECT x.id AS x_id, x.task AS x_task, x.attempts AS x_attempts, x.trace AS x_trace, \
     o.method AS o_method, ",
    operation_columns!(),
    ", ",
    payment_columns!(),
    " FROM outbox AS x JOIN operation AS o ON o.id = x.operation_id \
     JOIN payment AS p ON p.id = x.payment_id WHERE x.id = ?1"
);

#[async_trait]
impl PaymentStore for SqliteStore {
    async fn claim(&self, claim: Claim) -> Result<Claimed, StoreError> {
        let claimed = self
            .write("payment.claim", move |connection| Box::pin(claim::claim(connection, claim)))
            .await;
        match claimed {
            // It must roll the claim back, so it could not be an answer inside it.
            Err(StoreError::Conflict(LACKS_BALANCE)) => Ok(Claimed::InsufficientBalance),
            claimed => claimed,
        }
    }

    async fn key(&self, key: &Key) -> Result<Option<KeyRecord>, StoreError> {
        self.read("payment.key", async {
            let row = sqlx::query(claim::KEY)
                .bind(key.account.as_str())
                .bind(key.method.as_str())
                .bind(&key.key)
                .fetch_optional(&self.readers)
                .await?;
            row.as_ref().map(claim::key_record).transpose()
        })
        .await
    }

    async fn payment(&self, id: Uuid) -> Result<Option<PaymentRecord>, StoreError> {
        self.read("payment.get", async {
            let row = sqlx::query(PAYMENT).bind(blob(&id)).fetch_optional(&self.readers).await?;
            row.as_ref().map(rows::payment).transpose()
        })
        .await
    }

    async fn operation(&self, id: Uuid) -> Result<Option<OperationRecord>, StoreError> {
        self.read("payment.operation", async {
            let row = sqlx::query(OPERATION).bind(blob(&id)).fetch_optional(&self.readers).await?;
            row.as_ref().map(rows::operation).transpose()
        })
        .await
    }

    async fn charge(&self, payment: Uuid) -> Result<Option<OperationRecord>, StoreError> {
        self.read("payment.charge", async {
            let row =
                sqlx::query(CHARGE).bind(blob(&payment)).fetch_optional(&self.readers).await?;
            row.as_ref().map(rows::operation).transpose()
        })
        .await
    }

    async fn list(&self, listing: &Listing) -> Result<Vec<PaymentRecord>, StoreError> {
        self.read("payment.list", async {
            let wanted: i64 = match listing.statuses.as_slice() {
                [] => i64::MAX,
                statuses => statuses.iter().fold(0, |bits, status| bits | 1 << *status as u8),
            };
            let before = listing.before.unwrap_or(Uuid::max());
            let rows = sqlx::query(LIST)
                .bind(listing.account.as_str())
                .bind(blob(&before))
                .bind(wanted)
                .bind(i64::from(listing.limit))
                .fetch_all(&self.readers)
                .await?;
            rows.iter().map(rows::payment).collect()
        })
        .await
    }

    async fn lease(
        &self,
        owner: &str,
        now: i64,
        until: i64,
        limit: u32,
    ) -> Result<Vec<Leased>, StoreError> {
        let owner = owner.to_owned();
        self.write("payment.lease", move |connection| {
            Box::pin(lease(connection, owner, now, until, limit))
        })
        .await
    }

    async fn mark_submitting(&self, leased: &Leased, now: i64) -> Result<(), StoreError> {
        let leased = leased.clone();
        self.write("payment.submitting", move |connection| {
            Box::pin(async move { outcome::mark_submitting(connection, &leased, now).await })
        })
        .await
    }

    async fn record(&self, change: Change) -> Result<(), StoreError> {
        self.write("payment.record", move |connection| {
            Box::pin(outcome::record(connection, change))
        })
        .await
    }

    async fn reschedule(&self, leased: &Leased, then: Row) -> Result<(), StoreError> {
        let (row, owner) = (leased.row, leased.owner.clone());
        self.write("payment.reschedule", move |connection| {
            Box::pin(async move { outcome::move_row(connection, row, &owner, then).await })
        })
        .await
    }

    async fn hasten(&self, payment: Uuid, now: i64) -> Result<(), StoreError> {
        self.write("payment.hasten", move |connection| {
            Box::pin(async move {
                sqlx::query(
                    "UPDATE outbox SET hastened = lease_until > ?2, next_at = CASE \
                         WHEN lease_until > ?2 THEN next_at ELSE 0 END \
                         WHERE payment_id = ?1 AND task = ?3",
                )
                .bind(blob(&payment))
                .bind(now)
                .bind(Task::Drive as i64)
                .execute(connection)
                .await?;
                Ok(())
            })
        })
        .await
    }

    async fn next_due(&self) -> Result<Option<i64>, StoreError> {
        self.read("payment.next_due", async {
            let row = sqlx::query("SELECT min(next_at) AS due FROM outbox")
                .fetch_one(&self.readers)
                .await?;
            Ok(row.try_get("due")?)
        })
        .await
    }

    async fn recover(&self, now: i64, of: Option<&str>) -> Result<u64, StoreError> {
        let of = of.map(str::to_owned);
        self.write("payment.recover", move |connection| Box::pin(recover(connection, now, of)))
            .await
    }

    async fn backlog(&self, now: i64) -> Result<Backlog, StoreError> {
        self.read("payment.backlog", async {
            let late = now.saturating_sub(backlog::LATE);
            let row = sqlx::query(backlog::SELECT).bind(late).fetch_one(&self.readers).await?;
            let depth: i64 = row.try_get("depth")?;
            let oldest = row.try_get("oldest")?;
            let payment = match oldest {
                Some(_) => Some(rows::id(&row, "payment_id")?),
                None => None,
            };
            Ok(Backlog { depth: depth.unsigned_abs(), oldest, payment })
        })
        .await
    }

    async fn forget_payment_keys(&self, before: i64) -> Result<u64, StoreError> {
        self.write("payment.forget_payment_keys", move |connection| {
            Box::pin(async move {
                // A bounded bite: other writers wait behind it.
                let gone = sqlx::query(
                    "DELETE FROM idempotency WHERE (account, method, key) IN (SELECT account, \
                         method, key FROM idempotency AS i WHERE created_at < ?1 AND NOT EXISTS \
                         (SELECT 1 FROM outbox AS x WHERE x.payment_id = i.payment_id) LIMIT 500)",
                )
                .bind(before)
                .execute(connection)
                .await?;
                Ok(gone.rows_affected())
            })
        })
        .await
    }
}

async fn lease(
    connection: &mut SqliteConnection,
    owner: String,
    now: i64,
    until: i64,
    limit: u32,
) -> Result<Vec<Leased>, StoreError> {
    let rows = sqlx::query(
        "UPDATE outbox SET lease_owner = ?1, lease_until = ?3, next_at = ?3, hastened = 0 \
         WHERE id IN (SELECT id FROM outbox WHERE next_at <= ?2 AND lease_until <= ?2 \
         ORDER BY next_at LIMIT ?4) RETURNING id",
    )
    .bind(&owner)
    .bind(now)
    .bind(until)
    .bind(i64::from(limit))
    .fetch_all(&mut *connection)
    .await?;
    let mut leased = Vec::with_capacity(rows.len());
    for row in rows {
        let row = sqlx::query(LEASED)
            .bind(row.try_get::<i64, _>("id")?)
            .fetch_one(&mut *connection)
            .await?;
        let task = Task::from_number(row.try_get("x_task")?)
            .ok_or_else(|| damaged("an outbox row asks for something unknown"))?;
        let mut operation = rows::operation(&row)?;
        operation.method = rows::method(&row)?;
        leased.push(Leased {
            row: row.try_get("x_id")?,
            owner: owner.clone(),
            task,
            attempts: u32::try_from(row.try_get::<i64, _>("x_attempts")?).unwrap_or(u32::MAX),
            trace: row.try_get("x_trace")?,
            payment: rows::payment(&row)?,
            operation,
        });
    }
    Ok(leased)
}

/// The operations that are being sent by a process that is gone: the row that
/// drives an operation names who sends it.
const SENDING: &str = "SELECT o.id FROM operation AS o WHERE o.status = 2 AND (?2 IS NULL OR \
     EXISTS (SELECT 1 FROM outbox AS x WHERE x.operation_id = o.id AND x.lease_owner = ?2))";

async fn recover(
    connection: &mut SqliteConnection,
    now: i64,
    of: Option<String>,
) -> Result<u64, StoreError> {
    let payments = format!(
        "UPDATE payment SET unknown = 1, version = version + 1, updated_at = ?1 WHERE id IN \
         (SELECT payment_id FROM operation WHERE id IN ({SENDING}))"
    );
    sqlx::query(sqlx::AssertSqlSafe(payments))
        .bind(now)
        .bind(&of)
        .execute(&mut *connection)
        .await?;
    let operations =
        format!("UPDATE operation SET status = ?3, updated_at = ?1 WHERE id IN ({SENDING})");
    let unknown = sqlx::query(sqlx::AssertSqlSafe(operations))
        .bind(now)
        .bind(&of)
        .bind(OperationStatus::Unknown as i64)
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "UPDATE outbox SET lease_owner = '', lease_until = 0, next_at = ?1 \
         WHERE lease_until > 0 AND (?2 IS NULL OR lease_owner = ?2)",
    )
    .bind(now)
    .bind(&of)
    .execute(connection)
    .await?;
    Ok(unknown.rows_affected())
}
