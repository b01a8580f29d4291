//! A payment's rows as a story: what happened when, and why something waits.
//! Pure.
//!
//! A state is overwritten by the next one, so the story has what left a trace:
//! that an operation began and when it changed last, every posting, and what
//! the payment has become.

use crate::clock;
use crate::proto::operate::v1 as pb;
use crate::store::payment::{
    OperationRecord, OperationStatus, PaymentRecord, Status, Task, Trail, WaitingRow,
};

/// What happened, oldest first.
pub(super) fn history(record: &PaymentRecord, trail: &Trail) -> Vec<pb::Event> {
    let mut events = vec![(record.created_at, 0, "the payment was recorded".to_owned())];
    for (operation, updated_at) in &trail.operations {
        let name = operation.kind.as_str();
        events.push((operation.created_at, 1, format!("{name} was asked for")));
        if operation.status != OperationStatus::New {
            events.push((*updated_at, 2, format!("{name} {}", state(operation))));
        }
    }
    // Each movement has two sides: told from the one that gives.
    for entry in trail.entries.iter().filter(|entry| entry.amount.minor_units < 0) {
        let (from, to) = (entry.account.as_str(), entry.counterparty.as_str());
        let units = entry.amount.minor_units.unsigned_abs();
        let posted = entry.kind.as_str();
        let what = format!("{posted} posted: {units} minor units from {from} to {to}");
        events.push((entry.posted_at, 3, what));
    }
    for row in trail.waiting.iter().filter(|row| row.task == Task::Receipt) {
        events.push((row.created_at, 4, "its receipt fell due".to_owned()));
    }
    let status = record.proven.status;
    if status != Status::Created || record.updated_at != record.created_at {
        events.push((record.updated_at, 5, format!("the payment is {}", status.as_str())));
    }
    events.sort_by_key(|(at, order, _)| (*at, *order));
    let event = |(at, _, what)| pb::Event { at: Some(clock::timestamp(at)), what };
    events.into_iter().map(event).collect()
}

fn state(operation: &OperationRecord) -> String {
    match operation.status {
        OperationStatus::New => "waits to be sent".to_owned(),
        OperationStatus::Submitting => "is being sent to the provider".to_owned(),
        OperationStatus::Done => "is done".to_owned(),
        OperationStatus::Failed => {
            let code = operation.failure.as_ref().map_or("no reason", |f| f.code.as_str());
            format!("failed: {code}")
        }
        OperationStatus::Unknown => "was sent, and its outcome is not known".to_owned(),
    }
}

/// Why a row waits.
pub(super) fn why(record: &PaymentRecord, trail: &Trail, row: &WaitingRow, now: i64) -> String {
    let mut why = match row.task {
        Task::Receipt => "its receipt is to be posted to the room".to_owned(),
        Task::Drive => {
            let operation = trail.operations.iter().find(|(it, _)| it.id == row.operation_id);
            let status = operation.map(|(operation, _)| operation.status);
            drive(record, status).to_owned()
        }
    };
    let held = !row.lease_owner.is_empty() && row.lease_until > 0;
    if held && row.lease_until > now {
        why.push_str("; a node works on it now");
    } else if held {
        why.push_str("; the node that worked on it said nothing in time: any node takes it up");
    } else if row.attempts > 0 {
        why.push_str(&format!("; tried {} time(s) since it last went on", row.attempts));
    }
    if row.hastened {
        why.push_str("; somebody has asked for it meanwhile: it is next when that ends");
    }
    why
}

fn drive(record: &PaymentRecord, status: Option<OperationStatus>) -> &'static str {
    match status {
        Some(OperationStatus::New) => "it was not sent to the provider yet",
        Some(OperationStatus::Submitting) => "it is being sent; its answer is not here",
        Some(OperationStatus::Unknown) => {
            "its outcome is not known: the provider is asked by the operation's reference"
        }
        _ => match record.proven.status {
            Status::RequiresAction => {
                "the payer must confirm it; the provider is asked now and then"
            }
            Status::Pending => "the provider decides later, and is asked now and then",
            Status::Authorized => "what was reserved ends unless it is captured",
            _ => "the provider is asked how it stands",
        },
    }
}

#[cfg(test)]
mod tests;
