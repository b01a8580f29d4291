//! Payments and histories through the public listener.

use std::time::Duration;

use simpul::proto::chat::v1::MessageKind;
use simpul::proto::chat::v1::join::From;
use simpul::proto::chat::v1::message::Event;
use simpul::proto::money::v1::Money;
use simpul::proto::payment::v1::payment_service_client::PaymentServiceClient;
use simpul::proto::payment::v1::{
    CancelPaymentRequest, CaptureMode, CapturePaymentRequest, GetPaymentRequest, Payment,
    PaymentStatus, ProcessPaymentRequest, RefundPaymentRequest, WatchPaymentRequest,
};
use simpul::proto::sandbox::v1::sandbox_service_client::SandboxServiceClient;
use simpul::proto::sandbox::v1::{ActionDecision, CompleteActionRequest};
use simpul::proto::transaction::v1::transaction_service_client::TransactionServiceClient;
use simpul::proto::transaction::v1::{GetBalanceRequest, GetTransactionHistoryRequest};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::{LONG, Node, with_token};
use crate::talk::{Session, room};

/// A payment of Rp 50.000 to toko by a method of the sandbox.
pub fn to_toko(key: &str, method: &str) -> ProcessPaymentRequest {
    ProcessPaymentRequest {
        idempotency_key: key.to_owned(),
        payee: "toko".to_owned(),
        amount: Some(Money { currency: "IDR".to_owned(), minor_units: 5_000_000 }),
        payment_method: method.to_owned(),
        ..Default::default()
    }
}

pub async fn process(
    channel: &Channel,
    token: &str,
    request: ProcessPaymentRequest,
) -> Result<Payment, Status> {
    let mut client = PaymentServiceClient::new(channel.clone());
    let response = client.process_payment(with_token(request, token)).await?;
    Ok(response.into_inner().payment.expect("a payment"))
}

async fn settled(channel: &Channel, token: &str, id: &str) -> Payment {
    let mut client = PaymentServiceClient::new(channel.clone());
    let watch = WatchPaymentRequest { payment_id: id.to_owned(), until_settled: true };
    let mut stream =
        client.watch_payment(with_token(watch, token)).await.expect("a stream").into_inner();
    let mut last = None;
    let all = async {
        while let Some(response) = stream.message().await.expect("no error") {
            last = response.payment;
        }
    };
    tokio::time::timeout(LONG, all).await.expect("it settles");
    last.expect("at least one state")
}

async fn posted(channel: &Channel, token: &str) -> i64 {
    let mut client = TransactionServiceClient::new(channel.clone());
    let request = with_token(GetBalanceRequest::default(), token);
    let balances = client.get_balance(request).await.expect("balances").into_inner().balances;
    balances.iter().filter_map(|balance| balance.posted.as_ref()).map(|m| m.minor_units).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sandbox_method_tells_its_own_story() {
    let node = Node::start();
    let (alice, toko) = (node.token("alice", &[]), node.token("toko", &[]));
    let channel = node.channel().await;
    let pay = async |key: &str, method: &str| {
        process(&channel, &alice, to_toko(key, method)).await.expect("a payment")
    };
    assert_eq!(pay("ok", "sandbox_ok:1").await.status(), PaymentStatus::Succeeded);
    assert_eq!(posted(&channel, &toko).await, 5_000_000);

    for (method, code) in
        [("sandbox_declined", "declined"), ("sandbox_insufficient_funds", "insufficient_funds")]
    {
        let declined = pay(method, method).await;
        assert_eq!(declined.status(), PaymentStatus::Failed);
        assert_eq!(declined.failure.expect("a reason").code, code);
    }

    let pending = pay("pending", "sandbox_pending").await;
    let pending = settled(&channel, &alice, &pending.payment_id).await;
    assert_eq!(pending.status(), PaymentStatus::Succeeded);

    let lost = pay("lost", "sandbox_lost_reply").await;
    let lost = settled(&channel, &alice, &lost.payment_id).await;
    assert_eq!((lost.status(), lost.outcome_unknown), (PaymentStatus::Succeeded, false));

    for (decision, status) in [
        (ActionDecision::Approve, PaymentStatus::Succeeded),
        (ActionDecision::Decline, PaymentStatus::Failed),
    ] {
        let asked = pay(&format!("act{}", decision as i32), "sandbox_requires_action").await;
        assert_eq!(asked.status(), PaymentStatus::RequiresAction);
        assert!(asked.next_action.is_some());
        let act = CompleteActionRequest {
            payment_id: asked.payment_id.clone(),
            decision: decision.into(),
        };
        let mut sandbox = SandboxServiceClient::new(channel.clone());
        let stranger = sandbox.complete_action(with_token(act.clone(), &toko)).await;
        assert!(stranger.is_err(), "only the payer acts");
        sandbox.complete_action(with_token(act, &alice)).await.expect("acted");
        assert_eq!(settled(&channel, &alice, &asked.payment_id).await.status(), status);
    }
    assert_eq!(posted(&channel, &toko).await, 4 * 5_000_000);
    assert_eq!(posted(&channel, &alice).await, 0);

    // Never reached: the truth so far when the caller's time is over.
    let mut request = with_token(to_toko("unreachable", "sandbox_unreachable"), &alice);
    request.set_timeout(Duration::from_millis(900));
    let mut client = PaymentServiceClient::new(channel.clone());
    let so_far = client.process_payment(request).await.expect("a state, not an error");
    let so_far = so_far.into_inner().payment.expect("a payment");
    assert_eq!(so_far.status(), PaymentStatus::Created);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_pays_once_however_often_and_from_where_it_comes() {
    let node = Node::start();
    let (alice, toko) = (node.token("alice", &[]), node.token("toko", &[]));
    let channel = node.channel().await;
    let calls = (0..20).map(|_| process(&channel, &alice, to_toko("one", "sandbox_ok")));
    let mut ids = Vec::new();
    for payment in futures_util::future::join_all(calls).await {
        ids.push(payment.expect("the payment").payment_id);
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    assert_eq!(posted(&channel, &toko).await, 5_000_000);

    let other =
        ProcessPaymentRequest { description: "else".into(), ..to_toko("one", "sandbox_ok") };
    let refused = process(&channel, &alice, other).await.expect_err("another body");
    assert_eq!(refused.code(), Code::AlreadyExists);
    let info = refused.get_details_error_info().expect("a reason");
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("KEY_REUSED", "simpul"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn captures_cancels_and_refunds_move_what_they_say() {
    let node = Node::start();
    let (alice, toko, eve) =
        (node.token("alice", &[]), node.token("toko", &[]), node.token("eve", &[]));
    let channel = node.channel().await;
    let mut client = PaymentServiceClient::new(channel.clone());
    let manual = |key: &str| ProcessPaymentRequest {
        capture: CaptureMode::Manual.into(),
        ..to_toko(key, "sandbox_ok")
    };

    let held = process(&channel, &alice, manual("hold")).await.expect("a payment");
    assert_eq!(held.status(), PaymentStatus::Authorized);
    assert_eq!(posted(&channel, &toko).await, 0);
    let capture = CapturePaymentRequest {
        payment_id: held.payment_id.clone(),
        idempotency_key: "cap".to_owned(),
        minor_units: 3_000_000,
    };
    for (who, code) in [(&alice, Code::NotFound), (&eve, Code::NotFound)] {
        let refused = client.capture_payment(with_token(capture.clone(), who)).await;
        let got = refused.expect_err("not the payee").code();
        assert!(got == code || got == Code::PermissionDenied, "{got:?}");
    }
    let captured = client.capture_payment(with_token(capture.clone(), &toko)).await;
    let captured = captured.expect("captured").into_inner().payment.expect("a payment");
    assert_eq!(captured.status(), PaymentStatus::Succeeded);
    assert_eq!(captured.captured_minor_units, 3_000_000);
    client.capture_payment(with_token(capture, &toko)).await.expect("the same again");
    assert_eq!(posted(&channel, &toko).await, 3_000_000);

    for (key, amount, status, left) in [
        ("r1", 1_000_000, PaymentStatus::PartiallyRefunded, 2_000_000),
        ("r2", 0, PaymentStatus::Refunded, 0),
    ] {
        let refund = RefundPaymentRequest {
            payment_id: held.payment_id.clone(),
            idempotency_key: key.to_owned(),
            minor_units: amount,
        };
        let refunded = client.refund_payment(with_token(refund, &toko)).await.expect("refunded");
        assert_eq!(refunded.into_inner().payment.expect("a payment").status(), status);
        assert_eq!(posted(&channel, &toko).await, left);
    }

    let held = process(&channel, &alice, manual("hold2")).await.expect("a payment");
    let cancel = CancelPaymentRequest {
        payment_id: held.payment_id.clone(),
        idempotency_key: "c".to_owned(),
    };
    client.cancel_payment(with_token(cancel.clone(), &alice)).await.expect_err("authorized");
    let canceled = client.cancel_payment(with_token(cancel, &toko)).await.expect("canceled");
    let canceled = canceled.into_inner().payment.expect("a payment");
    assert_eq!(canceled.status(), PaymentStatus::Canceled);

    let get = GetPaymentRequest { payment_id: held.payment_id };
    let refused = client.get_payment(with_token(get, &eve)).await.expect_err("not hers");
    assert_eq!(refused.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_violated_field_is_named_at_once() {
    let node = Node::start();
    let alice = node.token("alice", &[]);
    let channel = node.channel().await;
    let bad = ProcessPaymentRequest {
        idempotency_key: "spaces are not allowed".to_owned(),
        payee: "alice".to_owned(),
        amount: Some(Money { currency: "idr".to_owned(), minor_units: 0 }),
        payment_method: "4111111111111111".to_owned(),
        description: "pay with 4111-1111-1111-1111".to_owned(),
        room_id: "NOT A ROOM".to_owned(),
        ..Default::default()
    };
    let refused = process(&channel, &alice, bad).await.expect_err("nothing in it is right");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let details = refused.get_details_bad_request().expect("BadRequest");
    let fields: Vec<_> = details.field_violations.iter().map(|v| v.field.as_str()).collect();
    for field in
        ["idempotency_key", "payee", "amount.currency", "payment_method", "description", "room_id"]
    {
        assert!(fields.contains(&field), "{field} is missing in {fields:?}");
    }
    assert!(!format!("{refused:?}").contains("4111"), "the error shows the card number");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_is_posted_once_to_the_room_that_the_payment_names() {
    let node = Node::start();
    let (alice, eve) = (node.token("alice", &[]), node.token("eve", &[]));
    let channel = node.channel().await;
    room(channel.clone(), &alice, "shop", &["toko"]).await;
    let mut session = Session::join(channel.clone(), &alice, "shop", From::Latest(true)).await;
    let pay = ProcessPaymentRequest { room_id: "shop".into(), ..to_toko("room", "sandbox_ok") };
    let payment = process(&channel, &alice, pay.clone()).await.expect("a payment");
    let message = session.message().await;
    assert_eq!(message.kind(), MessageKind::Payment);
    let Some(Event::Payment(receipt)) = message.event else { panic!("no receipt") };
    assert_eq!(receipt.payment_id, payment.payment_id);
    assert_eq!(
        (receipt.status.as_str(), receipt.payer.as_str()),
        ("SUCCEEDED", "user/alice@dev.simpul")
    );
    process(&channel, &alice, pay.clone()).await.expect("the same payment");
    session.send("shop", "after", "done").await;
    assert_eq!(session.message().await.seq, message.seq + 1, "a second receipt");

    process(&channel, &eve, pay).await.expect_err("eve is not a member");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_goes_on_live_without_gap_or_double() {
    const BEFORE: usize = 10;
    const AFTER: usize = 30;
    let node = Node::start();
    let (alice, toko, eve) =
        (node.token("alice", &[]), node.token("toko", &[]), node.token("eve", &[]));
    let auditor = node.token("ana", &["auditor"]);
    let channel = node.channel().await;
    for n in 0..BEFORE {
        process(&channel, &alice, to_toko(&format!("b{n}"), "sandbox_ok")).await.expect("paid");
    }
    let follow = |token: &str, account: &str| {
        let request = GetTransactionHistoryRequest {
            account: account.to_owned(),
            follow: true,
            ..Default::default()
        };
        let mut client = TransactionServiceClient::new(channel.clone());
        let request = with_token(request, token);
        async move { client.get_transaction_history(request).await }
    };
    let refused = follow(&eve, "toko").await.expect_err("not hers");
    assert_eq!(refused.code(), Code::NotFound);
    let mut streams = [
        follow(&toko, "").await.expect("a stream").into_inner(),
        follow(&auditor, "toko").await.expect("a stream").into_inner(),
    ];
    let paying = async {
        for n in 0..AFTER {
            process(&channel, &alice, to_toko(&format!("a{n}"), "sandbox_ok")).await.expect("paid");
        }
    };
    let [own, audit] = &mut streams;
    let read = async |stream: &mut tonic::Streaming<_>| {
        let mut balance = 0;
        for position in 1..=(BEFORE + AFTER) as u64 {
            let response: simpul::proto::transaction::v1::GetTransactionHistoryResponse =
                tokio::time::timeout(LONG, stream.message())
                    .await
                    .expect("in time")
                    .expect("no error")
                    .expect("the stream goes on");
            let transaction = response.transaction.expect("a transaction");
            assert_eq!(transaction.position, position);
            balance += transaction.amount.expect("an amount").minor_units;
            assert_eq!(transaction.balance_after_minor_units, balance);
            assert_eq!(transaction.counterparty, "user/alice@dev.simpul");
        }
    };
    tokio::join!(paying, read(own), read(audit));
}
