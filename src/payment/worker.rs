//! The worker: leases rows of the outbox and brings each a step further.
//!
//! A lease keeps two workers apart; should it run out under one that is slow,
//! nothing is done twice all the same, because the provider is idempotent by
//! key and outcomes are recorded by compare-and-set. Rows are leased only when
//! there is room to work on them. A worker that stops leaves its rows: whoever
//! leases them next finds out how far they came.

mod drive;
mod receipt;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Core;
use crate::drain::Phase;
use crate::store::StoreError;
use crate::store::payment::{Leased, OperationStatus, Task};
use crate::task;
use crate::telemetry::context;

/// How long it sleeps when nothing is due; work that comes in wakes it.
const IDLE: Duration = Duration::from_secs(5);

/// How long it sleeps after a failure of the store.
const AFTER_FAILURE: Duration = Duration::from_millis(500);

/// The most rows that are leased at once.
const BATCH: usize = 32;

/// How often keys are cleaned.
const CHORES: Duration = Duration::from_secs(5);

/// How often the backlog is counted: every row of the outbox is looked at.
const COUNT: Duration = Duration::from_secs(30);

/// Starts the worker's tasks.
pub(super) fn start(core: Arc<Core>) {
    task::spawn("payment worker", lead(core.clone()));
    task::spawn("payment chores", chores(core));
}

async fn lead(core: Arc<Core>) {
    let guard = core.parts.drain.guard();
    let mut drain = core.parts.drain.clone();
    let places = Arc::new(Semaphore::new(core.parts.config.workers.max(1)));
    while drain.phase() == Phase::Running {
        let nap = match round(&core, &places).await {
            Ok(nap) => nap,
            Err(error) => {
                tracing::warn!(%error, "the outbox cannot be read");
                AFTER_FAILURE
            }
        };
        tokio::select! {
            () = tokio::time::sleep(nap) => {}
            () = core.work.notified() => {}
            () = drain.graceful() => {}
        }
    }
    drop(guard);
}

/// Leases what is due and there is room for; returns how long to sleep.
async fn round(core: &Arc<Core>, places: &Arc<Semaphore>) -> Result<Duration, StoreError> {
    let now = core.now();
    let wait = match core.store().next_due().await? {
        None => return Ok(IDLE),
        Some(due) => Duration::from_micros(due.saturating_sub(now).max(0).unsigned_abs()),
    };
    if !wait.is_zero() {
        return Ok(wait.min(IDLE));
    }
    // Closed never: the semaphore lives in `lead`.
    let Ok(first) = places.clone().acquire_owned().await else { return Ok(IDLE) };
    let mut held = vec![first];
    while held.len() < BATCH {
        let Ok(place) = places.clone().try_acquire_owned() else { break };
        held.push(place);
    }
    // The wait for a place may have been long.
    if core.parts.drain.phase() != Phase::Running {
        return Ok(IDLE);
    }
    let now = core.now();
    let until = now.saturating_add(micros(lease_time(core)));
    let limit = u32::try_from(held.len()).unwrap_or(1);
    let leased = core.store().lease(&core.incarnation(), now, until, limit).await?;
    let nap = if leased.is_empty() { Duration::from_millis(20) } else { Duration::ZERO };
    for (leased, place) in leased.into_iter().zip(held) {
        // Taken before the task begins: the stop waits from now on.
        let (core, guard) = (core.clone(), core.parts.drain.guard());
        task::spawn("payment", async move {
            work(&core, leased).await;
            drop((place, guard));
            // The place is free: there may be more to lease.
            core.work.notify_one();
        });
    }
    Ok(nap)
}

/// A lease outlives what is done under it: a call to the provider and its
/// recording.
fn lease_time(core: &Core) -> Duration {
    core.parts.config.lease.max(core.parts.config.provider_timeout * 2)
}

/// Whether somebody has worked on the row before, on this node or another.
fn is_again(leased: &Leased) -> bool {
    let asked = !matches!(leased.operation.status, OperationStatus::New);
    leased.attempts > 0 || (asked && matches!(leased.task, Task::Drive))
}

/// Works on one row, until it is done or the node is forced to stop.
async fn work(core: &Arc<Core>, leased: Leased) {
    let mut drain = core.parts.drain.clone();
    let span = tracing::info_span!(
        parent: None,
        "payment.process",
        payment.id = %leased.payment.id,
        payment.operation = leased.operation.kind.as_str(),
        payment.task = leased.task.as_str(),
        payment.attempt = leased.attempts,
    );
    // Below whoever asked for it, in the trace of the first try also when the
    // process that made that is gone.
    let trace = leased.trace.clone();
    if is_again(&leased) {
        // What asked first may have died before its span was told of.
        context::link(&span, &trace);
    }
    let done = async {
        match leased.task {
            Task::Drive => drive::drive(core, leased).await,
            Task::Receipt => receipt::post(core, leased).await,
        }
    };
    tokio::select! {
        result = context::follow(Some(&trace), span, done) => {
            match result {
                Ok(()) => {}
                // Somebody else has brought it further, or given it up.
                Err(StoreError::Conflict(why)) => {
                    tracing::debug!(why, "an outbox row is no longer this worker's");
                }
                Err(error) => {
                    tracing::warn!(%error, "an outbox row could not be worked on; it comes again");
                }
            }
        }
        () = drain.forced() => {}
    }
}

async fn chores(core: Arc<Core>) {
    let mut drain = core.parts.drain.clone();
    let mut counted = None;
    while drain.phase() == Phase::Running {
        if let Err(error) = tidy(&core, &mut counted).await {
            tracing::debug!(%error, "the payment area's chores wait for the store");
        }
        tokio::select! {
            () = tokio::time::sleep(CHORES) => {}
            () = drain.graceful() => {}
        }
    }
}

/// `counted`: when the backlog was counted last.
async fn tidy(core: &Core, counted: &mut Option<Instant>) -> Result<(), StoreError> {
    let now = core.now();
    if counted.is_none_or(|at| at.elapsed() >= COUNT) {
        core.parts.metrics.backlog(core.store().backlog(now).await?, now);
        *counted = Some(Instant::now());
    }
    let kept = micros(core.parts.config.idempotency_kept);
    core.store().forget_payment_keys(now.saturating_sub(kept)).await?;
    Ok(())
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
