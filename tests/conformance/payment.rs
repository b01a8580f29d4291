//! The payment area: what every engine promises.

mod trail;

pub(crate) use trail::everything_of_a_payment_is_told;

use std::collections::BTreeMap;
use std::sync::Arc;

use simpul::id;
use simpul::money::Money;
use simpul::principal::Principal;
use simpul::store::ledger::{AccountName, Movement, TransactionKind, Transfer};
use simpul::store::payment::{
    Backlog, CaptureMode, Change, Claim, Claimed, Failure, Hold, Key, Leased, Listing, Method,
    NewPayment, OperationKind, OperationStatus, Proven, Row, Status, Task, Work,
};
use simpul::store::{LedgerStore, PaymentStore, StoreError};
use uuid::Uuid;

/// The payment area and the ledger, in which it posts.
pub(crate) trait Both: PaymentStore + LedgerStore {}

impl<T: PaymentStore + LedgerStore> Both for T {}

fn principal(name: &str) -> Principal {
    format!("user/{name}@test").parse().expect("a principal")
}

fn amount() -> Money {
    Money { currency: "IDR".parse().expect("a currency"), minor_units: 1_000 }
}

fn pay(key: &str, now: i64) -> Claim {
    let payment = NewPayment {
        payer: principal("alice"),
        payee: principal("toko"),
        amount: amount(),
        capture: CaptureMode::Automatic,
        description: "kopi".to_owned(),
        metadata: BTreeMap::from([("order".to_owned(), "7".to_owned())]),
        room_id: "lobby".to_owned(),
        provider: "sandbox".to_owned(),
        method: "sandbox_ok".to_owned().into(),
    };
    Claim {
        key: Key { account: principal("alice"), method: Method::Process, key: key.to_owned() },
        request_hash: [7; 32],
        payment_id: id::fresh(),
        operation_id: id::fresh(),
        work: Work::Pay(Box::new(payment)),
        trace: "00-trace".to_owned(),
        now,
    }
}

fn operate(payment_id: Uuid, version: u64, key: &str, reservation: Option<Transfer>) -> Claim {
    Claim {
        key: Key { account: principal("toko"), method: Method::Refund, key: key.to_owned() },
        request_hash: [8; 32],
        payment_id,
        operation_id: id::fresh(),
        work: Work::Operate { version, kind: OperationKind::Refund, minor_units: 400, reservation },
        trace: String::new(),
        now: 50,
    }
}

fn transfer(
    payment_id: Uuid,
    movements: Vec<(AccountName, AccountName, TransactionKind)>,
) -> Transfer {
    let movements = movements
        .into_iter()
        .map(|(from, to, kind)| Movement {
            from,
            to,
            minor_units: 1_000,
            kind,
            needs_balance: false,
        })
        .collect();
    Transfer { id: id::fresh(), payment_id, currency: amount().currency, movements, posted_at: 10 }
}

/// The change that a charge which worked makes.
fn succeeded(leased: &Leased) -> Change {
    let (payer, payee) = (principal("alice"), principal("toko"));
    let posting = transfer(
        leased.payment.id,
        vec![
            (
                AccountName::provider_clearing("sandbox"),
                AccountName::of(&payer),
                TransactionKind::Funding,
            ),
            (AccountName::of(&payer), AccountName::of(&payee), TransactionKind::Payment),
        ],
    );
    Change {
        payment_id: leased.payment.id,
        status: leased.payment.proven.status,
        version: leased.payment.version,
        proven: Proven {
            status: Status::Succeeded,
            captured: 1_000,
            ..leased.payment.proven.clone()
        },
        operation_id: leased.operation.id,
        operation: OperationStatus::Done,
        operation_failure: None,
        erase_method: true,
        transfers: vec![posting],
        hold: Hold::Keep,
        receipt: true,
        row: leased.row,
        owner: leased.owner.clone(),
        then: Row::Remove,
        now: 20,
    }
}

async fn lease_one(store: &impl Both, owner: &str, now: i64) -> Leased {
    let mut leased = store.lease(owner, now, now + 100, 8).await.expect("leases");
    assert_eq!(leased.len(), 1);
    leased.remove(0)
}

async fn balance(store: &impl Both, name: &str) -> i64 {
    let account = AccountName::of(&principal(name));
    let balances = store.balances(&account).await.expect("balances");
    balances.first().map_or(0, |balance| balance.posted.minor_units)
}

async fn claimed(store: &impl Both, key: &str) -> Claim {
    let claim = pay(key, 10);
    assert_eq!(store.claim(claim.clone()).await.expect("claims"), Claimed::New);
    claim
}

/// A payment that stands charged, and its id.
async fn charged(store: &impl Both, key: &str) -> Uuid {
    let claim = claimed(store, key).await;
    let leased = lease_one(store, "w", 10).await;
    store.record(succeeded(&leased)).await.expect("records");
    let receipt = lease_one(store, "w", 20).await;
    store.reschedule(&receipt, Row::Remove).await.expect("is done");
    claim.payment_id
}

pub(crate) async fn a_claim_is_all_or_nothing_and_once<S: Both + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store = open().await;
    let claim = claimed(&*store, "k").await;
    let payment = store.payment(claim.payment_id).await.expect("reads").expect("stands");
    assert_eq!((payment.proven.status, payment.busy, payment.version), (Status::Created, true, 1));
    assert_eq!((payment.description.as_str(), payment.metadata.len()), ("kopi", 1));
    let operation = store.operation(claim.operation_id).await.expect("reads").expect("stands");
    assert_eq!(operation.status, OperationStatus::New);
    assert_eq!(operation.charge_key, operation.provider_key);
    let charge = store.charge(claim.payment_id).await.expect("reads").expect("stands");
    assert_eq!(charge.id, claim.operation_id);

    let second = pay("k", 11);
    let Claimed::Known(known) = store.claim(second.clone()).await.expect("answers") else {
        panic!("the key was taken twice");
    };
    assert_eq!((known.payment_id, known.operation_id), (claim.payment_id, claim.operation_id));
    assert_eq!(store.key(&claim.key).await.expect("reads"), Some(known));
    assert_eq!(store.payment(second.payment_id).await.expect("reads"), None);
    let backlog = store.backlog(20).await.expect("counts");
    assert_eq!((backlog.depth, backlog.payment), (1, Some(claim.payment_id)));
    assert!(backlog.oldest.is_some());
}

/// Nobody is to be woken for it, however long the payer takes.
pub(crate) async fn what_waits_for_its_payer_is_not_overdue<S: Both + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store = open().await;
    let slow = claimed(&*store, "slow").await;
    let leased = lease_one(&*store, "w", 10).await;
    let waits = |status, unknown, leased: &Leased| Change {
        proven: Proven { status, unknown, ..leased.payment.proven.clone() },
        operation: OperationStatus::Unknown,
        erase_method: false,
        transfers: Vec::new(),
        receipt: false,
        then: Row::Again { at: 60, attempts: 1 },
        ..succeeded(leased)
    };
    store.record(waits(Status::RequiresAction, false, &leased)).await.expect("records");
    let backlog = async || store.backlog(70).await.expect("counts");
    assert_eq!(backlog().await, Backlog { depth: 1, oldest: None, payment: None });
    let late = store.backlog(120_000_000).await.expect("counts");
    assert_eq!(late.payment, Some(slow.payment_id), "nobody asks");
    let leased = lease_one(&*store, "w", 200).await;
    store.record(waits(Status::Pending, true, &leased)).await.expect("records");
    assert_eq!(backlog().await.payment, Some(slow.payment_id), "nobody knows whether it arrived");
    let leased = lease_one(&*store, "w", 400).await;
    store.record(waits(Status::Pending, false, &leased)).await.expect("records");
    assert_eq!(backlog().await.payment, None);
    let new = claimed(&*store, "new").await;
    let now = backlog().await;
    assert_eq!((now.depth, now.payment), (2, Some(new.payment_id)));
}

pub(crate) async fn one_key_claimed_by_many_is_one_payment<S: Both + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store = open().await;
    let mut calls = Vec::new();
    for _ in 0..32 {
        let store = store.clone();
        calls.push(simpul::task::spawn("claims", async move {
            store.claim(pay("k", 10)).await.expect("answers") == Claimed::New
        }));
    }
    let mut new = 0;
    for call in calls {
        new += usize::from(call.await.expect("no panic"));
    }
    assert_eq!(new, 1);
    assert_eq!(store.backlog(20).await.expect("counts").depth, 1);
}

pub(crate) async fn a_lease_is_held_by_one_and_ends<S: Both + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store = open().await;
    claimed(&*store, "k").await;
    assert!(store.lease("w", 9, 109, 8).await.expect("leases").is_empty(), "not due yet");
    let first = lease_one(&*store, "w", 10).await;
    assert_eq!((first.task, first.trace.as_str()), (Task::Drive, "00-trace"));
    assert!(first.operation.method.is_some());
    assert_eq!(store.next_due().await.expect("reads"), Some(110));
    assert!(store.lease("x", 109, 200, 8).await.expect("leases").is_empty());
    let second = lease_one(&*store, "x", 110).await;
    assert!(matches!(store.mark_submitting(&first, 111).await, Err(StoreError::Conflict(_))));
    store.mark_submitting(&second, 111).await.expect("the holder may");
    let late = store.reschedule(&first, Row::Remove).await;
    assert!(matches!(late, Err(StoreError::Conflict(_))), "the lease is over");
    store.reschedule(&second, Row::Again { at: 500, attempts: 3 }).await.expect("the holder may");
    assert_eq!(store.next_due().await.expect("reads"), Some(500));
    assert_eq!(lease_one(&*store, "x", 500).await.attempts, 3);
}

pub(crate) async fn an_outcome_is_recorded_once_with_its_postings<S: Both + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store = open().await;
    let claim = claimed(&*store, "k").await;
    let leased = lease_one(&*store, "w", 10).await;
    let change = succeeded(&leased);
    store.record(change.clone()).await.expect("records");
    let again = Change { transfers: succeeded(&leased).transfers, ..change };
    assert!(matches!(store.record(again).await, Err(StoreError::Conflict(_))));

    let payment = store.payment(claim.payment_id).await.expect("reads").expect("stands");
    assert_eq!(payment.proven.status, Status::Succeeded);
    assert_eq!((payment.proven.captured, payment.busy, payment.version), (1_000, false, 2));
    assert_eq!(balance(&*store, "toko").await, 1_000);
    assert_eq!(store.audit().await.expect("audits"), Vec::<String>::new());

    // Only the receipt is left; the token is gone, the trace is not.
    let receipt = lease_one(&*store, "w", 20).await;
    assert_eq!((receipt.task, receipt.trace.as_str()), (Task::Receipt, "00-trace"));
    assert!(receipt.operation.method.is_none());
}

pub(crate) async fn a_payment_has_one_live_operation<S: Both + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store = open().await;
    let payment = charged(&*store, "k").await;
    let stale = store.claim(operate(payment, 1, "r", None)).await.expect("answers");
    assert_eq!(stale, Claimed::Moved);
    let first = store.claim(operate(payment, 2, "r", None)).await.expect("answers");
    assert_eq!(first, Claimed::New);
    for version in [2, 3] {
        let second = store.claim(operate(payment, version, "s", None)).await.expect("answers");
        assert_eq!(second, Claimed::Moved);
    }
    let leased = lease_one(&*store, "w", 50).await;
    assert_eq!(leased.operation.kind, OperationKind::Refund);
    assert_ne!(leased.operation.charge_key, leased.operation.provider_key);
    let failure = Failure { code: "no".to_owned(), message: "the bank said no".to_owned() };
    let failed = Change {
        operation: OperationStatus::Failed,
        operation_failure: Some(failure.clone()),
        proven: leased.payment.proven.clone(),
        transfers: Vec::new(),
        receipt: false,
        ..succeeded(&leased)
    };
    store.record(failed).await.expect("records");
    let operation = store.operation(leased.operation.id).await.expect("reads").expect("stands");
    assert_eq!((operation.status, operation.failure), (OperationStatus::Failed, Some(failure)));
    assert!(!store.payment(payment).await.expect("reads").expect("stands").busy);
}

pub(crate) async fn only_a_charge_that_was_never_sent_is_withdrawn<S: Both + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store = open().await;
    let withdraw = |payment_id, version| {
        let failure = Failure { code: "withdrawn".to_owned(), message: "given up".to_owned() };
        Claim {
            work: Work::Withdraw { version, minor_units: 1_000, failure },
            ..operate(payment_id, version, "c", None)
        }
    };
    let claim = claimed(&*store, "k").await;
    let payment = store.payment(claim.payment_id).await.expect("reads").expect("stands");
    assert!(payment.unsent && payment.busy);
    let stale = store.claim(withdraw(payment.id, 9)).await.expect("answers");
    assert_eq!(stale, Claimed::Moved);
    // A worker that has leased it already finds that it may not send it.
    let leased = lease_one(&*store, "w", 10).await;
    let cancellation = withdraw(payment.id, 1);
    assert_eq!(store.claim(cancellation.clone()).await.expect("answers"), Claimed::New);
    let marked = store.mark_submitting(&leased, 11).await;
    assert!(matches!(marked, Err(StoreError::Conflict(_))), "{marked:?}");
    let late = store.record(succeeded(&leased)).await;
    assert!(matches!(late, Err(StoreError::Conflict(_))), "{late:?}");
    assert_eq!(store.next_due().await.expect("reads"), None);
    let payment = store.payment(payment.id).await.expect("reads").expect("stands");
    assert_eq!((payment.proven.status, payment.busy), (Status::Canceled, false));
    let done = store.operation(cancellation.operation_id).await.expect("reads").expect("stands");
    assert_eq!((done.kind, done.status), (OperationKind::Cancel, OperationStatus::Done));
    let again = store.claim(cancellation).await.expect("answers");
    assert!(matches!(again, Claimed::Known(_)), "{again:?}");

    let sent = claimed(&*store, "sent").await;
    let leased = lease_one(&*store, "w", 10).await;
    store.mark_submitting(&leased, 11).await.expect("the holder may");
    let late = store.claim(Claim {
        key: Key { account: principal("alice"), method: Method::Cancel, key: "d".to_owned() },
        ..withdraw(sent.payment_id, 1)
    });
    assert_eq!(late.await.expect("answers"), Claimed::Moved);
    let payment = store.payment(sent.payment_id).await.expect("reads").expect("stands");
    assert_eq!((payment.proven.status, payment.unsent), (Status::Created, false));
}

pub(crate) async fn a_reservation_without_balance_keeps_nothing<S: Both + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store = open().await;
    let payment = charged(&*store, "k").await;
    let mut reserve = transfer(
        payment,
        vec![(
            AccountName::of(&principal("toko")),
            AccountName::refunds_payable(),
            TransactionKind::RefundReserved,
        )],
    );
    for movement in &mut reserve.movements {
        movement.needs_balance = true;
        movement.minor_units = 1_001;
    }
    let claim = operate(payment, 2, "r", Some(reserve));
    let refused = store.claim(claim.clone()).await.expect("answers");
    assert_eq!(refused, Claimed::InsufficientBalance);
    assert_eq!(store.key(&claim.key).await.expect("reads"), None);
    assert_eq!(store.payment(payment).await.expect("reads").expect("stands").version, 2);
    assert_eq!(store.backlog(20).await.expect("counts").depth, 0);
    assert_eq!(balance(&*store, "toko").await, 1_000);
}

pub(crate) async fn what_was_being_sent_is_unknown_after_a_start<S: Both + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store = open().await;
    let claim = claimed(&*store, "k").await;
    let leased = lease_one(&*store, "gone", 10).await;
    store.mark_submitting(&leased, 11).await.expect("marks");
    assert_eq!(store.recover(12, None).await.expect("recovers"), 1);
    assert_eq!(store.recover(13, None).await.expect("recovers"), 0);
    let payment = store.payment(claim.payment_id).await.expect("reads").expect("stands");
    assert!(payment.proven.unknown && payment.busy);
    let leased = lease_one(&*store, "new", 13).await;
    assert_eq!(leased.operation.status, OperationStatus::Unknown);
    assert!(leased.operation.method.is_some(), "it may have to be sent again");
}

pub(crate) async fn a_hastened_row_is_due_at_once_also_after_a_lease<S: Both + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store = open().await;
    let claim = claimed(&*store, "k").await;
    let leased = lease_one(&*store, "w", 10).await;
    store.hasten(claim.payment_id, 11).await.expect("hastens");
    assert!(store.lease("w", 12, 200, 8).await.expect("leases").is_empty(), "the lease stands");
    store.reschedule(&leased, Row::Again { at: 9_000, attempts: 1 }).await.expect("is kept");
    let leased = lease_one(&*store, "w", 13).await;
    store.reschedule(&leased, Row::Again { at: 9_000, attempts: 1 }).await.expect("is kept");
    assert!(store.lease("w", 14, 200, 8).await.expect("leases").is_empty());
    store.hasten(claim.payment_id, 15).await.expect("hastens");
    lease_one(&*store, "w", 15).await;
}

pub(crate) async fn keys_are_forgotten_by_age<S: Both + 'static>(open: impl AsyncFn() -> Arc<S>) {
    let store = open().await;
    let old = claimed(&*store, "old").await;
    let new = pay("new", 20);
    store.claim(new.clone()).await.expect("claims");
    let forgotten = store.forget_payment_keys(20).await.expect("forgets");
    assert_eq!(forgotten, 0, "its payment is under way: the key sent again must find it");
    assert!(store.key(&old.key).await.expect("reads").is_some());
    let leased = lease_one(&*store, "w", 15).await;
    store.reschedule(&leased, Row::Remove).await.expect("is done");
    assert_eq!(store.forget_payment_keys(20).await.expect("forgets"), 1);
    assert_eq!(store.key(&old.key).await.expect("reads"), None);
    assert!(store.key(&new.key).await.expect("reads").is_some());
}

pub(crate) async fn listings_follow_both_sides<S: Both + 'static>(open: impl AsyncFn() -> Arc<S>) {
    let store = open().await;
    let mut made = Vec::new();
    for n in 0..5 {
        made.push(claimed(&*store, &n.to_string()).await.payment_id);
    }
    made.reverse();
    for name in ["alice", "toko"] {
        let account = principal(name);
        let listing = Listing { account, statuses: Vec::new(), before: None, limit: 3 };
        let ids = |page: Vec<simpul::store::payment::PaymentRecord>| -> Vec<_> {
            page.into_iter().map(|payment| payment.id).collect()
        };
        let first = ids(store.list(&listing).await.expect("lists"));
        assert_eq!(first, made[..3]);
        let rest = Listing { before: first.last().copied(), ..listing.clone() };
        assert_eq!(ids(store.list(&rest).await.expect("lists")), made[3..]);
        let none = Listing { statuses: vec![Status::Failed], ..listing };
        assert!(store.list(&none).await.expect("lists").is_empty());
    }
}
