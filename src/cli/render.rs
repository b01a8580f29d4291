//! The contracts' messages as JSON and as rows: pure, so that the formats are
//! held by tests. JSON names are the contracts' own; enums lose their prefix
//! and become the words of the contract (`SUCCEEDED`); amounts carry both the
//! minor units and the text.

use serde_json::{Value, json};

use super::text::{amount, money, plain, time, word};
use crate::proto::auth::v1::Role;
use crate::proto::chat::v1 as chat;
use crate::proto::money::v1::Money;
use crate::proto::payment::v1 as payment;
use crate::proto::transaction::v1 as transaction;

/// An amount: currency, minor units, text.
pub fn money_json(value: Option<&Money>) -> Value {
    value.map_or(Value::Null, |value| {
        json!({
            "currency": value.currency,
            "minor_units": value.minor_units,
            "text": amount(&value.currency, value.minor_units),
        })
    })
}

/// A time, or null where there is none.
pub fn time_json(stamp: Option<&prost_types::Timestamp>) -> Value {
    if stamp.is_some() { json!(time(stamp)) } else { Value::Null }
}

/// The status of a payment without its prefix.
pub fn payment_status(payment: &payment::Payment) -> &'static str {
    word(payment.status().as_str_name(), "PAYMENT_STATUS_")
}

/// Everything of a payment.
pub fn payment_json(p: &payment::Payment) -> Value {
    let currency = p.amount.as_ref().map_or("", |amount| amount.currency.as_str());
    let part =
        |minor_units| money_json(Some(&Money { currency: currency.to_owned(), minor_units }));
    json!({
        "payment_id": p.payment_id,
        "status": payment_status(p),
        "outcome_unknown": p.outcome_unknown,
        "amount": money_json(p.amount.as_ref()),
        "captured": part(p.captured_minor_units),
        "refunded": part(p.refunded_minor_units),
        "payer": p.payer,
        "payee": p.payee,
        "capture": word(p.capture().as_str_name(), "CAPTURE_MODE_"),
        "failure": p.failure.as_ref().map(|f| json!({"code": f.code, "message": f.message})),
        "next_action": p.next_action.as_ref().map(|a| json!({"type": a.r#type, "url": a.url})),
        "description": p.description,
        "metadata": p.metadata.iter().collect::<std::collections::BTreeMap<_, _>>(),
        "room_id": p.room_id,
        "provider": p.provider,
        "created_at": time_json(p.created_at.as_ref()),
        "updated_at": time_json(p.updated_at.as_ref()),
        "version": p.version,
    })
}

/// The heading of [`payment_row`].
pub const PAYMENT_HEAD: [&str; 6] = ["CREATED", "PAYMENT", "STATUS", "AMOUNT", "PAYER", "PAYEE"];

/// A payment in one line.
pub fn payment_row(p: &payment::Payment) -> Vec<String> {
    vec![
        time(p.created_at.as_ref()),
        plain(&p.payment_id),
        status_words(p),
        money(p.amount.as_ref()),
        plain(&p.payer),
        plain(&p.payee),
    ]
}

/// A payment in a sentence, and what is to be done about it.
pub fn payment_text(p: &payment::Payment) -> String {
    let mut out = format!(
        "{}  {}  {}  {} -> {}",
        plain(&p.payment_id),
        status_words(p),
        money(p.amount.as_ref()),
        plain(&p.payer),
        plain(&p.payee),
    );
    let currency = p.amount.as_ref().map_or("", |amount| amount.currency.as_str());
    if p.refunded_minor_units > 0 {
        out.push_str(&format!("  refunded {}", amount(currency, p.refunded_minor_units)));
    }
    if let Some(failure) = &p.failure {
        out.push_str(&format!("\n  {}: {}", plain(&failure.code), plain(&failure.message)));
    }
    if let Some(action) = &p.next_action {
        out.push_str(&format!("\n  to do: {}", plain(&action.r#type)));
        if action.url.is_empty() {
            out.push_str(&format!(" (simpul payment act {})", plain(&p.payment_id)));
        } else {
            out.push_str(&format!(" at {}", plain(&action.url)));
        }
    }
    out
}

fn status_words(p: &payment::Payment) -> String {
    let unknown = if p.outcome_unknown { " (outcome not known yet)" } else { "" };
    format!("{}{unknown}", payment_status(p))
}

/// Everything of a transaction.
pub fn transaction_json(t: &transaction::Transaction) -> Value {
    let currency = t.amount.as_ref().map_or("", |amount| amount.currency.as_str());
    let after = Money { currency: currency.to_owned(), minor_units: t.balance_after_minor_units };
    json!({
        "transaction_id": t.transaction_id,
        "position": t.position,
        "account": t.account,
        "kind": word(t.kind().as_str_name(), "TRANSACTION_KIND_"),
        "amount": money_json(t.amount.as_ref()),
        "balance_after": money_json(Some(&after)),
        "counterparty": t.counterparty,
        "payment_id": t.payment_id,
        "transfer_id": t.transfer_id,
        "posted_at": time_json(t.posted_at.as_ref()),
    })
}

/// The heading of [`transaction_row`].
pub const TRANSACTION_HEAD: [&str; 7] =
    ["POSITION", "POSTED", "KIND", "AMOUNT", "BALANCE", "COUNTERPARTY", "PAYMENT"];

/// Widths that keep rows aligned that are printed one by one.
pub const TRANSACTION_WIDTHS: [usize; 7] = [8, 27, 16, 16, 16, 26, 36];

/// A transaction in one line.
pub fn transaction_row(t: &transaction::Transaction) -> Vec<String> {
    let currency = t.amount.as_ref().map_or("", |amount| amount.currency.as_str());
    vec![
        t.position.to_string(),
        time(t.posted_at.as_ref()),
        word(t.kind().as_str_name(), "TRANSACTION_KIND_").to_owned(),
        money(t.amount.as_ref()),
        amount(currency, t.balance_after_minor_units),
        plain(&t.counterparty),
        plain(&t.payment_id),
    ]
}

/// A room's role in small letters. Example: `moderator`.
pub fn room_role(role: chat::RoomRole) -> String {
    word(role.as_str_name(), "ROOM_ROLE_").to_ascii_lowercase()
}

/// Everything of a room.
pub fn room_json(room: &chat::Room) -> Value {
    json!({
        "room_id": room.room_id,
        "title": room.title,
        "created_by": room.created_by,
        "created_at": time_json(room.created_at.as_ref()),
        "head": room.head,
        "role": room_role(room.role()),
    })
}

/// The heading of [`room_row`].
pub const ROOM_HEAD: [&str; 5] = ["ROOM", "ROLE", "HEAD", "CREATED BY", "TITLE"];

/// A room in one line.
pub fn room_row(room: &chat::Room) -> Vec<String> {
    vec![
        plain(&room.room_id),
        room_role(room.role()),
        room.head.to_string(),
        plain(&room.created_by),
        plain(&room.title),
    ]
}

/// Everything of a member.
pub fn member_json(member: &chat::Member) -> Value {
    json!({
        "principal": member.principal,
        "role": room_role(member.role()),
        "joined_at": time_json(member.joined_at.as_ref()),
    })
}

/// The heading of [`member_row`].
pub const MEMBER_HEAD: [&str; 3] = ["PRINCIPAL", "ROLE", "JOINED"];

/// A member in one line.
pub fn member_row(member: &chat::Member) -> Vec<String> {
    vec![plain(&member.principal), room_role(member.role()), time(member.joined_at.as_ref())]
}

/// Everything of a room's entry.
pub fn message_json(m: &chat::Message) -> Value {
    use chat::message::Event;
    let mut value = json!({
        "type": "message",
        "room_id": m.room_id,
        "seq": m.seq,
        "sender": m.sender,
        "kind": word(m.kind().as_str_name(), "MESSAGE_KIND_"),
        "body": m.body,
        "committed_at": time_json(m.committed_at.as_ref()),
        "client_message_id": m.client_message_id,
        "reply_to": m.reply_to,
    });
    let event = match &m.event {
        None => return value,
        Some(Event::Membership(change)) => json!({
            "membership": {
                "member": change.member,
                "before": room_role(change.before()),
                "after": room_role(change.after()),
            }
        }),
        Some(Event::Payment(receipt)) => json!({
            "payment": {
                "payment_id": receipt.payment_id,
                "payer": receipt.payer,
                "payee": receipt.payee,
                "amount": money_json(receipt.amount.as_ref()),
                "status": receipt.status,
            }
        }),
        Some(Event::Room(change)) => json!({"room": {"title": change.title}}),
    };
    if let (Some(value), Value::Object(event)) = (value.as_object_mut(), event) {
        value.extend(event);
    }
    value
}

/// A room's entry in one line.
pub fn message_text(m: &chat::Message) -> String {
    use chat::message::Event;
    let sender = plain(&m.sender);
    let said = match &m.event {
        Some(Event::Membership(change)) => membership_text(&sender, change),
        Some(Event::Payment(receipt)) => format!(
            "* payment {} of {} from {} to {}: {}",
            plain(&receipt.payment_id),
            money(receipt.amount.as_ref()),
            plain(&receipt.payer),
            plain(&receipt.payee),
            plain(&receipt.status),
        ),
        Some(Event::Room(change)) if change.title.is_empty() => {
            format!("* {sender} made or renamed the room")
        }
        Some(Event::Room(change)) => {
            format!("* {sender} named the room \"{}\"", plain(&change.title))
        }
        None if m.reply_to > 0 => format!("{sender} (to {}): {}", m.reply_to, plain(&m.body)),
        None => format!("{sender}: {}", plain(&m.body)),
    };
    format!("{}  {:>4}  {said}", time(m.committed_at.as_ref()), m.seq)
}

fn membership_text(sender: &str, change: &chat::MembershipChange) -> String {
    use chat::RoomRole::Unspecified;
    let member = plain(&change.member);
    match (change.before(), change.after()) {
        (Unspecified, after) => format!("* {sender} added {member} as {}", room_role(after)),
        (_, Unspecified) if sender == member => format!("* {member} left"),
        (_, Unspecified) => format!("* {sender} removed {member}"),
        (_, after) => format!("* {sender} made {member} {}", room_role(after)),
    }
}

/// Roles in small letters.
pub fn role_words(roles: impl IntoIterator<Item = Role>) -> Vec<String> {
    roles.into_iter().map(|role| word(role.as_str_name(), "ROLE_").to_ascii_lowercase()).collect()
}

#[cfg(test)]
#[path = "render/tests.rs"]
mod tests;
