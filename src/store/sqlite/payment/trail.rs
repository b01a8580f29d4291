//! Everything that is stored of one payment.

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::rows::{self, blob, operation_columns};
use crate::store::StoreError;
use crate::store::payment::sealed::damaged;
use crate::store::payment::{Task, Trail, TrailStore, WaitingRow};
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::ledger;

const OPERATIONS: &str = concat!(
    "SELECT o.updated_at AS o_updated, ",
    operation_columns!(),
    " FROM operation AS o WHERE o.payment_id = ?1 ORDER BY o.created_at, o.id"
);

const WAITING: &str = "SELECT task, operation_id, next_at, attempts, lease_owner, lease_until, \
     hastened, trace, created_at FROM outbox WHERE payment_id = ?1 ORDER BY id";

#[async_trait]
impl TrailStore for SqliteStore {
    async fn trail(&self, payment: Uuid) -> Result<Trail, StoreError> {
        self.read("payment.trail", async {
            let id = blob(&payment);
            let operations = sqlx::query(OPERATIONS).bind(id).fetch_all(&self.readers).await?;
            let waiting = sqlx::query(WAITING).bind(id).fetch_all(&self.readers).await?;
            let held = sqlx::query_scalar("SELECT minor_units FROM hold WHERE payment_id = ?1")
                .bind(id)
                .fetch_optional(&self.readers)
                .await?;
            let operation = |row| Ok((rows::operation(row)?, row.try_get("o_updated")?));
            Ok(Trail {
                operations: operations.iter().map(operation).collect::<Result<_, StoreError>>()?,
                waiting: waiting.iter().map(row).collect::<Result<_, _>>()?,
                held,
                entries: ledger::of_payment(&self.readers, payment).await?,
            })
        })
        .await
    }
}

fn row(row: &SqliteRow) -> Result<WaitingRow, StoreError> {
    Ok(WaitingRow {
        task: Task::from_number(row.try_get("task")?)
            .ok_or_else(|| damaged("an outbox row asks for something unknown"))?,
        operation_id: rows::id(row, "operation_id")?,
        next_at: row.try_get("next_at")?,
        attempts: u32::try_from(row.try_get::<i64, _>("attempts")?).unwrap_or(u32::MAX),
        lease_owner: row.try_get("lease_owner")?,
        lease_until: row.try_get("lease_until")?,
        hastened: row.try_get::<i64, _>("hastened")? != 0,
        trace: row.try_get("trace")?,
        created_at: row.try_get("created_at")?,
    })
}
