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
//!
//! The fence is one statement ([`PREPARE`]), and BEGIN travels with it: a
//! transaction is not open before it has its fence. Everything that is written
//! under it is a later statement: one that sees what was committed until then.
//! Within the fence's own statement that holds for the locked rows alone. They
//! are looked at again in their newest version once they are locked, epoch and
//! commit number; whatever else it read would be as of its beginning.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnection, PgRow};

use super::super::PgStore;
use super::super::rows::{column, number, small, stored};
use super::super::transaction::JobFuture;
use crate::backoff;
use crate::store::StoreError;

/// How often a skipped part is tried again. A takeover holds a row for one
/// commit; with the delays between, these are about a second.
pub(super) const LOOKS: u32 = 24;

/// The first and the longest delay before a skipped part is tried again.
const AGAIN: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(80));

/// Locks the rows whose epoch is the claim's and raises their commit numbers;
/// gives both. Prepared once for each fencing session, by a name of ours: only so
/// can it be run in one message with BEGIN without being planned each time.
pub(in crate::store::postgres) const PREPARE: &str = "\
    PREPARE simpul_fence(int4[], int8[]) AS \
    WITH held AS MATERIALIZED (\
        SELECT id FROM \"partition\" WHERE id = ANY($1) AND epoch = $2[array_position($1, id)] \
        ORDER BY id FOR NO KEY UPDATE SKIP LOCKED\
    ) \
    UPDATE \"partition\" p SET commit_no = p.commit_no + 1 FROM held WHERE p.id = held.id \
    RETURNING p.id, p.commit_no";

/// What a write claims: a partition under an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) partition: u16,
    pub(super) epoch: u64,
}

/// Runs a job in a transaction that begins with the fence, in a session that
/// loses it when it stands still. The job gets the partitions that are held with
/// their raised commit numbers; what is missing there was skipped or is fenced.
pub(super) async fn write<T, F>(
    store: &PgStore,
    operation: &'static str,
    claims: Vec<Claim>,
    job: F,
) -> Result<T, StoreError>
where
    T: Send + 'static,
    F: for<'c> Fn(&'c mut PgConnection, Vec<(u16, u64)>) -> JobFuture<'c, T>
        + Send
        + Sync
        + 'static,
{
    let job = Arc::new(job);
    if store.is_distributed() {
        let claim = claims.first().copied();
        let fenced = store.write_fenced(operation, move |connection| {
            let job = job.clone();
            Box::pin(async move {
                let held = enter_one(&mut *connection, claim).await?;
                job(connection, held).await
            })
        });
        return fenced.await;
    }
    let beginning = beginning(&claims)?;
    let fenced = store.write_begun(operation, &beginning, move |connection, rows| {
        let held = rows.iter().map(held).collect::<Result<_, _>>();
        match held {
            Ok(held) => job(connection, held),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    });
    fenced.await
}

/// BEGIN and the fence, one message. Numbers only, so nothing is quoted.
fn beginning(claims: &[Claim]) -> Result<String, StoreError> {
    let (mut ids, mut epochs) = (String::new(), String::new());
    for (at, claim) in claims.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        // Writing to a string does not fail.
        let _ = write!(ids, "{comma}{}", claim.partition);
        let _ = write!(epochs, "{comma}{}", stored(claim.epoch)?);
    }
    Ok(format!("BEGIN; EXECUTE simpul_fence('{{{ids}}}', '{{{epochs}}}')"))
}

fn held(row: &PgRow) -> Result<(u16, u64), StoreError> {
    Ok((small(row, 0)?, number(row, 1)?))
}

/// As [`PREPARE`], on a distributed database: one partition, and a statement for
/// the lock and one for the number, each of which is sent to one shard.
async fn enter_one(
    connection: &mut PgConnection,
    claim: Option<Claim>,
) -> Result<Vec<(u16, u64)>, StoreError> {
    let Some(claim) = claim else { return Ok(Vec::new()) };
    let id = i32::from(claim.partition);
    let locked = sqlx::query(
        "SELECT id FROM \"partition\" WHERE id = $1 AND epoch = $2 \
         ORDER BY id FOR NO KEY UPDATE SKIP LOCKED",
    )
    .bind(id)
    .bind(stored(claim.epoch)?)
    .fetch_optional(&mut *connection)
    .await?;
    if locked.is_none() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(
        "UPDATE \"partition\" SET commit_no = commit_no + 1 WHERE id = $1 \
         RETURNING id, commit_no",
    )
    .bind(id)
    .fetch_all(connection)
    .await?;
    rows.iter().map(held).collect()
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
                let ids: Vec<_> = claims.iter().map(|one| i32::from(one.partition)).collect();
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
