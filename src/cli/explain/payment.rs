//! `simpul explain payment`.

use clap::Args;
use serde_json::{Value, json};

use crate::cli::env::Env;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::render::{money_json, time_json};
use crate::cli::text::{amount, money, pairs, plain, table, time};
use crate::proto::operate::v1::explain_payment_request::Which;
use crate::proto::operate::v1::{
    ExplainPaymentRequest, ExplainPaymentResponse, IdempotencyKey, Operation, Posting, Waiting,
};

/// What happened to a payment, what was posted, what it waits for
#[derive(Debug, Args)]
pub(super) struct Payment {
    /// The payment: its id, or an idempotency key of one of its operations
    #[arg(value_name = "ID|KEY")]
    payment: String,
    /// With a key: the account on which the caller acted, as
    /// `[kind/]id[@trust-domain]`
    #[arg(long, value_name = "WHO")]
    account: Option<String>,
}

impl Payment {
    /// Asks and prints.
    pub(super) async fn run(self, env: &Env) -> Result<Exit, Failure> {
        let which = match (uuid::Uuid::try_parse(&self.payment), self.account) {
            (_, Some(account)) => Which::Key(IdempotencyKey { account, key: self.payment }),
            (Ok(_), None) => Which::PaymentId(self.payment),
            (Err(_), None) => {
                let failure = Failure::usage("a payment's id is a UUID");
                return Err(failure.hint("for an idempotency key, --account names whose it is"));
            }
        };
        let client = env.connect().await?;
        let request = client.unary(ExplainPaymentRequest { which: Some(which) });
        let answer = client.operator().explain_payment(request).await?.into_inner();
        env.output.say(&as_json(&answer), || as_text(&answer))?;
        Ok(Exit::Done)
    }
}

fn as_json(p: &ExplainPaymentResponse) -> Value {
    let history = p.history.iter();
    let history = history.map(|e| json!({"at": time_json(e.at.as_ref()), "what": e.what}));
    json!({
        "payment_id": p.payment_id, "status": p.status, "outcome_unknown": p.outcome_unknown,
        "payer": p.payer, "payee": p.payee, "amount": money_json(p.amount.as_ref()),
        "captured_minor_units": p.captured_minor_units,
        "refunded_minor_units": p.refunded_minor_units,
        "held_minor_units": p.held_minor_units,
        "capture": p.capture, "provider": p.provider, "room_id": p.room_id,
        "failure_code": p.failure_code,
        "created_at": time_json(p.created_at.as_ref()),
        "updated_at": time_json(p.updated_at.as_ref()),
        "version": p.version,
        "history": history.collect::<Value>(),
        "operations": p.operations.iter().map(operation_json).collect::<Value>(),
        "postings": p.postings.iter().map(posting_json).collect::<Value>(),
        "waiting": p.waiting.iter().map(waiting_json).collect::<Value>(),
    })
}

fn operation_json(o: &Operation) -> Value {
    json!({
        "operation_id": o.operation_id, "kind": o.kind, "status": o.status,
        "minor_units": o.minor_units, "provider_reference": o.provider_reference,
        "failure_code": o.failure_code,
        "created_at": time_json(o.created_at.as_ref()),
        "updated_at": time_json(o.updated_at.as_ref()),
    })
}

fn posting_json(p: &Posting) -> Value {
    json!({
        "account": p.account, "counterparty": p.counterparty, "kind": p.kind,
        "amount": money_json(p.amount.as_ref()), "balance_after": p.balance_after,
        "position": p.position, "posted_at": time_json(p.posted_at.as_ref()),
        "transfer_id": p.transfer_id,
    })
}

fn waiting_json(w: &Waiting) -> Value {
    json!({
        "task": w.task, "operation_id": w.operation_id, "next_at": time_json(w.next_at.as_ref()),
        "attempts": w.attempts, "leased_by": w.leased_by,
        "lease_incarnation": w.lease_incarnation,
        "leased_until": time_json(w.leased_until.as_ref()),
        "why": w.why, "trace_id": w.trace_id,
    })
}

fn as_text(p: &ExplainPaymentResponse) -> String {
    let mut out = pairs(&head(p));
    let history: Vec<Vec<String>> =
        p.history.iter().map(|e| vec![time(e.at.as_ref()), plain(&e.what)]).collect();
    out.push_str("\n\n");
    out.push_str(&table(&["WHEN", "WHAT"], &history));
    let currency = p.amount.as_ref().map_or("", |amount| amount.currency.as_str());
    let operations: Vec<Vec<String>> = p
        .operations
        .iter()
        .map(|o| {
            let failure = if o.failure_code.is_empty() { "-" } else { o.failure_code.as_str() };
            vec![
                o.kind.clone(),
                o.status.clone(),
                amount(currency, o.minor_units),
                plain(failure),
                plain(&o.provider_reference),
            ]
        })
        .collect();
    out.push_str("\n\n");
    let heads = ["OPERATION", "STATUS", "AMOUNT", "FAILURE", "REFERENCE AT THE PROVIDER"];
    out.push_str(&table(&heads, &operations));
    if !p.postings.is_empty() {
        let postings: Vec<Vec<String>> = p
            .postings
            .iter()
            .map(|e| {
                let after = amount(currency, e.balance_after);
                vec![plain(&e.account), e.kind.clone(), money(e.amount.as_ref()), after]
            })
            .collect();
        out.push_str("\n\n");
        out.push_str(&table(&["ACCOUNT", "POSTED", "AMOUNT", "BALANCE AFTER"], &postings));
    }
    out.push_str("\n\n");
    out.push_str(&waits(&p.waiting));
    out
}

fn head(p: &ExplainPaymentResponse) -> Vec<(&'static str, String)> {
    let currency = p.amount.as_ref().map_or("", |amount| amount.currency.as_str());
    let unknown = if p.outcome_unknown { ", the newest outcome is not known" } else { "" };
    let mut rows = vec![
        ("payment", plain(&p.payment_id)),
        ("status", format!("{}{unknown}", p.status)),
        ("amount", money(p.amount.as_ref())),
        ("from", plain(&p.payer)),
        ("to", plain(&p.payee)),
        ("provider", plain(&p.provider)),
        ("capture", p.capture.to_ascii_lowercase()),
    ];
    for (name, units) in [
        ("captured", p.captured_minor_units),
        ("refunded", p.refunded_minor_units),
        ("held", p.held_minor_units),
    ] {
        if units != 0 {
            rows.push((name, amount(currency, units)));
        }
    }
    for (name, text) in [("room", &p.room_id), ("failure", &p.failure_code)] {
        if !text.is_empty() {
            rows.push((name, plain(text)));
        }
    }
    rows
}

fn waits(waiting: &[Waiting]) -> String {
    if waiting.is_empty() {
        return "nothing is left to be done".to_owned();
    }
    let each = waiting.iter().map(|w| {
        let mut rows = vec![
            ("waits", plain(&w.why)),
            ("next try", time(w.next_at.as_ref())),
            ("tries", w.attempts.to_string()),
        ];
        if !w.lease_incarnation.is_empty() {
            let node = if w.leased_by.is_empty() { "a node that is gone" } else { &w.leased_by };
            let until = time(w.leased_until.as_ref());
            rows.push(("held by", format!("{}, until {until}", plain(node))));
        }
        if !w.trace_id.is_empty() {
            rows.push(("trace", plain(&w.trace_id)));
        }
        pairs(&rows)
    });
    each.collect::<Vec<_>>().join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::money::v1::Money;

    #[test]
    fn a_payment_that_waits_says_why_and_where() {
        let answer = ExplainPaymentResponse {
            payment_id: "p".into(),
            status: "PENDING".into(),
            amount: Some(Money { currency: "IDR".into(), minor_units: 5_000_000 }),
            operations: vec![Operation {
                kind: "CHARGE".into(),
                status: "DONE".into(),
                minor_units: 5_000_000,
                provider_reference: "ref-1".into(),
                ..Operation::default()
            }],
            waiting: vec![Waiting {
                why: "the provider decides later".into(),
                attempts: 2,
                lease_incarnation: "i".into(),
                trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
                ..Waiting::default()
            }],
            ..ExplainPaymentResponse::default()
        };
        let text = as_text(&answer);
        for part in ["IDR 50000", "ref-1", "decides later", "a node that is gone", "4bf92f35"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let json = as_json(&answer);
        assert_eq!(json["operations"][0]["provider_reference"], "ref-1");
        assert_eq!(json["waiting"][0]["attempts"], 2);
        let done = ExplainPaymentResponse::default();
        assert!(as_text(&done).ends_with("nothing is left to be done"));
    }
}
