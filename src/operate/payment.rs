//! The life of a payment, as far as it is stored. Its description, metadata and
//! method token are not shown.

mod story;

use std::collections::BTreeSet;

use uuid::Uuid;

use super::Parts;
use crate::principal::{Role, Roles};
use crate::proto::cluster::v1::Node;
use crate::proto::operate::v1 as pb;
use crate::proto::operate::v1::explain_payment_request::Which;
use crate::refusal::{Reason, Refusal, Violations};
use crate::security::audit::AuditSubject;
use crate::security::permit::Permit;
use crate::store::ledger::LedgerEntry;
use crate::store::payment::{Key, Method, OperationRecord, PaymentRecord, Trail, WaitingRow};
use crate::telemetry::TraceContext;
use crate::{card, clock, id};

/// How often a payment that moves meanwhile is read.
const READS: u32 = 4;

/// Those whom the contract lets ask.
fn anyones() -> Roles {
    [Role::Support, Role::Auditor, Role::Operator].into_iter().collect()
}

/// Any payment, for those whom the contract lets ask.
pub(super) async fn explain(
    parts: &Parts,
    permit: &Permit,
    subject: &AuditSubject,
    request: pb::ExplainPaymentRequest,
) -> Result<pb::ExplainPaymentResponse, Refusal> {
    let payment = match request.which {
        Some(Which::PaymentId(text)) => {
            let mut violations = Violations::new();
            let id = Uuid::try_parse(&text).map_err(|_| "must be a UUID");
            let id = violations.take("payment_id", id);
            violations.finish()?;
            id.ok_or_else(|| Refusal::not_found("payment"))?
        }
        Some(Which::Key(key)) => by_key(parts, permit, subject, key).await?,
        None => {
            let mut violations = Violations::new();
            violations.add("which", "either payment_id or key must be set");
            return Err(violations.finish().err().unwrap_or_else(|| Refusal::not_found("payment")));
        }
    };
    subject.set(&format!("payment {payment}"));
    let (record, trail) = read(parts, payment).await?;
    subject.set(&format!("payment {payment} of {}", record.payer));
    subject.set_others(true);
    let nodes = parts.cluster.cluster().await?.nodes;
    Ok(answer(&record, &trail, &nodes, clock::micros(clock::Clock::now(&clock::System))))
}

/// The payment that a caller named: the same key may stand under several
/// methods, for the same payment or for others.
async fn by_key(
    parts: &Parts,
    permit: &Permit,
    subject: &AuditSubject,
    wanted: pb::IdempotencyKey,
) -> Result<Uuid, Refusal> {
    let mut violations = Violations::new();
    violations.check(id::is_client_key(&wanted.key), "key.key", || id::CLIENT_KEY_RULE.to_owned());
    violations.check(!card::contains(&wanted.key), "key.key", || card::RULE.to_owned());
    let named = !wanted.account.is_empty();
    violations.check(named, "key.account", || "must name the account that was acted on".to_owned());
    violations.finish()?;
    let account =
        parts.accounts.resolve(permit, subject, "key.account", &wanted.account, anyones())?;
    let mut found = BTreeSet::new();
    for method in Method::ALL {
        let key = Key { account: account.clone(), method: *method, key: wanted.key.clone() };
        found.extend(parts.store.key(&key).await?.map(|record| record.payment_id));
    }
    only(&found)
}

/// The one payment; a refusal that lists them when there are several.
fn only(found: &BTreeSet<Uuid>) -> Result<Uuid, Refusal> {
    let mut payments = found.iter();
    match (payments.next(), payments.next()) {
        (None, _) => Err(Refusal::not_found("key of that account; keys are kept for a time")),
        (Some(payment), None) => Ok(*payment),
        (Some(_), Some(_)) => {
            let listed: Vec<String> = found.iter().map(Uuid::to_string).collect();
            let message = format!("the key stands for several payments: {}", listed.join(", "));
            Err(Refusal::new(Reason::InvalidArgument, message))
        }
    }
}

/// The payment and what belongs to it, as of one time where it holds still.
async fn read(parts: &Parts, payment: Uuid) -> Result<(PaymentRecord, Trail), Refusal> {
    let missing = || Refusal::not_found("payment");
    let mut record = parts.store.payment(payment).await?.ok_or_else(missing)?;
    for _ in 0..READS {
        let trail = parts.store.trail(payment).await?;
        let again = parts.store.payment(payment).await?.ok_or_else(missing)?;
        if again.version == record.version {
            return Ok((again, trail));
        }
        record = again;
    }
    let trail = parts.store.trail(payment).await?;
    Ok((record, trail))
}

fn answer(
    record: &PaymentRecord,
    trail: &Trail,
    nodes: &[Node],
    now: i64,
) -> pb::ExplainPaymentResponse {
    let waiting = trail.waiting.iter().map(|row| waiting(record, trail, row, nodes, now));
    pb::ExplainPaymentResponse {
        payment_id: record.id.to_string(),
        status: record.proven.status.as_str().to_owned(),
        outcome_unknown: record.proven.unknown,
        payer: record.payer.to_string(),
        payee: record.payee.to_string(),
        amount: Some(record.amount.to_proto()),
        captured_minor_units: record.proven.captured,
        refunded_minor_units: record.proven.refunded,
        capture: record.capture.as_str().to_owned(),
        provider: record.provider.clone(),
        room_id: record.room_id.clone(),
        failure_code: record.proven.failure.as_ref().map(|f| f.code.clone()).unwrap_or_default(),
        created_at: Some(clock::timestamp(record.created_at)),
        updated_at: Some(clock::timestamp(record.updated_at)),
        version: record.version,
        history: story::history(record, trail),
        operations: trail.operations.iter().map(|(record, at)| operation(record, *at)).collect(),
        postings: trail.entries.iter().map(posting).collect(),
        held_minor_units: trail.held.unwrap_or_default(),
        waiting: waiting.collect(),
    }
}

fn operation(record: &OperationRecord, updated_at: i64) -> pb::Operation {
    pb::Operation {
        operation_id: record.id.to_string(),
        kind: record.kind.as_str().to_owned(),
        status: record.status.as_str().to_owned(),
        minor_units: record.minor_units,
        provider_reference: record.provider_key.clone(),
        failure_code: record.failure.as_ref().map(|f| f.code.clone()).unwrap_or_default(),
        created_at: Some(clock::timestamp(record.created_at)),
        updated_at: Some(clock::timestamp(updated_at)),
    }
}

fn posting(entry: &LedgerEntry) -> pb::Posting {
    pb::Posting {
        account: entry.account.as_str().to_owned(),
        counterparty: entry.counterparty.as_str().to_owned(),
        kind: entry.kind.as_str().to_owned(),
        amount: Some(entry.amount.to_proto()),
        balance_after: entry.balance_after,
        position: entry.position,
        posted_at: Some(clock::timestamp(entry.posted_at)),
        transfer_id: entry.transfer_id.to_string(),
    }
}

fn waiting(
    record: &PaymentRecord,
    trail: &Trail,
    row: &WaitingRow,
    nodes: &[Node],
    now: i64,
) -> pb::Waiting {
    let holder = nodes.iter().find(|node| node.incarnation == row.lease_owner);
    let leased = !row.lease_owner.is_empty() && row.lease_until > 0;
    let trace = TraceContext::parse(&row.trace).map(|trace| trace.trace_id());
    pb::Waiting {
        task: row.task.as_str().to_owned(),
        operation_id: row.operation_id.to_string(),
        next_at: Some(clock::timestamp(row.next_at)),
        attempts: row.attempts,
        leased_by: holder.filter(|_| leased).map(|node| node.node_id.clone()).unwrap_or_default(),
        lease_incarnation: if leased { row.lease_owner.clone() } else { String::new() },
        leased_until: leased.then(|| clock::timestamp(row.lease_until)),
        why: story::why(record, trail, row, now),
        trace_id: trace.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_several_payments_lists_each_once() {
        let [one, two] = [1, 2].map(Uuid::from_u128);
        let none = only(&BTreeSet::new()).expect_err("there is none");
        assert_eq!(none.reason, Reason::NotFound);
        assert_eq!(only(&[one, one].into()).expect("one"), one);
        let several = only(&[one, two, one].into()).expect_err("which one?");
        assert_eq!(several.reason, Reason::InvalidArgument);
        assert!(several.message.ends_with(&format!(": {one}, {two}")), "{}", several.message);
    }
}
