//! Payments where the caller, the worker and whoever follows are on different
//! nodes.

use std::path::Path;
use std::time::{Duration, Instant};

use simpul::payment::provider::sandbox::Sandbox;
use simpul::proto::money::v1::Money;
use simpul::proto::payment::v1::payment_service_client::PaymentServiceClient;
use simpul::proto::payment::v1::{Payment, PaymentStatus, ProcessPaymentRequest};
use simpul::proto::transaction::v1::transaction_service_client::TransactionServiceClient;
use simpul::proto::transaction::v1::{
    GetTransactionHistoryRequest, GetTransactionHistoryResponse, Transaction,
};
use simpul::store::LedgerStore as _;
use simpul::store::postgres::{PgSettings, PgStore};
use tonic::{Status, Streaming};

use crate::cluster::Cluster;
use crate::support::{LONG, Node, eventually, not_run, with_token};

const AMOUNT: i64 = 5_000_000;

/// A payment of Rp 50.000 to toko by a method of the sandbox.
pub fn to_toko(key: &str, method: &str) -> ProcessPaymentRequest {
    ProcessPaymentRequest {
        idempotency_key: key.to_owned(),
        payee: "toko".to_owned(),
        amount: Some(Money { currency: "IDR".to_owned(), minor_units: AMOUNT }),
        payment_method: method.to_owned(),
        ..Default::default()
    }
}

/// Pays through a node.
pub async fn pay(
    node: &Node,
    token: &str,
    request: ProcessPaymentRequest,
) -> Result<Payment, Status> {
    let mut client = PaymentServiceClient::new(node.channel().await);
    let mut call = with_token(request, token);
    // How long the caller waits for the outcome.
    call.set_timeout(LONG / 2);
    let answer = client.process_payment(call).await?;
    Ok(answer.into_inner().payment.expect("a payment"))
}

/// A history that is followed.
#[derive(Debug)]
pub struct Follower(Streaming<GetTransactionHistoryResponse>);

impl Follower {
    /// The caller's own, from its beginning.
    pub async fn start(node: &Node, token: &str) -> Self {
        let request = GetTransactionHistoryRequest { follow: true, ..Default::default() };
        let mut client = TransactionServiceClient::new(node.channel().await);
        let answer = client.get_transaction_history(with_token(request, token)).await;
        Self(answer.expect("a stream").into_inner())
    }

    /// The next posting.
    pub async fn next(&mut self) -> Transaction {
        let next = tokio::time::timeout(LONG, self.0.message()).await.expect("in time");
        next.expect("no error").expect("it goes on").transaction.expect("a transaction")
    }
}

/// The database's own word: so many charges, each taken in full and once, and a
/// ledger that balances.
async fn judge(cluster: &Cluster, charges: usize) {
    let settings = PgSettings {
        url: cluster.database.as_ref().expect("a database").url().into(),
        node: "judge".to_owned(),
        incarnation: uuid::Uuid::now_v7().to_string(),
        connections: 4,
        connect_timeout: Duration::from_secs(10),
        statement_timeout: Duration::from_secs(10),
    };
    let store = PgStore::open(settings).await.expect("the store");
    assert_eq!(store.audit().await.expect("an audit"), [""; 0]);
    let sandbox = Sandbox::open_shared(&store).await.expect("the sandbox's books");
    let books = sandbox.books().await.expect("books").charges;
    assert_eq!(books.len(), charges, "{books:?}");
    assert!(books.iter().all(|charge| charge.captured == AMOUNT), "{books:?}");
    sandbox.close().await;
    store.close().await;
}

/// Until a node stands at a point, where it is held.
async fn stands_at(faults: &Path, point: &str) {
    eventually(point, async || faults.join(point).exists().then_some(())).await;
}

fn without_faults(test: &str) -> bool {
    if !cfg!(feature = "fault") {
        not_run(&format!("{test}: it needs `--features fault`, as tests/run gives it"));
    }
    !cfg!(feature = "fault")
}

/// A history that nobody tells looks every five seconds by itself: five payments
/// one after the other would take more than twenty.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_posting_on_one_node_is_read_on_another_at_once() {
    let Some(cluster) = Cluster::start("a followed history", 2).await else { return };
    let (alice, toko) = (cluster.token("alice", &[]), cluster.token("toko", &[]));
    let mut history = Follower::start(&cluster.nodes[1], &toko).await;
    let mut waited = Duration::ZERO;
    for at in 1..=5 {
        let paid = pay(&cluster.nodes[0], &alice, to_toko(&format!("k{at}"), "sandbox_ok")).await;
        assert_eq!(paid.expect("paid").status(), PaymentStatus::Succeeded);
        let since = Instant::now();
        assert_eq!(history.next().await.position, at);
        waited += since.elapsed();
    }
    assert!(waited < Duration::from_secs(10), "{waited:?}");
    judge(&cluster, 5).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_on_two_nodes_at_once_is_one_payment() {
    let Some(cluster) = Cluster::start("one key on two nodes", 2).await else { return };
    let alice = cluster.token("alice", &[]);
    const KEYS: usize = 10;
    for key in 0..KEYS {
        let request = to_toko(&format!("k{key}"), "sandbox_ok");
        let (here, there) = tokio::join!(
            pay(&cluster.nodes[0], &alice, request.clone()),
            pay(&cluster.nodes[1], &alice, request.clone()),
        );
        let (here, there) = (here.expect("a payment"), there.expect("a payment"));
        assert_eq!(here.payment_id, there.payment_id);
        for seen in [here, there] {
            assert_eq!(seen.status(), PaymentStatus::Succeeded);
        }
    }
    judge(&cluster, KEYS).await;
    cluster.end().await;
}

/// The caller's own node has leased the operation and stands still: the other
/// one takes it up when the lease is over, and the caller hears of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_is_answered_when_another_node_has_done_it() {
    if without_faults("a payment driven by another node") {
        return;
    }
    let faults = tempfile::tempdir().expect("a directory");
    let path = faults.path().to_str().expect("UTF-8");
    let times = [("SIMPUL_PAYMENT__LEASE", "2s"), ("SIMPUL_PAYMENT__PROVIDER_TIMEOUT", "1s")];
    // With one place it cannot lease what it holds once more.
    let one = ("SIMPUL_PAYMENT__WORKERS", "1");
    let env = [times[0], times[1], one, ("SIMPUL_TEST_FAULT_DIR", path)];
    let Some(mut cluster) = Cluster::start_with("driven elsewhere", 1, &env).await else { return };
    cluster.add(&times);
    cluster.spread().await;
    let alice = cluster.token("alice", &[]);
    let hold = faults.path().join("payment.claimed.hold");
    std::fs::write(&hold, "").expect("a hold");
    let paid = pay(&cluster.nodes[0], &alice, to_toko("k", "sandbox_ok")).await.expect("answered");
    assert_eq!(paid.status(), PaymentStatus::Succeeded);
    assert!(faults.path().join("payment.claimed").exists(), "this node had it");
    assert!(!faults.path().join("payment.submitting").exists(), "another one sent it");
    std::fs::remove_file(&hold).expect("released");
    let again = pay(&cluster.nodes[0], &alice, to_toko("k", "sandbox_ok")).await.expect("answered");
    assert_eq!(again.payment_id, paid.payment_id);
    judge(&cluster, 1).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_node_was_charging_another_one_finishes() {
    if without_faults("a node killed in a charge") {
        return;
    }
    let faults = tempfile::tempdir().expect("a directory");
    let path = faults.path().to_str().expect("UTF-8");
    let env = [("SIMPUL_TEST_FAULT_DIR", path)];
    let Some(mut cluster) = Cluster::start_with("killed in a charge", 1, &env).await else {
        return;
    };
    cluster.add(&[]);
    cluster.spread().await;
    let (alice, toko) = (cluster.token("alice", &[]), cluster.token("toko", &[]));
    let mut history = Follower::start(&cluster.nodes[1], &toko).await;
    let points = ["payment.claimed", "payment.submitting", "payment.charged"];
    for (at, point) in points.into_iter().enumerate() {
        let hold = faults.path().join(format!("{point}.hold"));
        std::fs::write(&hold, "").expect("a hold");
        let request = to_toko(point, "sandbox_ok");
        let mut client = PaymentServiceClient::new(cluster.nodes[0].channel().await);
        let call = with_token(request.clone(), &alice);
        let paying =
            simpul::task::spawn("payer", async move { client.process_payment(call).await });
        stands_at(faults.path(), point).await;
        cluster.nodes[0].kill();
        paying.await.expect("no panic").expect_err("its node is gone");
        // The same key on the other node finds it, and the other node ends it.
        eventually("it is paid", async || {
            let paid = pay(&cluster.nodes[1], &alice, request.clone()).await.expect("answered");
            (paid.status() == PaymentStatus::Succeeded).then_some(())
        })
        .await;
        assert_eq!(history.next().await.position, at as u64 + 1, "{point}");
        std::fs::remove_file(&hold).expect("released");
        for point in points {
            let _ = std::fs::remove_file(faults.path().join(point));
        }
        cluster.nodes[0].restart();
        cluster.spread().await;
    }
    judge(&cluster, points.len()).await;
    cluster.end().await;
}
