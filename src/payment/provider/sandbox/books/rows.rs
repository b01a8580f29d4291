//! The rows of the books, on SQLite and on PostgreSQL: the same statements, over
//! tables whose names differ.

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::{Books, Charge, ChargeStatus};
use crate::payment::provider::ProviderRequest;
use crate::store::StoreError;
use crate::store::payment::OperationKind;

/// The books within one transaction.
#[async_trait]
pub(in crate::payment::provider::sandbox) trait Rows:
    Send
{
    /// Everything, as it will be found by whoever asks next.
    async fn read(&mut self, now: i64) -> Result<Books, StoreError>;

    /// A charge as time has made it.
    async fn charge(&mut self, key: &str, now: i64) -> Result<Option<Charge>, StoreError>;

    /// Counts a request to charge that arrived again; false when it is the first.
    async fn receive_again(&mut self, key: &str) -> Result<bool, StoreError>;

    /// Books a charge.
    async fn insert_charge(&mut self, charge: &Charge, now: i64) -> Result<(), StoreError>;

    /// Books what became of a charge.
    async fn update_charge(&mut self, charge: &Charge) -> Result<(), StoreError>;

    /// Counts a request to do something to a charge that arrived again; false
    /// when it is the first.
    async fn act_again(&mut self, key: &str) -> Result<bool, StoreError>;

    /// The code of an action: empty when it was done; `None` when there is none.
    async fn action(&mut self, key: &str) -> Result<Option<String>, StoreError>;

    /// Books an action.
    async fn insert_action(
        &mut self,
        request: &ProviderRequest,
        code: &str,
        now: i64,
    ) -> Result<(), StoreError>;
}

/// The columns of a charge, without how often it was received.
macro_rules! columns {
    () => {
        "key, currency, minor_units, manual, status, code, captured, refunded, settles_at, lossy"
    };
}

/// `$1` is the first parameter on both engines.
macro_rules! rows {
    ($connection:ty, $row:ty, $read:ident, $charge:literal, $action:literal) => {
        #[async_trait]
        impl Rows for $connection {
            async fn read(&mut self, now: i64) -> Result<Books, StoreError> {
                let mut books = Books::default();
                let all =
                    concat!("SELECT ", columns!(), ", received FROM ", $charge, " ORDER BY key");
                for row in sqlx::query(all).fetch_all(&mut *self).await? {
                    books.add($read(&row)?, row.try_get("received")?, now);
                }
                let done = concat!(
                    "SELECT kind, CAST(sum(received) AS BIGINT) AS received, \
                     count(CASE WHEN code = '' THEN 1 END) AS done FROM ",
                    $action,
                    " GROUP BY kind"
                );
                for row in sqlx::query(done).fetch_all(&mut *self).await? {
                    books.received += row.try_get::<i64, _>("received")?.unsigned_abs();
                    let done = row.try_get::<i64, _>("done")?.unsigned_abs();
                    match OperationKind::from_number(row.try_get("kind")?) {
                        Some(OperationKind::Capture) => books.captures = done,
                        Some(OperationKind::Refund) => books.refunds = done,
                        _ => {}
                    }
                }
                Ok(books)
            }

            async fn charge(&mut self, key: &str, now: i64) -> Result<Option<Charge>, StoreError> {
                let one = concat!("SELECT ", columns!(), " FROM ", $charge, " WHERE key = $1");
                let row = sqlx::query(one).bind(key).fetch_optional(&mut *self).await?;
                let Some(row) = row else { return Ok(None) };
                let mut charge = $read(&row)?;
                let before = charge.status;
                charge.settle(now);
                if charge.status != before {
                    self.update_charge(&charge).await?;
                }
                Ok(Some(charge))
            }

            async fn receive_again(&mut self, key: &str) -> Result<bool, StoreError> {
                let again =
                    concat!("UPDATE ", $charge, " SET received = received + 1 WHERE key = $1");
                let counted = sqlx::query(again).bind(key).execute(self).await?;
                Ok(counted.rows_affected() > 0)
            }

            async fn insert_charge(&mut self, charge: &Charge, now: i64) -> Result<(), StoreError> {
                sqlx::query(concat!(
                    "INSERT INTO ",
                    $charge,
                    " (",
                    columns!(),
                    ", created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
                ))
                .bind(&charge.key)
                .bind(&charge.currency)
                .bind(charge.minor_units)
                .bind(charge.manual)
                .bind(charge.status as i64)
                .bind(&charge.code)
                .bind(charge.captured)
                .bind(charge.refunded)
                .bind(charge.settles_at)
                .bind(charge.lossy)
                .bind(now)
                .execute(self)
                .await?;
                Ok(())
            }

            async fn update_charge(&mut self, charge: &Charge) -> Result<(), StoreError> {
                sqlx::query(concat!(
                    "UPDATE ",
                    $charge,
                    " SET status = $2, code = $3, captured = $4, refunded = $5, settles_at = $6 \
                     WHERE key = $1"
                ))
                .bind(&charge.key)
                .bind(charge.status as i64)
                .bind(&charge.code)
                .bind(charge.captured)
                .bind(charge.refunded)
                .bind(charge.settles_at)
                .execute(self)
                .await?;
                Ok(())
            }

            async fn act_again(&mut self, key: &str) -> Result<bool, StoreError> {
                let again =
                    concat!("UPDATE ", $action, " SET received = received + 1 WHERE key = $1");
                let counted = sqlx::query(again).bind(key).execute(self).await?;
                Ok(counted.rows_affected() > 0)
            }

            async fn action(&mut self, key: &str) -> Result<Option<String>, StoreError> {
                let code = concat!("SELECT code FROM ", $action, " WHERE key = $1");
                Ok(sqlx::query_scalar(code).bind(key).fetch_optional(self).await?)
            }

            async fn insert_action(
                &mut self,
                request: &ProviderRequest,
                code: &str,
                now: i64,
            ) -> Result<(), StoreError> {
                sqlx::query(concat!(
                    "INSERT INTO ",
                    $action,
                    " (key, charge_key, kind, minor_units, code, created_at) \
                     VALUES ($1, $2, $3, $4, $5, $6)"
                ))
                .bind(&request.provider_key)
                .bind(&request.charge_key)
                .bind(request.kind as i64)
                .bind(request.amount.minor_units)
                .bind(code)
                .bind(now)
                .execute(self)
                .await?;
                Ok(())
            }
        }

        fn $read(row: &$row) -> Result<Charge, StoreError> {
            Ok(Charge {
                key: row.try_get("key")?,
                currency: row.try_get("currency")?,
                minor_units: row.try_get("minor_units")?,
                manual: row.try_get("manual")?,
                status: ChargeStatus::from_number(row.try_get("status")?)?,
                code: row.try_get("code")?,
                captured: row.try_get("captured")?,
                refunded: row.try_get("refunded")?,
                settles_at: row.try_get("settles_at")?,
                lossy: row.try_get("lossy")?,
            })
        }
    };
}

rows!(SqliteConnection, SqliteRow, of_sqlite, "charge", "action");
rows!(PgConnection, PgRow, of_postgres, "sandbox_charge", "sandbox_action");
