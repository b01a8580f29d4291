use uuid::Uuid;

use super::*;
use crate::store::payment::{CaptureMode, Failure, OperationKind, Proven};

fn payment(status: Status) -> PaymentRecord {
    PaymentRecord {
        id: Uuid::from_u128(1),
        payer: "user/alice@test".parse().expect("a principal"),
        payee: "user/toko@test".parse().expect("a principal"),
        amount: "IDR 10".parse().expect("an amount"),
        capture: CaptureMode::Automatic,
        proven: Proven {
            status,
            captured: 0,
            refunded: 0,
            unknown: false,
            failure: None,
            next_action: None,
        },
        busy: true,
        unsent: false,
        description: "kenari".to_owned(),
        metadata: Default::default(),
        room_id: String::new(),
        provider: "sandbox".to_owned(),
        created_at: 10,
        updated_at: 30,
        version: 2,
    }
}

fn charge(status: OperationStatus) -> OperationRecord {
    let failed = status == OperationStatus::Failed;
    OperationRecord {
        id: Uuid::from_u128(2),
        payment_id: Uuid::from_u128(1),
        kind: OperationKind::Charge,
        status,
        minor_units: 1_000,
        provider_key: "key".to_owned(),
        charge_key: "key".to_owned(),
        method: None,
        failure: failed
            .then(|| Failure { code: "declined".to_owned(), message: "kenari".to_owned() }),
        created_at: 10,
    }
}

fn row(task: Task) -> WaitingRow {
    WaitingRow {
        task,
        operation_id: Uuid::from_u128(2),
        next_at: 50,
        attempts: 0,
        lease_owner: String::new(),
        lease_until: 0,
        hastened: false,
        trace: String::new(),
        created_at: 30,
    }
}

fn trail(status: OperationStatus) -> Trail {
    Trail { operations: vec![(charge(status), 20)], ..Trail::default() }
}

#[test]
fn what_happened_is_told_in_its_order_and_without_what_was_written() {
    let mut trail = trail(OperationStatus::Failed);
    trail.waiting.push(row(Task::Receipt));
    let told: Vec<String> =
        history(&payment(Status::Failed), &trail).into_iter().map(|event| event.what).collect();
    assert_eq!(
        told,
        [
            "the payment was recorded",
            "CHARGE was asked for",
            "CHARGE failed: declined",
            "its receipt fell due",
            "the payment is FAILED",
        ]
    );
}

#[test]
fn why_it_waits_follows_from_its_state_and_its_lease() {
    let explained =
        |status, row: WaitingRow, now| why(&payment(Status::Pending), &trail(status), &row, now);
    let drive = || row(Task::Drive);
    let unknown = explained(OperationStatus::Unknown, drive(), 40);
    assert!(unknown.contains("asked by the operation's reference"), "{unknown}");
    let pending = explained(OperationStatus::Done, WaitingRow { attempts: 3, ..drive() }, 40);
    assert!(pending.starts_with("the provider decides later"), "{pending}");
    assert!(pending.ends_with("tried 3 time(s) since it last went on"), "{pending}");
    let leased = WaitingRow { lease_owner: "i".into(), lease_until: 60, hastened: true, ..drive() };
    let now = explained(OperationStatus::Submitting, leased.clone(), 40);
    assert!(now.contains("a node works on it now") && now.contains("next when that ends"), "{now}");
    let over = explained(OperationStatus::Submitting, leased, 70);
    assert!(over.contains("any node takes it up"), "{over}");
    let receipt = explained(OperationStatus::Done, row(Task::Receipt), 40);
    assert_eq!(receipt, "its receipt is to be posted to the room");
}
