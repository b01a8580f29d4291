//! One step of one operation: send it or ask about it, and record the answer.
//!
//! NEW is marked SUBMITTING, durably, and then sent. SUBMITTING or UNKNOWN is
//! asked about, never sent: only when the provider proves that it has nothing
//! does the operation become NEW again. Everything else is a charge that the
//! provider took and has not decided, and is asked about too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::Instrument;

use super::micros;
use crate::backoff::full_jitter;
use crate::fault;
use crate::payment::Core;
use crate::payment::provider::{ProviderAnswer, ProviderQuery, ProviderRequest};
use crate::payment::state::{self, Follow, IllegalTransition, Transition};
use crate::store::StoreError;
use crate::store::payment::{Change, Hold, Leased, OperationKind, OperationStatus, Row};

/// How often an outcome is decided anew when the payment moved meanwhile.
const DECISIONS: u32 = 8;

/// How often a store that cannot be used is tried again before the lease is
/// left to run out.
const RECORDINGS: u32 = 6;

/// What is to be recorded.
enum Found {
    Answer(ProviderAnswer),
    GaveUp,
}

pub(super) async fn drive(core: &Arc<Core>, leased: Leased) -> Result<(), StoreError> {
    let found = match leased.operation.status {
        OperationStatus::New => {
            fault::point("payment.claimed").await;
            if is_over(core, &leased) {
                Found::GaveUp
            } else {
                core.store().mark_submitting(&leased, core.now()).await?;
                fault::point("payment.submitting").await;
                let answer = submit(core, &leased).await;
                fault::point("payment.charged").await;
                Found::Answer(answer)
            }
        }
        _ => Found::Answer(query(core, &leased).await),
    };
    record(core, leased, found).await?;
    fault::point("payment.outcome").await;
    Ok(())
}

/// Whether the operation was never sent and its time is over.
fn is_over(core: &Core, leased: &Leased) -> bool {
    let age = core.now().saturating_sub(leased.operation.created_at);
    age > micros(core.parts.config.give_up)
}

async fn submit(core: &Core, leased: &Leased) -> ProviderAnswer {
    let (payment, operation) = (&leased.payment, &leased.operation);
    let request = ProviderRequest {
        payment_id: payment.id,
        kind: operation.kind,
        provider_key: operation.provider_key.clone(),
        charge_key: operation.charge_key.clone(),
        amount: crate::money::Money { minor_units: operation.minor_units, ..payment.amount },
        capture: payment.capture,
        method: operation.method.clone(),
    };
    let provider = core.parts.provider.clone();
    ask(core, leased, "submit", async move { provider.submit(&request).await }).await
}

async fn query(core: &Core, leased: &Leased) -> ProviderAnswer {
    let operation = &leased.operation;
    let query =
        ProviderQuery { kind: operation.kind, provider_key: operation.provider_key.clone() };
    let provider = core.parts.provider.clone();
    ask(core, leased, "query", async move { provider.query(&query).await }).await
}

/// Calls the provider: measured, in a span, and no longer than its time.
async fn ask(
    core: &Core,
    leased: &Leased,
    call: &'static str,
    asked: impl Future<Output = ProviderAnswer>,
) -> ProviderAnswer {
    let name = core.parts.provider.name();
    let span = tracing::info_span!(
        "payment.submit",
        otel.kind = "client",
        payment.provider = name,
        payment.call = call,
        payment.answer = tracing::field::Empty,
    );
    let began = Instant::now();
    let answer = tokio::time::timeout(core.parts.config.provider_timeout, asked)
        .instrument(span.clone())
        .await
        .unwrap_or(ProviderAnswer::Unknown);
    span.record("payment.answer", answer.as_str());
    core.parts.metrics.called(name, call, began.elapsed());
    core.parts.metrics.outcome(name, leased.operation.kind, answer.as_str());
    answer
}

async fn record(core: &Arc<Core>, mut leased: Leased, found: Found) -> Result<(), StoreError> {
    for _ in 0..DECISIONS {
        let (payment, operation) = (&leased.payment, &leased.operation);
        let decided = match &found {
            Found::Answer(answer) => state::outcome(payment, operation, answer, core.now()),
            Found::GaveUp => state::give_up(payment, operation, core.now()),
        };
        let transition = match decided {
            Ok(transition) => transition,
            Err(illegal) => return puzzled(core, &leased, illegal).await,
        };
        match commit(core, &leased, &transition).await {
            Ok(()) => {
                tell(core, &leased, &transition);
                return Ok(());
            }
            Err(StoreError::Conflict(_)) => {}
            Err(error) => return Err(error),
        }
        // It moved: decide again on what it has become.
        let Some(payment) = core.store().payment(leased.payment.id).await? else { break };
        let Some(operation) = core.store().operation(leased.operation.id).await? else { break };
        if leased.operation.status.is_live() && !operation.status.is_live() {
            // Another worker brought it to its end, or this one did, by a commit
            // whose answer was lost.
            core.tell(payment.id, &transition.transfers, Some(&payment.payee));
            return Err(StoreError::Conflict("the operation has come to its end"));
        }
        (leased.payment, leased.operation) = (payment, operation);
    }
    Err(StoreError::Conflict("the lease went to another worker"))
}

/// Applies a transition; a store that cannot be used is tried again, because
/// the provider's answer is in hand now and would have to be asked for anew.
async fn commit(core: &Core, leased: &Leased, transition: &Transition) -> Result<(), StoreError> {
    let mut attempt = 0;
    loop {
        let then = row(core, leased, transition);
        let written = if is_news(leased, transition) {
            core.store().record(change(core, leased, transition, then)).await
        } else {
            core.store().reschedule(leased, then).await
        };
        match written {
            Err(StoreError::Unavailable(_)) if attempt < RECORDINGS => {
                let base = Duration::from_millis(100);
                let cap = Duration::from_secs(2);
                tokio::time::sleep(full_jitter(base, cap, attempt, rand::random())).await;
                attempt += 1;
            }
            written => return written,
        }
    }
}

/// Whether anything but the row changes: an answer that says nothing new must
/// not look like a change to those who watch.
fn is_news(leased: &Leased, transition: &Transition) -> bool {
    let sent = leased.operation.status == OperationStatus::New;
    sent || transition.proven != leased.payment.proven
        || transition.operation != leased.operation.status
        || !transition.transfers.is_empty()
        || transition.hold != Hold::Keep
}

fn change(core: &Core, leased: &Leased, transition: &Transition, then: Row) -> Change {
    let over = !transition.operation.is_live();
    Change {
        payment_id: leased.payment.id,
        status: leased.payment.proven.status,
        version: leased.payment.version,
        proven: transition.proven.clone(),
        operation_id: leased.operation.id,
        operation: transition.operation,
        operation_failure: transition.failure.clone(),
        erase_method: over && leased.operation.kind == OperationKind::Charge,
        transfers: transition.transfers.clone(),
        hold: transition.hold.clone(),
        receipt: transition.receipt,
        row: leased.row,
        owner: leased.owner.clone(),
        then,
        now: core.now(),
    }
}

/// When the row is due again: later and later while nothing changes.
fn row(core: &Core, leased: &Leased, transition: &Transition) -> Row {
    let (base, cap) = match transition.follow {
        Follow::Done => return Row::Remove,
        Follow::SendNow => (Duration::ZERO, Duration::ZERO),
        Follow::SendLater => (Duration::from_millis(500), Duration::from_secs(60)),
        Follow::AwaitAction => (Duration::from_secs(1), Duration::from_secs(60)),
        Follow::AwaitDecision => (Duration::from_millis(250), Duration::from_secs(5)),
        Follow::Resolve => (Duration::from_millis(100), Duration::from_secs(30)),
    };
    let same = transition.operation == leased.operation.status
        && transition.proven.status == leased.payment.proven.status;
    let attempts = if same { leased.attempts.saturating_add(1) } else { 1 };
    // Never quite at once, so that a run of small numbers is no busy loop.
    let delay = base / 4 + full_jitter(base, cap, attempts, rand::random());
    Row::Again { at: core.now().saturating_add(micros(delay)), attempts }
}

/// An answer that cannot be: the row stays, rarely asked about, until somebody
/// has looked.
async fn puzzled(
    core: &Core,
    leased: &Leased,
    illegal: IllegalTransition,
) -> Result<(), StoreError> {
    core.parts.metrics.alarm();
    tracing::error!(payment.id = %leased.payment.id, %illegal, "a provider's answer cannot be");
    let at = core.now().saturating_add(micros(Duration::from_secs(300)));
    core.store().reschedule(leased, Row::Again { at, attempts: leased.attempts + 1 }).await
}

fn tell(core: &Core, leased: &Leased, transition: &Transition) {
    if let Some(alarm) = transition.alarm {
        core.parts.metrics.alarm();
        tracing::error!(payment.id = %leased.payment.id, "{alarm}");
    }
    let held = (transition.hold != Hold::Keep).then_some(&leased.payment.payee);
    core.tell(leased.payment.id, &transition.transfers, held);
    core.work.notify_one();
}
