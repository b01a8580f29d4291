//! The fence: what stands at the beginning of every chat write.
//!
//! The rows of the partitions are locked in order of their ids, so that two
//! groups never wait for each other, and without waiting: a row that another
//! transaction has is *skipped*. Skipped is not fenced. It is looked at again
//! once the transaction is over: when the row still has the writer's epoch, the
//! part is tried again, else its owner is another one now.
//!
//! FOR NO KEY UPDATE: a stronger lock than FOR SHARE, which would let a takeover
//! starve, and a weaker one than FOR UPDATE needs to be.

use std::time::Duration;

use sqlx::postgres::PgConnection;

use super::super::PgStore;
use super::super::rows::{column, number, small, stored};
use crate::backoff;
use crate::store::StoreError;

/// How often a skipped part is tried again. A takeover holds a row for one
/// commit; with the delays between, these are about a second.
pub(super) const LOOKS: u32 = 24;

/// The first and the longest delay before a skipped part is tried again.
const AGAIN: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(80));

/// What a write claims: a partition under an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) partition: u16,
    pub(super) epoch: u64,
}

/// Locks the rows whose epoch is the claim's and raises their commit numbers.
/// What is missing in the answer was skipped or is fenced. With
/// `one`, the database is distributed and there is exactly one claim.
pub(super) async fn enter(
    connection: &mut PgConnection,
    claims: &[Claim],
    one: bool,
) -> Result<Vec<(u16, u64)>, StoreError> {
    let (ids, epochs) = arrays(claims)?;
    let held: Vec<i32> = match (one, ids.first(), epochs.first()) {
        (true, Some(id), Some(epoch)) => {
            sqlx::query_scalar(
                "SELECT id FROM \"partition\" WHERE id = $1 AND epoch = $2 \
                 ORDER BY id FOR NO KEY UPDATE SKIP LOCKED",
            )
            .bind(id)
            .bind(epoch)
            .fetch_all(&mut *connection)
            .await?
        }
        _ => {
            sqlx::query_scalar(
                "SELECT id FROM \"partition\" WHERE id = ANY($1) \
                 AND epoch = ($2::int8[])[array_position($1, id)] \
                 ORDER BY id FOR NO KEY UPDATE SKIP LOCKED",
            )
            .bind(&ids)
            .bind(&epochs)
            .fetch_all(&mut *connection)
            .await?
        }
    };
    if held.is_empty() {
        return Ok(Vec::new());
    }
    let rows = match (one, held.first()) {
        (true, Some(id)) => {
            sqlx::query(
                "UPDATE \"partition\" SET commit_no = commit_no + 1 WHERE id = $1 \
                 RETURNING id, commit_no",
            )
            .bind(id)
            .fetch_all(connection)
            .await?
        }
        _ => {
            sqlx::query(
                "UPDATE \"partition\" SET commit_no = commit_no + 1 WHERE id = ANY($1) \
                 RETURNING id, commit_no",
            )
            .bind(&held)
            .fetch_all(connection)
            .await?
        }
    };
    rows.iter().map(|row| Ok((small(row, 0)?, number(row, 1)?))).collect()
}

/// Those claims whose row still has their epoch.
pub(super) async fn standing(
    store: &PgStore,
    claims: Vec<Claim>,
) -> Result<Vec<Claim>, StoreError> {
    store
        .read("chat.fence", move |connection| {
            let claims = claims.clone();
            Box::pin(async move {
                let (ids, _) = arrays(&claims)?;
                let rows = sqlx::query("SELECT id, epoch FROM \"partition\" WHERE id = ANY($1)")
                    .bind(ids)
                    .fetch_all(connection)
                    .await?;
                let mut standing = Vec::new();
                for row in &rows {
                    let id: u16 = small(row, 0)?;
                    let epoch = column::<i64>(row, 1)?;
                    let held = |claim: &&Claim| {
                        claim.partition == id && i64::try_from(claim.epoch) == Ok(epoch)
                    };
                    standing.extend(claims.iter().find(held));
                }
                Ok(standing)
            })
        })
        .await
}

/// Waits a little before a skipped part is tried again.
pub(super) async fn wait(look: u32) {
    let delay = backoff::full_jitter(AGAIN.0, AGAIN.1, look, rand::random());
    tokio::time::sleep(delay).await;
}

fn arrays(claims: &[Claim]) -> Result<(Vec<i32>, Vec<i64>), StoreError> {
    let ids = claims.iter().map(|claim| i32::from(claim.partition)).collect();
    let epochs = claims.iter().map(|claim| stored(claim.epoch)).collect::<Result<_, _>>()?;
    Ok((ids, epochs))
}
