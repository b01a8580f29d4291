//! Several nodes on one store: what a dead one was doing is done by another,
//! and nothing twice.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::Semaphore;

use super::crashes::{DeadLine, Gate, Stuck};
use super::kit::{Kit, as_user, config, sandbox, wanted};
use crate::config::schema;
use crate::proto::payment::v1::{
    self as pb, PaymentStatus, payment_service_server::PaymentService,
};

/// A node, which may have joined again as another incarnation, that was sending a charge when it was stopped dead, another on the
/// same store, the payment's id and the dead one's incarnation.
async fn one_dies_while_sending(
    stuck: Stuck,
    config: schema::Payment,
    joined_again: Option<&str>,
) -> (Kit, String, String) {
    let dir = Arc::new(tempfile::tempdir().expect("a directory"));
    let reached = Arc::new(Semaphore::new(0));
    let line = DeadLine { sandbox: sandbox(dir.path()).await, stuck, reached: reached.clone() };
    let dying = Kit::node(dir.clone(), config.clone(), Arc::new(line)).await;
    let incarnation = joined_again.unwrap_or(&dying.incarnation).to_owned();
    dying.payments.runs_as(&incarnation);
    let handler = dying.handler();
    let call = crate::task::spawn("a caller", async move {
        let answered = handler.process_payment(as_user("alice", wanted("a", "sandbox_ok"))).await;
        answered.expect("the state so far").into_inner().payment.expect("is given")
    });
    let _ = reached.acquire().await.expect("the call was made");
    let other = Kit::node(dir.clone(), config, Arc::new(sandbox(dir.path()).await)).await;
    dying.crash().await;
    let payment = call.await.expect("the call ends");
    (other, payment.payment_id, incarnation)
}

async fn charged_once(kit: &Kit, id: &str) {
    kit.until(id, PaymentStatus::Succeeded).await;
    let replay = kit.pay(wanted("a", "sandbox_ok")).await;
    assert_eq!(replay.payment_id, id);
    let books = kit.sandbox.books().await.expect("books");
    assert_eq!((books.charges.len(), books.charges[0].received), (1, 1));
    kit.balanced().await;
}

async fn declared_dead(stuck: Stuck) {
    let (kit, id, incarnation) = one_dies_while_sending(stuck, config(), None).await;
    assert_eq!(kit.payments.recover_of("somebody else").await.expect("recovers"), 0);
    assert_eq!(kit.get(&id).await.status(), PaymentStatus::Created);
    assert_eq!(kit.payments.recover_of(&incarnation).await.expect("recovers"), 1);
    charged_once(&kit, &id).await;
    assert_eq!(kit.payments.recover_of(&incarnation).await.expect("recovers"), 0);
}

#[tokio::test]
async fn what_a_dead_node_had_sent_is_asked_about_by_another() {
    declared_dead(Stuck::After).await;
}

#[tokio::test]
async fn what_a_dead_node_had_not_sent_is_sent_by_another() {
    declared_dead(Stuck::Before).await;
}

#[tokio::test]
async fn what_a_node_that_joined_again_had_sent_is_found_by_its_new_name() {
    let again = Some("the second incarnation");
    let (kit, id, incarnation) = one_dies_while_sending(Stuck::After, config(), again).await;
    assert_eq!(kit.payments.recover_of(&incarnation).await.expect("recovers"), 1);
    charged_once(&kit, &id).await;
}

/// Nobody declares anything: the lease runs out.
#[tokio::test]
async fn a_lease_that_runs_out_leads_to_the_question() {
    let config = schema::Payment {
        lease: Duration::from_millis(500),
        provider_timeout: Duration::from_millis(250),
        ..config()
    };
    for stuck in [Stuck::After, Stuck::Before] {
        let (kit, id, _) = one_dies_while_sending(stuck, config.clone(), None).await;
        charged_once(&kit, &id).await;
    }
}

#[tokio::test]
async fn one_key_at_two_nodes_at_once_is_one_payment() {
    let dir = Arc::new(tempfile::tempdir().expect("a directory"));
    let provider = Arc::new(sandbox(dir.path()).await);
    let one = Kit::node(dir.clone(), config(), provider.clone()).await;
    let other = Kit::node(dir.clone(), config(), provider).await;
    for n in 0..10 {
        let request = || wanted(&format!("k{n}"), "sandbox_ok");
        let (a, b) = tokio::join!(one.pay(request()), other.pay(request()));
        assert_eq!(a.payment_id, b.payment_id);
        assert_eq!((a.status(), b.status()), (PaymentStatus::Succeeded, PaymentStatus::Succeeded));
    }
    let books = one.sandbox.books().await.expect("books");
    assert_eq!(books.charges.len(), 10);
    assert!(books.charges.iter().all(|charge| charge.received == 1));
    one.balanced().await;
}

/// Whoever waits at one node for what another one does is woken by the word of
/// it, long before it would look by itself.
#[tokio::test]
async fn who_waits_at_another_node_is_woken() {
    let dir = Arc::new(tempfile::tempdir().expect("a directory"));
    let gate = Arc::new(Gate {
        sandbox: sandbox(dir.path()).await,
        sent: Semaphore::new(0),
        open: Semaphore::new(0),
    });
    let works = Kit::node(dir.clone(), config(), gate.clone()).await;
    let handler = works.handler();
    let call = crate::task::spawn("a caller", async move {
        let answered = handler.process_payment(as_user("alice", wanted("a", "sandbox_ok"))).await;
        answered.expect("a payment").into_inner().payment.expect("is given")
    });
    gate.sent.acquire().await.expect("it is being sent").forget();
    let waits = Kit::node(dir.clone(), config(), gate.clone()).await;
    let listed = pb::ListPaymentsRequest::default();
    let listed = waits.handler().list_payments(as_user("alice", listed)).await.expect("a list");
    let payment_id = listed.into_inner().payments.remove(0).payment_id;
    let request = pb::WatchPaymentRequest { payment_id: payment_id.clone(), until_settled: true };
    let watched = waits.handler().watch_payment(as_user("alice", request)).await;
    let mut watched = watched.expect("a stream").into_inner();
    let first = watched.next().await.expect("the state").expect("no refusal");
    assert_eq!(first.payment.expect("is given").status(), PaymentStatus::Created);
    let next = crate::task::spawn("watches", async move { watched.next().await });
    gate.open.add_permits(1);
    assert_eq!(call.await.expect("no panic").status(), PaymentStatus::Succeeded);
    // The word that the links carry: the payment and its accounts.
    let word = works.touched.0.lock().unwrap().clone();
    assert!(word.contains(&payment_id) && word.contains("user/toko@dev.simpul"), "{word:?}");
    let told = std::time::Instant::now();
    waits.payments.touched(payment_id.parse().expect("an id"));
    let next = next.await.expect("no panic").expect("the end").expect("no refusal");
    assert_eq!(next.payment.expect("is given").status(), PaymentStatus::Succeeded);
    assert!(told.elapsed() < Duration::from_secs(1), "it looked by itself");
}
