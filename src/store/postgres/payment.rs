//! The payment area on PostgreSQL.
//!
//! Every method that writes is one transaction, which may run more than once:
//! its job only borrows what it writes. Rows are locked in the order that the
//! schema gives (0004_payment.sql); a deadlock that comes all the same is run
//! again by the engine.

mod claim;
mod outcome;
mod queue;
mod rows;
mod trail;

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::Row as _;
use uuid::Uuid;

use self::rows::{blob, operation_columns, payment_columns};
use super::PgStore;
use crate::store::StoreError;
use crate::store::ledger::LACKS_BALANCE;
use crate::store::payment::{
    Backlog, Change, Claim, Claimed, Key, KeyRecord, Leased, Listing, OperationRecord,
    PaymentRecord, PaymentStore, Row, Task, backlog,
};

const PAYMENT: &str = concat!("SELECT ", payment_columns!(), " FROM payment AS p WHERE p.id = $1");

const CHARGE: &str = concat!(
    "SELECT ",
    operation_columns!(),
    " FROM operation AS o WHERE o.payment_id = $1 AND o.kind = 1"
);

const OPERATION: &str =
    concat!("SELECT ", operation_columns!(), " FROM operation AS o WHERE o.id = $1");

/// One branch an account's side, each by its index; a payment has two parties.
const LIST: &str = concat!(
    "SELECT * FROM (SELECT ",
    payment_columns!(),
    " FROM payment AS p WHERE p.payer = $1 AND p.id < $2 AND p.status = ANY($3) \
     ORDER BY p.id DESC LIMIT $4) AS paid UNION ALL SELECT * FROM (SELECT ",
    payment_columns!(),
    " FROM payment AS p WHERE p.payee = $1 AND p.id < $2 AND p.status = ANY($3) \
     ORDER BY p.id DESC LIMIT $4) AS got ORDER BY id DESC LIMIT $4"
);

/// A bounded bite of the keys; those of a payment with work left are kept.
const FORGET: &str = "DELETE FROM idempotency WHERE (account, method, key) IN (SELECT account, \
     method, key FROM idempotency AS i WHERE created_at < $1 AND NOT EXISTS \
     (SELECT 1 FROM outbox AS x WHERE x.payment_id = i.payment_id) LIMIT 500 \
     FOR UPDATE SKIP LOCKED)";

const HASTEN: &str = "UPDATE outbox SET hastened = lease_until > $2, \
     next_at = CASE WHEN lease_until > $2 THEN next_at ELSE 0 END \
     WHERE payment_id = $1 AND task = $3";

#[async_trait]
impl PaymentStore for PgStore {
    async fn claim(&self, claim: Claim) -> Result<Claimed, StoreError> {
        let claim = Arc::new(claim);
        let claimed = self
            .write("payment.claim", move |connection| {
                let claim = claim.clone();
                Box::pin(async move { claim::claim(connection, &claim).await })
            })
            .await;
        match claimed {
            // They must roll the claim back, so they could not be answers inside it.
            Err(StoreError::Conflict(LACKS_BALANCE)) => Ok(Claimed::InsufficientBalance),
            Err(StoreError::Conflict(claim::MOVED)) => Ok(Claimed::Moved),
            claimed => claimed,
        }
    }

    async fn key(&self, key: &Key) -> Result<Option<KeyRecord>, StoreError> {
        let key = Arc::new(key.clone());
        self.read("payment.key", move |connection| {
            let key = key.clone();
            Box::pin(async move {
                let row = sqlx::query(claim::KEY)
                    .bind(key.account.as_str())
                    .bind(key.method.as_str())
                    .bind(&key.key)
                    .fetch_optional(connection)
                    .await?;
                row.as_ref().map(claim::key_record).transpose()
            })
        })
        .await
    }

    async fn payment(&self, id: Uuid) -> Result<Option<PaymentRecord>, StoreError> {
        self.read("payment.get", move |connection| {
            Box::pin(async move {
                let found = sqlx::query(PAYMENT).bind(blob(&id)).fetch_optional(connection).await?;
                found.as_ref().map(rows::payment).transpose()
            })
        })
        .await
    }

    async fn operation(&self, id: Uuid) -> Result<Option<OperationRecord>, StoreError> {
        self.one_operation("payment.operation", OPERATION, id).await
    }

    async fn charge(&self, payment: Uuid) -> Result<Option<OperationRecord>, StoreError> {
        self.one_operation("payment.charge", CHARGE, payment).await
    }

    async fn list(&self, listing: &Listing) -> Result<Vec<PaymentRecord>, StoreError> {
        let listing = Arc::new(listing.clone());
        self.read("payment.list", move |connection| {
            let listing = listing.clone();
            Box::pin(async move {
                let wanted: &[_] = match listing.statuses.as_slice() {
                    [] => crate::store::payment::Status::ALL,
                    statuses => statuses,
                };
                let wanted: Vec<i16> = wanted.iter().map(|status| *status as i16).collect();
                let before = listing.before.unwrap_or(Uuid::max());
                let rows = sqlx::query(LIST)
                    .bind(listing.account.as_str())
                    .bind(blob(&before))
                    .bind(wanted)
                    .bind(i64::from(listing.limit))
                    .fetch_all(connection)
                    .await?;
                rows.iter().map(rows::payment).collect()
            })
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
        let owner: Arc<str> = owner.into();
        self.write("payment.lease", move |connection| {
            let owner = owner.clone();
            Box::pin(async move { queue::lease(connection, &owner, now, until, limit).await })
        })
        .await
    }

    async fn mark_submitting(&self, leased: &Leased, now: i64) -> Result<(), StoreError> {
        let leased = Arc::new(leased.clone());
        self.write("payment.submitting", move |connection| {
            let leased = leased.clone();
            Box::pin(async move { outcome::mark_submitting(connection, &leased, now).await })
        })
        .await
    }

    async fn record(&self, change: Change) -> Result<(), StoreError> {
        let change = Arc::new(change);
        self.write("payment.record", move |connection| {
            let change = change.clone();
            Box::pin(async move { outcome::record(connection, &change).await })
        })
        .await
    }

    async fn reschedule(&self, leased: &Leased, then: Row) -> Result<(), StoreError> {
        let (row, owner): (_, Arc<str>) = (leased.row, leased.owner.as_str().into());
        self.write("payment.reschedule", move |connection| {
            let owner = owner.clone();
            Box::pin(async move { outcome::move_row(connection, row, &owner, then).await })
        })
        .await
    }

    async fn hasten(&self, payment: Uuid, now: i64) -> Result<(), StoreError> {
        self.write("payment.hasten", move |connection| {
            Box::pin(async move {
                sqlx::query(HASTEN)
                    .bind(blob(&payment))
                    .bind(now)
                    .bind(Task::Drive as i16)
                    .execute(connection)
                    .await?;
                Ok(())
            })
        })
        .await
    }

    async fn next_due(&self) -> Result<Option<i64>, StoreError> {
        self.read("payment.next_due", |connection| {
            Box::pin(async move {
                let due = sqlx::query_scalar("SELECT min(next_at) FROM outbox");
                Ok(due.fetch_one(connection).await?)
            })
        })
        .await
    }

    async fn recover(&self, now: i64, of: Option<&str>) -> Result<u64, StoreError> {
        let of: Option<Arc<str>> = of.map(Into::into);
        self.write("payment.recover", move |connection| {
            let of = of.clone();
            Box::pin(async move { queue::recover(connection, now, of.as_deref()).await })
        })
        .await
    }

    async fn backlog(&self, now: i64) -> Result<Backlog, StoreError> {
        let late = now.saturating_sub(backlog::LATE);
        self.read("payment.backlog", move |connection| {
            Box::pin(async move {
                let row = sqlx::query(backlog::SELECT).bind(late).fetch_one(connection).await?;
                let depth: i64 = row.try_get("depth")?;
                let oldest = row.try_get("oldest")?;
                let payment = match oldest {
                    Some(_) => Some(rows::id(&row, "payment_id")?),
                    None => None,
                };
                Ok(Backlog { depth: depth.unsigned_abs(), oldest, payment })
            })
        })
        .await
    }

    async fn forget_payment_keys(&self, before: i64) -> Result<u64, StoreError> {
        self.write("payment.forget_payment_keys", move |connection| {
            Box::pin(async move {
                let gone = sqlx::query(FORGET).bind(before).execute(connection).await?;
                Ok(gone.rows_affected())
            })
        })
        .await
    }
}

impl PgStore {
    async fn one_operation(
        &self,
        name: &'static str,
        sql: &'static str,
        id: Uuid,
    ) -> Result<Option<OperationRecord>, StoreError> {
        self.read(name, move |connection| {
            Box::pin(async move {
                let found = sqlx::query(sql).bind(blob(&id)).fetch_optional(connection).await?;
                found.as_ref().map(rows::operation).transpose()
            })
        })
        .await
    }
}
