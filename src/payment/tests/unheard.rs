//! Replies that are lost, and what was never said: what is asked about, what is
//! given up without asking.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::kit::{Kit, as_user, config, manual, reason, sandbox, wanted};
use crate::payment::provider::{PaymentProvider, ProviderAnswer, ProviderQuery, ProviderRequest};
use crate::proto::payment::v1 as pb;
use crate::proto::payment::v1::PaymentStatus;
use crate::proto::payment::v1::payment_service_server::PaymentService;

/// How often requests arrived: charges, then captures, cancellations and
/// refunds together.
async fn arrived(kit: &Kit) -> (i64, u64) {
    let books = kit.sandbox.books().await.expect("books");
    (books.charges.iter().map(|charge| charge.received).sum(), books.received)
}

#[tokio::test]
async fn a_refund_whose_reply_was_lost_is_asked_about_by_its_own_key_and_never_sent_anew() {
    let kit = Kit::new().await;
    let payment = kit.pay(wanted("a", "sandbox_lost_reply")).await;
    for (key, amount, status, refunded) in [
        ("r1", 20_000, PaymentStatus::PartiallyRefunded, 20_000),
        ("r2", 0, PaymentStatus::Refunded, 50_000),
    ] {
        let after = kit.refund(&payment.payment_id, key, amount).await.expect("a refund");
        assert_eq!((after.status(), after.refunded_minor_units), (status, refunded));
        assert!(!after.outcome_unknown);
    }
    let books = kit.sandbox.books().await.expect("books");
    assert_eq!((books.refunds, books.charges[0].refunded), (2, 50_000));
    assert_eq!(arrived(&kit).await, (1, 2), "something was sent twice");
    kit.balanced().await;
}

#[tokio::test]
async fn captures_and_cancellations_whose_replies_were_lost_are_done_once() {
    let kit = Kit::new().await;
    let payment = kit.pay(manual("a", "sandbox_lost_reply:1")).await;
    assert_eq!(payment.status(), PaymentStatus::Authorized);
    let captured = kit.capture(&payment.payment_id, "c", 30_000).await.expect("a capture");
    assert_eq!(captured.status(), PaymentStatus::Succeeded);
    let other = kit.pay(manual("b", "sandbox_lost_reply:2")).await;
    let canceled = kit.cancel("toko", &other.payment_id, "x").await.expect("a cancellation");
    assert_eq!(canceled.status(), PaymentStatus::Canceled);
    assert_eq!(arrived(&kit).await, (2, 2), "something was sent twice");
    kit.balanced().await;
}

#[tokio::test]
async fn what_was_never_sent_is_given_up_at_once_and_stays_so() {
    let kit = Kit::new().await;
    let mut request = as_user("alice", wanted("a", "sandbox_unreachable"));
    request.metadata_mut().insert("grpc-timeout", "300m".parse().expect("a header"));
    let payment = kit.handler().process_payment(request).await.expect("the state so far");
    let id = payment.into_inner().payment.expect("is given").payment_id;
    let denied = kit.cancel("toko", &id, "x").await.expect_err("the payer's");
    assert_eq!(reason(&denied), "NOT_ALLOWED");
    let canceled = kit.cancel("alice", &id, "x").await.expect("a cancellation");
    assert_eq!((canceled.status(), canceled.failure), (PaymentStatus::Canceled, None));
    let again = kit.cancel("alice", &id, "x").await.expect("the same key");
    assert_eq!(again.status(), PaymentStatus::Canceled);
    let other = kit.cancel("alice", &id, "y").await.expect_err("it has ended");
    assert_eq!(reason(&other), "PAYMENT_STATE");
    // The charge's own key answers with what became of the payment.
    let replay = kit.pay(wanted("a", "sandbox_unreachable")).await;
    assert_eq!((replay.status(), replay.payment_id), (PaymentStatus::Canceled, id));
    assert_eq!(arrived(&kit).await, (0, 0));
    kit.balanced().await;
}

/// A provider that never answers.
#[derive(Debug)]
struct Silent(Arc<tokio::sync::Semaphore>);

#[async_trait::async_trait]
impl PaymentProvider for Silent {
    fn name(&self) -> &'static str {
        "sandbox"
    }

    fn check_method(&self, _: &str) -> Result<(), &'static str> {
        Ok(())
    }

    async fn submit(&self, _: &ProviderRequest) -> ProviderAnswer {
        self.0.add_permits(1);
        std::future::pending().await
    }

    async fn query(&self, _: &ProviderQuery) -> ProviderAnswer {
        self.0.add_permits(1);
        ProviderAnswer::Unknown
    }
}

#[tokio::test]
async fn what_may_have_arrived_is_not_given_up() {
    let dir = Arc::new(tempfile::tempdir().expect("a directory"));
    sandbox(dir.path()).await;
    let reached = Arc::new(tokio::sync::Semaphore::new(0));
    let timeout = Duration::from_millis(500);
    let config = crate::config::schema::Payment { provider_timeout: timeout, ..config() };
    let kit = Kit::with(dir, config, Arc::new(Silent(reached.clone()))).await;
    let handler = kit.handler();
    let paying = crate::task::spawn("a caller", async move {
        handler.process_payment(as_user("alice", wanted("a", "sandbox_ok"))).await
    });
    let _ = reached.acquire().await.expect("it is being sent");
    let listed = pb::ListPaymentsRequest::default();
    let listed = kit.handler().list_payments(as_user("alice", listed)).await.expect("a page");
    let id = listed.into_inner().payments.remove(0).payment_id;
    let sending = kit.cancel("alice", &id, "x").await.expect_err("it is being sent");
    assert_eq!(reason(&sending), "OPERATION_PENDING");
    paying.await.expect("no panic").expect("the state so far");
    let began = Instant::now();
    while !kit.get(&id).await.outcome_unknown {
        assert!(began.elapsed() < Duration::from_secs(20), "the outcome is never unknown");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let unknown = kit.cancel("alice", &id, "x").await.expect_err("nobody knows");
    assert_eq!(reason(&unknown), "OPERATION_PENDING");
}
