//! What is left when the process ends between two steps.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::kit::{Kit, as_user, config, sandbox, wanted};
use crate::payment::provider::sandbox::Sandbox;
use crate::payment::provider::{PaymentProvider, ProviderAnswer, ProviderQuery, ProviderRequest};
use crate::proto::payment::v1::PaymentStatus;
use crate::proto::payment::v1::payment_service_server::PaymentService;
use crate::store::payment::PaymentStore;

/// Where a call to the provider stops.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Stuck {
    /// Before anything arrives.
    Before,
    /// After everything is booked.
    After,
}

/// The sandbox behind a line that goes dead.
#[derive(Debug)]
pub(super) struct DeadLine {
    pub(super) sandbox: Sandbox,
    pub(super) stuck: Stuck,
    pub(super) reached: Arc<Semaphore>,
}

#[async_trait]
impl PaymentProvider for DeadLine {
    fn name(&self) -> &'static str {
        self.sandbox.name()
    }

    fn check_method(&self, method: &str) -> Result<(), &'static str> {
        self.sandbox.check_method(method)
    }

    async fn submit(&self, request: &ProviderRequest) -> ProviderAnswer {
        if self.stuck == Stuck::After {
            self.sandbox.submit(request).await;
        }
        self.reached.add_permits(1);
        std::future::pending().await
    }

    async fn query(&self, query: &ProviderQuery) -> ProviderAnswer {
        self.sandbox.query(query).await
    }
}

async fn kill_while_sending(stuck: Stuck) {
    let dir = Arc::new(tempfile::tempdir().expect("a directory"));
    let reached = Arc::new(Semaphore::new(0));
    let line = DeadLine { sandbox: sandbox(dir.path()).await, stuck, reached: reached.clone() };
    let kit = Kit::with(dir, config(), Arc::new(line)).await;
    let handler = kit.handler();
    let call = crate::task::spawn("a caller", async move {
        let answered = handler.process_payment(as_user("alice", wanted("a", "sandbox_ok"))).await;
        answered.expect("the state so far").into_inner().payment.expect("is given")
    });
    let _ = reached.acquire().await.expect("the call was made");
    let dir = kit.crash().await;
    // The stop lets the caller have the truth: recorded, nothing proven.
    let payment = call.await.expect("the call ends");
    assert_eq!(payment.status(), PaymentStatus::Created);

    let provider = Arc::new(sandbox(dir.path()).await);
    let kit = Kit::with(dir, config(), provider).await;
    kit.until(&payment.payment_id, PaymentStatus::Succeeded).await;
    let replay = kit.pay(wanted("a", "sandbox_ok")).await;
    assert_eq!(replay.payment_id, payment.payment_id);
    let books = kit.sandbox.books().await.expect("books");
    assert_eq!((books.charges.len(), books.charges[0].received), (1, 1), "{stuck:?}");
    kit.balanced().await;
    assert_eq!(kit.store.next_due().await.expect("the outbox"), None);
}

#[tokio::test]
async fn a_crash_before_the_provider_has_it_sends_it_once_more() {
    kill_while_sending(Stuck::Before).await;
}

#[tokio::test]
async fn a_crash_after_the_provider_has_it_does_not_send_it_again() {
    kill_while_sending(Stuck::After).await;
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_unknown_and_asked_for() {
    let dir = Arc::new(tempfile::tempdir().expect("a directory"));
    let line = DeadLine {
        sandbox: sandbox(dir.path()).await,
        stuck: Stuck::After,
        reached: Arc::new(Semaphore::new(0)),
    };
    let config =
        crate::config::schema::Payment { provider_timeout: Duration::from_millis(200), ..config() };
    let kit = Kit::with(dir, config, Arc::new(line)).await;
    let mut request = as_user("alice", wanted("a", "sandbox_ok"));
    request.metadata_mut().insert("grpc-timeout", "10S".parse().expect("a header"));
    let payment = kit.handler().process_payment(request).await.expect("it ends").into_inner();
    assert_eq!(payment.payment.expect("is given").status(), PaymentStatus::Succeeded);
    assert_eq!(kit.sandbox.books().await.expect("books").charges.len(), 1);
    kit.balanced().await;
}

/// The sandbox behind a gate that opens when it is told to.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) sandbox: Sandbox,
    pub(super) sent: Semaphore,
    pub(super) open: Semaphore,
}

#[async_trait]
impl PaymentProvider for Gate {
    fn name(&self) -> &'static str {
        self.sandbox.name()
    }

    fn check_method(&self, method: &str) -> Result<(), &'static str> {
        self.sandbox.check_method(method)
    }

    async fn submit(&self, request: &ProviderRequest) -> ProviderAnswer {
        self.sent.add_permits(1);
        let _pass = self.open.acquire().await.expect("never closed");
        self.sandbox.submit(request).await
    }

    async fn query(&self, query: &ProviderQuery) -> ProviderAnswer {
        self.sandbox.query(query).await
    }
}

#[tokio::test]
async fn a_stop_begins_nothing_although_a_place_becomes_free() {
    let dir = Arc::new(tempfile::tempdir().expect("a directory"));
    let sandbox = sandbox(dir.path()).await;
    let gate = Arc::new(Gate { sandbox, sent: Semaphore::new(0), open: Semaphore::new(0) });
    let config = crate::config::schema::Payment { workers: 1, ..config() };
    let kit = Kit::with(dir, config, gate.clone()).await;
    let mut calls = Vec::new();
    for (key, depth) in [("first", 1), ("second", 2)] {
        let handler = kit.handler();
        calls.push(crate::task::spawn("a caller", async move {
            handler.process_payment(as_user("alice", wanted(key, "sandbox_ok"))).await
        }));
        while kit.store.backlog(0).await.expect("the outbox").depth < depth {}
    }
    gate.sent.acquire().await.expect("the first is being sent").forget();
    // Time enough for the worker to come to wait for a place.
    for _ in 0..50 {
        kit.store.next_due().await.expect("the outbox");
    }
    let (clean, ()) =
        tokio::join!(kit.drain.drain(Duration::from_secs(10)), async { gate.open.add_permits(1) });
    assert!(clean, "the worker did not end by itself");
    assert_eq!(gate.sent.available_permits(), 0, "the second was sent after the stop");
    for call in calls {
        call.await.expect("no panic").expect("every caller gets its payment");
    }
}

#[tokio::test]
async fn a_stop_lets_what_is_being_sent_end() {
    let kit = Kit::new().await;
    let handler = kit.handler();
    let calls: Vec<_> = (0..8)
        .map(|n| {
            let handler = handler.clone();
            crate::task::spawn("a caller", async move {
                let wanted = wanted(&format!("k{n}"), "sandbox_ok");
                handler.process_payment(as_user("alice", wanted)).await
            })
        })
        .collect();
    tokio::task::yield_now().await;
    assert!(kit.drain.drain(Duration::from_secs(10)).await, "the worker did not end by itself");
    for call in calls {
        call.await.expect("no panic").expect("every caller gets its payment");
    }
    // Whatever was not sent is still to be done; nothing is half done.
    let now = crate::clock::micros(std::time::SystemTime::now());
    assert_eq!(kit.store.recover(now, None).await.expect("recovers"), 0);
    kit.balanced().await;
}
