//! What each token does, from the call to the ledger.

use std::time::Duration;

use futures_util::StreamExt;

use super::kit::{Kit, as_user, config, fields, manual, reason, sandbox, wanted};
use crate::payment::SandboxHandler;
use crate::proto::payment::v1 as pb;
use crate::proto::payment::v1::PaymentStatus;
use crate::proto::payment::v1::payment_service_server::PaymentService;
use crate::proto::sandbox::v1::sandbox_service_server::SandboxService;
use crate::proto::sandbox::v1::{ActionDecision, CompleteActionRequest};

const PAYER: &str = "user/alice@dev.simpul";
const PAYEE: &str = "user/toko@dev.simpul";

#[tokio::test]
async fn a_payment_that_works_stands_in_both_histories_and_its_token_is_gone() {
    let kit = Kit::new().await;
    let payment = kit.pay(wanted("a", "sandbox_ok:canary-4711")).await;
    assert_eq!(payment.status(), PaymentStatus::Succeeded);
    assert_eq!((payment.captured_minor_units, payment.refunded_minor_units), (50_000, 0));
    assert_eq!(payment.payer, PAYER);
    assert_eq!(kit.balance(PAYEE).await, (50_000, 0));
    assert_eq!(kit.balance(PAYER).await, (0, 0));
    kit.balanced().await;
    let touched = kit.touched.0.lock().unwrap().clone();
    assert!(touched.contains(PAYER) && touched.contains(PAYEE));

    kit.store.checkpoint_truncate().await.expect("a checkpoint");
    let file = std::fs::read(kit.dir.path().join("simpul.db")).expect("the database");
    let token = b"canary-4711";
    assert!(!file.windows(token.len()).any(|window| window == token), "the token was not erased");
}

#[tokio::test]
async fn declines_are_answers_and_move_nothing() {
    let kit = Kit::new().await;
    for (token, code) in
        [("sandbox_declined", "declined"), ("sandbox_insufficient_funds", "insufficient_funds")]
    {
        let payment = kit.pay(wanted(token, token)).await;
        assert_eq!(payment.status(), PaymentStatus::Failed);
        assert_eq!(payment.failure.expect("says why").code, code);
    }
    assert_eq!(kit.balance(PAYEE).await, (0, 0));
    kit.balanced().await;
}

#[tokio::test]
async fn a_lost_reply_is_asked_about_and_charged_once() {
    let kit = Kit::new().await;
    let payment = kit.pay(wanted("a", "sandbox_lost_reply")).await;
    assert_eq!(payment.status(), PaymentStatus::Succeeded);
    assert!(!payment.outcome_unknown);
    let books = kit.sandbox.books().await.expect("books");
    assert_eq!((books.charges.len(), books.charges[0].received), (1, 1));
    kit.balanced().await;
}

#[tokio::test]
async fn the_payer_confirms_or_refuses() {
    let kit = Kit::new().await;
    let acting = SandboxHandler::new(kit.payments.core.clone(), kit.sandbox.clone());
    for (decision, status) in [
        (ActionDecision::Approve, PaymentStatus::Succeeded),
        (ActionDecision::Decline, PaymentStatus::Failed),
    ] {
        let payment = kit.pay(wanted(status.as_str_name(), "sandbox_requires_action")).await;
        assert_eq!(payment.status(), PaymentStatus::RequiresAction);
        assert_eq!(payment.next_action.expect("says what").r#type, "confirm");
        let act = |name, decision| {
            let payment_id = payment.payment_id.clone();
            let request = CompleteActionRequest { payment_id, decision: decision as i32 };
            acting.complete_action(as_user(name, request))
        };
        let stranger = act("toko", decision).await.expect_err("not the payer");
        assert_eq!(reason(&stranger), "NOT_FOUND");
        let nothing = act("alice", ActionDecision::Unspecified).await.expect_err("no decision");
        assert_eq!(fields(&nothing), ["decision"]);
        let after = act("alice", decision).await.expect("it acts").into_inner().payment;
        let after = after.expect("is given");
        assert_eq!(after.status(), status);
        assert_eq!(after.next_action, None);
        let again = act("alice", decision).await.expect_err("it acted already");
        assert_eq!(reason(&again), "PAYMENT_STATE");
    }
    kit.balanced().await;
}

#[tokio::test]
async fn a_pending_payment_settles_by_itself_across_a_restart() {
    let kit = Kit::new().await;
    let payment = kit.pay(wanted("a", "sandbox_pending")).await;
    assert_eq!(payment.status(), PaymentStatus::Pending);
    let dir = kit.crash().await;
    let provider = std::sync::Arc::new(sandbox(dir.path()).await);
    let kit = Kit::with(dir, config(), provider).await;
    kit.until(&payment.payment_id, PaymentStatus::Succeeded).await;
    kit.balanced().await;
}

#[tokio::test]
async fn what_never_arrives_gives_the_caller_the_truth_and_fails_in_the_end() {
    let dir = std::sync::Arc::new(tempfile::tempdir().expect("a directory"));
    let provider = std::sync::Arc::new(sandbox(dir.path()).await);
    let config = crate::config::schema::Payment { give_up: Duration::from_millis(700), ..config() };
    let kit = Kit::with(dir, config, provider).await;
    let mut request = as_user("alice", wanted("a", "sandbox_unreachable"));
    request.metadata_mut().insert("grpc-timeout", "300m".parse().expect("a header"));
    let began = std::time::Instant::now();
    let payment = kit.handler().process_payment(request).await.expect("the state so far");
    assert!(began.elapsed() < Duration::from_millis(300));
    let payment = payment.into_inner().payment.expect("is given");
    assert_eq!(payment.status(), PaymentStatus::Created);
    assert!(!payment.outcome_unknown);
    let failed = kit.until(&payment.payment_id, PaymentStatus::Failed).await;
    assert_eq!(failed.failure.expect("says why").code, "provider_unreachable");
    assert!(kit.sandbox.books().await.expect("books").charges.is_empty());
}

#[tokio::test]
async fn an_authorization_is_held_captured_in_part_and_released() {
    let kit = Kit::new().await;
    let payment = kit.pay(manual("a", "sandbox_ok")).await;
    assert_eq!(payment.status(), PaymentStatus::Authorized);
    assert_eq!(kit.balance(PAYEE).await, (0, 50_000));
    let id = &payment.payment_id;
    let over = kit.capture(id, "over", 50_001).await.expect_err("more than authorized");
    assert_eq!(fields(&over), ["minor_units"]);
    let payment = kit.capture(id, "c", 30_000).await.expect("a capture");
    assert_eq!(payment.status(), PaymentStatus::Succeeded);
    assert_eq!(payment.captured_minor_units, 30_000);
    assert_eq!(kit.balance(PAYEE).await, (30_000, 0));
    let again = kit.capture(id, "c", 30_000).await.expect("the same key");
    assert_eq!(again, payment);
    let twice = kit.capture(id, "d", 0).await.expect_err("captured already");
    assert_eq!(reason(&twice), "PAYMENT_STATE");

    let other = kit.pay(manual("b", "sandbox_ok")).await;
    let denied = kit.cancel("alice", &other.payment_id, "x").await.expect_err("the payee's now");
    assert_eq!(reason(&denied), "NOT_ALLOWED");
    let canceled = kit.cancel("toko", &other.payment_id, "x").await.expect("a cancellation");
    assert_eq!(canceled.status(), PaymentStatus::Canceled);
    assert_eq!(kit.balance(PAYEE).await, (30_000, 0));
    kit.balanced().await;
}

#[tokio::test]
async fn the_payer_cancels_before_the_money_is_reserved() {
    let kit = Kit::new().await;
    let payment = kit.pay(wanted("a", "sandbox_requires_action")).await;
    let denied = kit.cancel("toko", &payment.payment_id, "x").await.expect_err("the payer's");
    assert_eq!(reason(&denied), "NOT_ALLOWED");
    let canceled = kit.cancel("alice", &payment.payment_id, "x").await.expect("a cancellation");
    assert_eq!(canceled.status(), PaymentStatus::Canceled);
    kit.balanced().await;
}

#[tokio::test]
async fn refunds_in_parts_end_with_nothing_left() {
    let kit = Kit::new().await;
    let payment = kit.pay(wanted("a", "sandbox_ok")).await;
    let id = &payment.payment_id;
    let first = kit.refund(id, "r1", 20_000).await.expect("a refund");
    assert_eq!(first.status(), PaymentStatus::PartiallyRefunded);
    let again = kit.refund(id, "r1", 20_000).await.expect("the same key");
    assert_eq!(again, first);
    let other = kit.refund(id, "r1", 10_000).await.expect_err("another body");
    assert_eq!(reason(&other), "KEY_REUSED");
    let over = kit.refund(id, "r2", 30_001).await.expect_err("more than is left");
    assert_eq!(fields(&over), ["minor_units"]);
    let last = kit.refund(id, "r3", 0).await.expect("the rest");
    assert_eq!(last.status(), PaymentStatus::Refunded);
    assert_eq!(last.refunded_minor_units, 50_000);
    let replayed = kit.refund(id, "r1", 20_000).await.expect("the same key, later");
    assert_eq!(replayed, last);
    assert_eq!(kit.balance(PAYEE).await, (0, 0));
    assert_eq!(kit.sandbox.books().await.expect("books").refunds, 2);
    kit.balanced().await;
}

#[tokio::test]
async fn a_payee_without_the_money_cannot_refund() {
    let kit = Kit::new().await;
    let payment = kit.pay(wanted("a", "sandbox_ok")).await;
    // The payee spends: it pays on, and its account is below what it owes.
    let spent = crate::store::ledger::Transfer {
        id: crate::id::fresh(),
        payment_id: crate::id::fresh(),
        currency: "IDR".parse().expect("a currency"),
        movements: vec![crate::store::ledger::Movement {
            from: crate::store::ledger::AccountName::from_stored(PAYEE.to_owned()),
            to: crate::store::ledger::AccountName::suspense(),
            minor_units: 1,
            kind: crate::store::ledger::TransactionKind::Payment,
            needs_balance: true,
        }],
        posted_at: 1,
    };
    crate::store::LedgerStore::post(kit.store.as_ref(), spent).await.expect("a posting");
    let poor = kit.refund(&payment.payment_id, "r", 0).await.expect_err("one unit short");
    assert_eq!(reason(&poor), "INSUFFICIENT_BALANCE");
    // Nothing of it was kept, the key included.
    let less = kit.refund(&payment.payment_id, "r", 49_999).await.expect("what is there");
    assert_eq!(less.refunded_minor_units, 49_999);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_is_one_payment_however_many_call_at_once() {
    let kit = Kit::new().await;
    let calls = (0..20).map(|_| kit.pay(wanted("same", "sandbox_ok")));
    let payments = futures_util::future::join_all(calls).await;
    assert!(payments.iter().all(|payment| payment.payment_id == payments[0].payment_id));
    assert_eq!(kit.sandbox.books().await.expect("books").charges.len(), 1);

    let id = &payments[0].payment_id;
    let refunds = (0..20).map(|_| kit.refund(id, "r", 50_000));
    for refund in futures_util::future::join_all(refunds).await {
        assert_eq!(refund.expect("a refund").refunded_minor_units, 50_000);
    }
    assert_eq!(kit.sandbox.books().await.expect("books").refunds, 1);
    kit.balanced().await;
}

#[tokio::test]
async fn a_room_gets_one_receipt_even_when_it_does_not_take_it_at_first() {
    let kit = Kit::new().await;
    *kit.room.refuse.lock().unwrap() = 2;
    let wanted = |key: &str, method| pb::ProcessPaymentRequest {
        room_id: "lobby".to_owned(),
        ..wanted(key, method)
    };
    let payment = kit.pay(wanted("a", "sandbox_ok")).await;
    kit.pay(wanted("b", "sandbox_declined")).await;
    let posted = async {
        while kit.room.posted.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), posted).await.expect("it is posted");
    let posted = kit.room.posted.lock().unwrap().clone();
    assert_eq!(posted.len(), 1);
    assert_eq!(posted[0].payment_id.to_string(), payment.payment_id);
    assert_eq!(*kit.room.calls.lock().unwrap(), 3);

    let mut elsewhere = wanted("c", "sandbox_ok");
    elsewhere.room_id = "other".to_owned();
    let refused = kit.handler().process_payment(as_user("alice", elsewhere)).await;
    assert_eq!(fields(&refused.expect_err("not a member")), ["room_id"]);
}

#[tokio::test]
async fn a_watcher_sees_it_settle() {
    let kit = Kit::new().await;
    let payment = kit.pay(wanted("a", "sandbox_pending")).await;
    let request =
        pb::WatchPaymentRequest { payment_id: payment.payment_id.clone(), until_settled: true };
    let stream = kit.handler().watch_payment(as_user("toko", request)).await.expect("a stream");
    let seen: Vec<_> = stream.into_inner().collect().await;
    let statuses: Vec<_> = seen
        .into_iter()
        .map(|told| told.expect("no error").payment.expect("is given").status())
        .collect();
    assert_eq!(statuses, [PaymentStatus::Pending, PaymentStatus::Succeeded]);

    // Not settled for good: the stream stays, and the stop ends it.
    let request = pb::WatchPaymentRequest { payment_id: payment.payment_id, until_settled: false };
    let stream = kit.handler().watch_payment(as_user("toko", request)).await.expect("a stream");
    let mut stream = stream.into_inner();
    assert!(stream.next().await.expect("the state").is_ok());
    kit.drain.drain(Duration::from_secs(5)).await;
    let ended = stream.next().await.expect("an end").expect_err("is told");
    assert_eq!(reason(&ended), "DRAINING");
}
