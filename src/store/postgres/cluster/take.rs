//! Taking a partition: one compare-and-set, alone in its transaction.
//!
//! It waits for an append that has the row fenced. When that takes too long, the
//! append's node is frozen or cut off between its fence and its COMMIT: the
//! session that stands in the way is found by the server itself
//! (`pg_blocking_pids`) and, if it is one of the incarnation that is being
//! replaced, ended. Not one that waits for a synchronous standby: it has
//! committed, and what it committed must be seen. The server ends such a session
//! by itself too, after half a second, unless it is the server that cannot
//! notice.
//!
//! Heads and keys are never read here: under READ COMMITTED, the statement that
//! waited would give them as they were before it waited.

use std::time::Duration;

use futures_util::future::{Either, select};
use sqlx::postgres::PgConnection;
use tokio::sync::oneshot;

use super::super::rows::{partition as state, stored};
use super::super::{PgStore, fencing_name};
use crate::store::StoreError;
use crate::store::chat::PartitionState;

/// How long the lock is waited for before what holds it is looked at, and
/// between looks.
const PATIENCE: Duration = Duration::from_millis(600);

/// Another owner under the next epoch, if the row is still as it was seen:
/// partition, owner, epoch; the new owner.
pub(super) const SET_OWNER: &str = "\
    UPDATE \"partition\" SET owner = $4, epoch = epoch + 1 \
    WHERE id = $1 AND owner = $2 AND epoch = $3 RETURNING id, owner, epoch, commit_no";

/// Ends those fencing sessions of an incarnation that a backend waits for.
const END_BLOCKERS: &str = "\
    SELECT pg_terminate_backend(a.pid) \
    FROM unnest(pg_blocking_pids($1)) AS blocker(pid) \
    JOIN pg_stat_activity a ON a.pid = blocker.pid \
    WHERE a.datname = current_database() AND starts_with(a.application_name, $2) \
    AND a.wait_event IS DISTINCT FROM 'SyncRep'";

/// On a distributed database the lock is waited for on another server, where
/// sessions have other names: those that stand still inside a transaction are
/// ended here, and their work there ends with them.
const END_IDLE: &str = "\
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
    WHERE datname = current_database() AND starts_with(application_name, $1) \
    AND state LIKE 'idle in transaction%' AND pid <> pg_backend_pid()";

pub(super) async fn run(
    store: &PgStore,
    seen: &PartitionState,
    by: &str,
    from: &str,
) -> Result<Option<PartitionState>, StoreError> {
    let (told, backend) = oneshot::channel();
    let told = std::sync::Mutex::new(Some(told));
    let (partition, owner) = (i32::from(seen.partition), seen.owner.clone());
    let (epoch, by) = (stored(seen.epoch)?, by.to_owned());
    let told = std::sync::Arc::new(told);
    let taking = store.change("cluster.take", move |connection| {
        let (told, owner, by) = (told.clone(), owner.clone(), by.clone());
        Box::pin(async move {
            let pid: i32 =
                sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *connection).await?;
            let first = told.lock().map(|mut told| told.take()).unwrap_or_default();
            if let Some(told) = first {
                let _ = told.send(pid);
            }
            set_owner(connection, partition, owner, epoch, by).await
        })
    });
    let watching = Box::pin(watch(store, backend, from));
    match select(Box::pin(taking), watching).await {
        Either::Left((taken, _)) => taken,
        Either::Right(((), taking)) => taking.await,
    }
}

async fn set_owner(
    connection: &mut PgConnection,
    partition: i32,
    owner: String,
    epoch: i64,
    by: String,
) -> Result<Option<PartitionState>, StoreError> {
    let row = sqlx::query(SET_OWNER)
        .bind(partition)
        .bind(owner)
        .bind(epoch)
        .bind(by)
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(state).transpose()
}

/// Ends what stands in the way of a backend, again and again until it is
/// dropped. Ends when the backend is never known.
async fn watch(store: &PgStore, backend: oneshot::Receiver<i32>, from: &str) {
    let Ok(pid) = backend.await else { return };
    // Without a name, whoever holds a fence and stands in the way.
    let name = if from.is_empty() { "simpul/".to_owned() } else { fencing_name(from) };
    loop {
        tokio::time::sleep(PATIENCE).await;
        match end(store, pid, &name).await {
            Ok(0) => {}
            Ok(ended) => tracing::warn!(ended, "ended sessions that held a partition's fence"),
            Err(error) => tracing::warn!(%error, "what holds a partition's fence cannot be ended"),
        }
    }
}

/// On a connection of the other pool: every one of this may be waiting, too.
async fn end(store: &PgStore, pid: i32, name: &str) -> Result<usize, StoreError> {
    let (name, distributed) = (name.to_owned(), store.is_distributed());
    store
        .write_fenced("cluster.end_sessions", move |connection| {
            let name = name.clone();
            Box::pin(async move {
                let mut ended = sqlx::query(END_BLOCKERS)
                    .bind(pid)
                    .bind(&name)
                    .fetch_all(&mut *connection)
                    .await?;
                if distributed {
                    ended.extend(sqlx::query(END_IDLE).bind(&name).fetch_all(connection).await?);
                }
                Ok(ended.len())
            })
        })
        .await
}
