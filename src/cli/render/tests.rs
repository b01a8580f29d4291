use super::*;

fn stamp() -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 })
}

fn idr(minor_units: i64) -> Option<Money> {
    Some(Money { currency: "IDR".into(), minor_units })
}

fn paid() -> payment::Payment {
    payment::Payment {
        payment_id: "p1".into(),
        status: payment::PaymentStatus::Succeeded.into(),
        amount: idr(5_000_000),
        payer: "user/alice@dev.simpul".into(),
        payee: "user/toko@dev.simpul".into(),
        capture: payment::CaptureMode::Automatic.into(),
        captured_minor_units: 5_000_000,
        created_at: stamp(),
        ..Default::default()
    }
}

#[test]
fn a_payment_has_amounts_as_people_write_them_and_minor_units() {
    let json = payment_json(&paid());
    assert_eq!(json["status"], "SUCCEEDED");
    assert_eq!(
        json["amount"],
        json!({"currency": "IDR", "minor_units": 5_000_000, "text": "IDR 50000"})
    );
    assert_eq!(json["refunded"]["text"], "IDR 0");
    assert_eq!(json["created_at"], "2023-11-14T22:13:20.000000Z");
    assert_eq!(json["updated_at"], Value::Null);
    assert_eq!(
        payment_text(&paid()),
        "p1  SUCCEEDED  IDR 50000  user/alice@dev.simpul -> user/toko@dev.simpul"
    );
}

#[test]
fn a_payment_says_why_it_failed_and_what_is_to_be_done() {
    let mut failed = paid();
    failed.status = payment::PaymentStatus::Failed.into();
    failed.failure =
        Some(payment::PaymentFailure { code: "declined".into(), message: "No.".into() });
    assert!(payment_text(&failed).ends_with("\n  declined: No."));

    let mut waiting = paid();
    waiting.status = payment::PaymentStatus::RequiresAction.into();
    waiting.outcome_unknown = true;
    waiting.next_action = Some(payment::NextAction { r#type: "confirm".into(), url: "".into() });
    let text = payment_text(&waiting);
    assert!(text.contains("REQUIRES_ACTION (outcome not known yet)"), "{text}");
    assert!(text.ends_with("\n  to do: confirm (simpul payment act p1)"), "{text}");
}

#[test]
fn a_message_reads_in_one_line_whatever_is_in_it() {
    let mut message = chat::Message {
        room_id: "lobby".into(),
        seq: 3,
        sender: "user/alice@dev.simpul".into(),
        kind: chat::MessageKind::Text.into(),
        body: "apa\nkabar\u{1b}[31m".into(),
        committed_at: stamp(),
        ..Default::default()
    };
    assert_eq!(
        message_text(&message),
        "2023-11-14T22:13:20.000000Z     3  user/alice@dev.simpul: apa\\nkabar\\u{1b}[31m"
    );
    let json = message_json(&message);
    assert_eq!(json["body"], "apa\nkabar\u{1b}[31m");
    assert_eq!((&json["kind"], &json["type"]), (&json!("TEXT"), &json!("message")));

    message.event = Some(chat::message::Event::Membership(chat::MembershipChange {
        member: "user/bob@dev.simpul".into(),
        before: chat::RoomRole::Unspecified.into(),
        after: chat::RoomRole::Member.into(),
    }));
    assert!(
        message_text(&message)
            .ends_with("* user/alice@dev.simpul added user/bob@dev.simpul as member")
    );
    assert_eq!(message_json(&message)["membership"]["after"], "member");
}

#[test]
fn membership_changes_are_told_apart() {
    use chat::RoomRole::{Member, Moderator, Unspecified};
    let change = |before: chat::RoomRole, after: chat::RoomRole| chat::MembershipChange {
        member: "b".into(),
        before: before.into(),
        after: after.into(),
    };
    assert_eq!(membership_text("a", &change(Member, Unspecified)), "* a removed b");
    assert_eq!(membership_text("b", &change(Member, Unspecified)), "* b left");
    assert_eq!(membership_text("a", &change(Member, Moderator)), "* a made b moderator");
}

#[test]
fn a_transaction_has_its_sign_and_the_balance_after_it() {
    let entry = transaction::Transaction {
        position: 2,
        kind: transaction::TransactionKind::Payment.into(),
        amount: idr(-5_000_000),
        balance_after_minor_units: 0,
        counterparty: "user/toko@dev.simpul".into(),
        payment_id: "p1".into(),
        posted_at: stamp(),
        ..Default::default()
    };
    let json = transaction_json(&entry);
    assert_eq!(json["amount"]["text"], "IDR -50000");
    assert_eq!(json["balance_after"]["minor_units"], 0);
    assert_eq!(
        transaction_row(&entry),
        [
            "2",
            "2023-11-14T22:13:20.000000Z",
            "PAYMENT",
            "IDR -50000",
            "IDR 0",
            "user/toko@dev.simpul",
            "p1"
        ]
    );
}
