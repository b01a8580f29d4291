//! The outbox: leasing what is due, and taking up what a dead process left.

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::rows::{self, operation_columns, payment_columns};
use crate::store::StoreError;
use crate::store::payment::sealed::damaged;
use crate::store::payment::{Leased, OperationStatus, Task};

const LEASED: &str = concat!(
    "SELECT x.id AS x_id, x.task AS x_task, x.attempts AS x_attempts, x.trace AS x_trace, \
     o.method AS o_method, ",
    operation_columns!(),
    ", ",
    payment_columns!(),
    " FROM outbox AS x JOIN operation AS o ON o.id = x.operation_id \
     JOIN payment AS p ON p.id = x.payment_id WHERE x.id = ANY($1) ORDER BY x.id"
);

/// Rows that another node is leasing or working on at this moment are passed
/// over: nobody waits for anybody here.
pub(super) async fn lease(
    connection: &mut PgConnection,
    owner: &str,
    now: i64,
    until: i64,
    limit: u32,
) -> Result<Vec<Leased>, StoreError> {
    let ids: Vec<i64> = sqlx::query_scalar(
        "WITH due AS MATERIALIZED (SELECT id FROM outbox WHERE next_at <= $2 AND lease_until <= $2 \
         ORDER BY next_at LIMIT $4 FOR UPDATE SKIP LOCKED) \
         UPDATE outbox AS x SET lease_owner = $1, lease_until = $3, next_at = $3, \
         hastened = FALSE FROM due WHERE x.id = due.id RETURNING x.id",
    )
    .bind(owner)
    .bind(now)
    .bind(until)
    .bind(i64::from(limit))
    .fetch_all(&mut *connection)
    .await?;
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    // A later statement: it sees what was committed before the rows were ours.
    let found = sqlx::query(LEASED).bind(ids).fetch_all(connection).await?;
    found
        .iter()
        .map(|row| {
            let task = Task::from_number(i64::from(row.try_get::<i16, _>("x_task")?))
                .ok_or_else(|| damaged("an outbox row asks for something unknown"))?;
            let mut operation = rows::operation(row)?;
            operation.method = rows::method(row)?;
            Ok(Leased {
                row: row.try_get("x_id")?,
                owner: owner.to_owned(),
                task,
                attempts: u32::try_from(row.try_get::<i64, _>("x_attempts")?).unwrap_or(u32::MAX),
                trace: row.try_get("x_trace")?,
                payment: rows::payment(row)?,
                operation,
            })
        })
        .collect()
}

/// Rows first, then payments, then operations, each in order: as everybody
/// locks them. What the dead process still commits it commits before the rows
/// are locked here, and nothing after.
pub(super) async fn recover(
    connection: &mut PgConnection,
    now: i64,
    of: Option<&str>,
) -> Result<u64, StoreError> {
    let rows = sqlx::query(
        "SELECT id, operation_id FROM outbox \
         WHERE CASE WHEN $1::TEXT IS NULL THEN lease_until > 0 ELSE lease_owner = $1 END \
         ORDER BY id FOR UPDATE",
    )
    .bind(of)
    .fetch_all(&mut *connection)
    .await?;
    let mut ids: Vec<i64> = Vec::with_capacity(rows.len());
    let mut operations: Vec<Vec<u8>> = Vec::with_capacity(rows.len());
    for row in rows {
        ids.push(row.try_get("id")?);
        operations.push(row.try_get("operation_id")?);
    }
    // A node that has the store to itself also takes up what has no row.
    let sending: Vec<Vec<u8>> = sqlx::query_scalar(
        "SELECT id FROM operation WHERE status = $1 AND ($2::TEXT IS NULL OR id = ANY($3))",
    )
    .bind(OperationStatus::Submitting as i16)
    .bind(of)
    .bind(operations)
    .fetch_all(&mut *connection)
    .await?;
    sqlx::query(
        "UPDATE payment SET unknown = TRUE, version = version + 1, updated_at = $2 WHERE id IN \
         (SELECT p.id FROM payment AS p WHERE p.id IN \
          (SELECT payment_id FROM operation WHERE id = ANY($1)) ORDER BY p.id FOR NO KEY UPDATE)",
    )
    .bind(&sending)
    .bind(now)
    .execute(&mut *connection)
    .await?;
    let unknown = sqlx::query(
        "UPDATE operation SET status = $3, updated_at = $2 WHERE id = ANY($1) AND status = $4",
    )
    .bind(&sending)
    .bind(now)
    .bind(OperationStatus::Unknown as i16)
    .bind(OperationStatus::Submitting as i16)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "UPDATE outbox SET lease_owner = '', lease_until = 0, next_at = $2 WHERE id = ANY($1)",
    )
    .bind(ids)
    .bind(now)
    .execute(connection)
    .await?;
    Ok(unknown.rows_affected())
}
