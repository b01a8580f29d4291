//! One group: its jobs in one transaction, one commit, then the answers.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use futures_util::FutureExt;
use sqlx::sqlite::SqliteConnection;
use tracing::{Instrument, Span, field};

use super::super::metrics::StoreMetrics;
use super::{Job, Output};
use crate::store::StoreError;

/// Runs the jobs, commits, and answers each. An error means that the disk or
/// the commit failed: every job of the group was told so, and the connection
/// must not be used any more.
pub(super) async fn commit(
    connection: &mut SqliteConnection,
    jobs: &mut Vec<Job>,
    metrics: &StoreMetrics,
) -> Result<(), StoreError> {
    let span = span_of(jobs);
    let (started, size) = (Instant::now(), jobs.len());
    let mut answers = Vec::with_capacity(size);
    let outcome = transaction(connection, jobs, &mut answers).instrument(span.clone()).await;
    metrics.committed(size, started.elapsed(), outcome.is_ok());
    if let Err(error) = &outcome {
        span.record("otel.status_code", "ERROR");
        span.record("error.type", error.kind());
    }
    for (answer, result) in answers {
        let result = match (&outcome, result) {
            (Err(error), Ok(_)) => Err(error.clone()),
            (_, result) => result,
        };
        // The caller may have gone: the write stands all the same.
        let _ = answer.send(result);
    }
    outcome
}

/// A trace of its own, linked to those who write; none where none of them is
/// traced.
fn span_of(jobs: &[Job]) -> Span {
    if jobs.iter().all(|job| job.span.is_none()) {
        return Span::none();
    }
    let span = tracing::info_span!(
        parent: None,
        "store.commit",
        otel.name = "COMMIT",
        otel.kind = "client",
        otel.status_code = field::Empty,
        "error.type" = field::Empty,
        db.system.name = "sqlite",
        db.operation.name = "COMMIT",
        db.operation.batch.size = jobs.len(),
    );
    for job in jobs {
        span.follows_from(&job.span);
    }
    span
}

type Answer =
    (tokio::sync::oneshot::Sender<Result<Output, StoreError>>, Result<Output, StoreError>);

async fn transaction(
    connection: &mut SqliteConnection,
    jobs: &mut Vec<Job>,
    answers: &mut Vec<Answer>,
) -> Result<(), StoreError> {
    let alone = jobs.len() == 1;
    let mut broken = execute(connection, "BEGIN IMMEDIATE").await.err();
    let mut kept = false;
    for job in jobs.drain(..) {
        let result = match &broken {
            Some(error) => Err(error.clone()),
            None => {
                let (answer, ran) = (job.answer, run(connection, job.run, !alone));
                let result = ran.instrument(job.span).await;
                let result = match result {
                    Ok(result) => result,
                    Err(error) => {
                        broken = Some(error.clone());
                        Err(error)
                    }
                };
                kept |= result.is_ok();
                answers.push((answer, result));
                continue;
            }
        };
        answers.push((job.answer, result));
    }
    let ended = match broken {
        Some(error) => Err(error),
        // Nothing to keep: no fsync for it.
        None if !kept => execute(connection, "ROLLBACK").await,
        None => execute(connection, "COMMIT").await,
    };
    if ended.is_err() {
        let _ = execute(connection, "ROLLBACK").await;
    }
    ended
}

/// The inner result is the job's own; the outer error breaks the transaction.
/// A job that is alone needs no savepoint: the whole transaction is its own.
async fn run(
    connection: &mut SqliteConnection,
    run: super::Run,
    savepoint: bool,
) -> Result<Result<Output, StoreError>, StoreError> {
    if savepoint {
        execute(connection, "SAVEPOINT job").await?;
    }
    let job = AssertUnwindSafe(async { run(connection).await }).catch_unwind();
    let result = job.await.unwrap_or_else(|_| {
        tracing::error!("a write panicked; it was rolled back");
        Err(StoreError::Fault("a write panicked".to_owned()))
    });
    match &result {
        // SQLite may have rolled back everything by itself.
        Err(StoreError::Unavailable(_)) => return result.map(Ok),
        _ if !savepoint => {}
        Ok(_) => execute(connection, "RELEASE job").await?,
        Err(_) => {
            execute(connection, "ROLLBACK TO job").await?;
            execute(connection, "RELEASE job").await?;
        }
    }
    Ok(result)
}

async fn execute(connection: &mut SqliteConnection, sql: &'static str) -> Result<(), StoreError> {
    sqlx::query(sql).execute(connection).await?;
    Ok(())
}
