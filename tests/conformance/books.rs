//! The sandbox provider's books: what they promise wherever they stand. Each
//! opening is another node, with a connection of its own.

use std::sync::Arc;

use simpul::id;
use simpul::money::Money;
use simpul::payment::provider::sandbox::Sandbox;
use simpul::payment::provider::{PaymentProvider, ProviderAnswer, ProviderQuery, ProviderRequest};
use simpul::store::payment::{CaptureMode, OperationKind};
use simpul::task;

use crate::server::Postgres;

/// In a file, as nodes that share a file have them.
pub(crate) struct FileBooks(tempfile::TempDir);

impl FileBooks {
    pub(crate) fn new() -> Option<Self> {
        Some(Self(tempfile::tempdir().expect("a directory")))
    }

    pub(crate) async fn open(&self) -> Arc<Sandbox> {
        let opened = Sandbox::open(&self.0.path().join("sandbox.db")).await;
        Arc::new(opened.expect("the books open"))
    }
}

/// In the database that nodes share.
pub(crate) struct PostgresBooks(Postgres);

impl PostgresBooks {
    pub(crate) fn new() -> Option<Self> {
        Postgres::new().map(Self)
    }

    pub(crate) async fn open(&self) -> Arc<Sandbox> {
        let store = self.0.open().await;
        Arc::new(Sandbox::open_shared(&store).await.expect("the books open"))
    }
}

fn request(kind: OperationKind, key: &str, charge: &str, minor_units: i64) -> ProviderRequest {
    ProviderRequest {
        payment_id: id::fresh(),
        kind,
        provider_key: key.to_owned(),
        charge_key: charge.to_owned(),
        amount: Money { currency: "IDR".parse().expect("a currency"), minor_units },
        capture: CaptureMode::Automatic,
        method: None,
    }
}

fn charge(key: &str, token: &str) -> ProviderRequest {
    let method = Some(token.to_owned().into());
    ProviderRequest { method, ..request(OperationKind::Charge, key, key, 1_000) }
}

fn question(kind: OperationKind, key: &str) -> ProviderQuery {
    ProviderQuery { kind, provider_key: key.to_owned() }
}

pub(crate) async fn a_request_that_comes_again_is_booked_once(
    open: impl AsyncFn() -> Arc<Sandbox>,
) {
    let books = open().await;
    for _ in 0..3 {
        assert_eq!(books.submit(&charge("c", "sandbox_ok")).await, ProviderAnswer::Succeeded);
    }
    let refund = request(OperationKind::Refund, "r", "c", 400);
    for _ in 0..2 {
        assert_eq!(books.submit(&refund).await, ProviderAnswer::Succeeded);
    }
    let lost = charge("l", "sandbox_lost_reply");
    assert_eq!(books.submit(&lost).await, ProviderAnswer::Unknown);
    let asked = books.query(&question(OperationKind::Charge, "l")).await;
    assert_eq!(asked, ProviderAnswer::Succeeded, "it was booked all the same");
    let seen = books.books().await.expect("books");
    assert_eq!((seen.charges.len(), seen.charges[0].received, seen.received), (2, 3, 2));
    assert_eq!((seen.refunds, seen.net["IDR"]), (1, 1_600));
}

pub(crate) async fn what_one_node_charged_another_finds_and_gives_back_once(
    open: impl AsyncFn() -> Arc<Sandbox>,
) {
    let first = open().await;
    assert_eq!(first.submit(&charge("c", "sandbox_ok")).await, ProviderAnswer::Succeeded);
    first.close().await;
    assert_eq!(first.submit(&charge("d", "sandbox_ok")).await, ProviderAnswer::Unknown, "closed");
    let (second, third) = (open().await, open().await);
    let found = second.query(&question(OperationKind::Charge, "c")).await;
    assert_eq!(found, ProviderAnswer::Succeeded);
    // Two refunds of everything, at once, through two nodes: one is refused.
    let (a, b) = (
        request(OperationKind::Refund, "a", "c", 1_000),
        request(OperationKind::Refund, "b", "c", 1_000),
    );
    let (a, b) = tokio::join!(second.submit(&a), third.submit(&b));
    let done = [&a, &b].iter().filter(|answer| ***answer == ProviderAnswer::Succeeded).count();
    assert_eq!(done, 1, "{a:?} {b:?}");
    let seen = second.books().await.expect("books");
    assert_eq!((seen.refunds, seen.net["IDR"]), (1, 0));
}

pub(crate) async fn nodes_that_charge_at_once_lose_and_double_nothing(
    open: impl AsyncFn() -> Arc<Sandbox>,
) {
    const CHARGES: usize = 40;
    let nodes = [open().await, open().await, open().await];
    let mut calls = Vec::new();
    for n in 0..CHARGES {
        for node in &nodes {
            let node = node.clone();
            calls.push(task::spawn("charges", async move {
                node.submit(&charge(&format!("c{n}"), "sandbox_ok")).await
            }));
        }
    }
    for call in calls {
        assert_eq!(call.await.expect("no panic"), ProviderAnswer::Succeeded);
    }
    let seen = nodes[0].books().await.expect("books");
    assert_eq!(seen.charges.len(), CHARGES);
    assert!(seen.charges.iter().all(|charge| charge.received == 3 && charge.captured == 1_000));
    assert_eq!(nodes[2].books().await.expect("books"), seen);
}

pub(crate) async fn what_was_never_sent_is_proven_absent(open: impl AsyncFn() -> Arc<Sandbox>) {
    let books = open().await;
    let sent = books.submit(&charge("u", "sandbox_unreachable")).await;
    assert_eq!(sent, ProviderAnswer::NotSent);
    let asked = books.query(&question(OperationKind::Charge, "u")).await;
    assert_eq!(asked, ProviderAnswer::NotFound);
    let asked = books.query(&question(OperationKind::Refund, "u")).await;
    assert_eq!(asked, ProviderAnswer::NotFound);
    let refused = books.submit(&request(OperationKind::Refund, "r", "u", 1)).await;
    assert!(matches!(refused, ProviderAnswer::Declined { .. }), "{refused:?}");
}

pub(crate) async fn what_the_payer_did_at_one_node_is_known_at_the_other(
    open: impl AsyncFn() -> Arc<Sandbox>,
) {
    let (first, second) = (open().await, open().await);
    let waiting = first.submit(&charge("c", "sandbox_requires_action")).await;
    assert!(matches!(waiting, ProviderAnswer::RequiresAction(_)), "{waiting:?}");
    assert!(second.complete_action("c", true).await.expect("booked"));
    assert!(!first.complete_action("c", false).await.expect("booked"), "once");
    let asked = first.query(&question(OperationKind::Charge, "c")).await;
    assert_eq!(asked, ProviderAnswer::Succeeded);
}
