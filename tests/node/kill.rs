//! kill -9, again and again, under load that never rests.
//!
//! A writer sends chat messages and a payer pays, both without a pause; the
//! node is killed and started again, in each window of a payment's life on
//! purpose and at arbitrary moments otherwise. In the end every acknowledged
//! message stands once and in order, every payment has one charge in the
//! sandbox's books and one posting, and the ledger balances.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use simpul::payment::provider::sandbox::Sandbox;
use simpul::proto::chat::v1::chat_response::Frame as Tell;
use simpul::proto::chat::v1::chat_service_client::ChatServiceClient;
use simpul::proto::chat::v1::join::From;
use simpul::proto::chat::v1::{GetMessagesRequest, Message};
use simpul::proto::payment::v1::payment_service_client::PaymentServiceClient;
use simpul::proto::payment::v1::{ListPaymentsRequest, Payment, PaymentStatus};
use simpul::store::LedgerStore;
use simpul::store::sqlite::SqliteStore;

use tonic::transport::Channel;

use crate::pay::{process, to_toko};
use crate::support::{LONG, Node, not_run, with_token};
use crate::talk::{Session, room};

const KILLS: usize = 50;
const WINDOWS: [&str; 4] =
    ["payment.claimed", "payment.submitting", "payment.charged", "payment.outcome"];
const HITS: usize = 4;

/// Where the load connects now, and what it has seen.
#[derive(Debug, Default)]
struct Shared {
    channel: Mutex<Option<Channel>>,
    stop: AtomicBool,
    /// Message id to acknowledged seq.
    acked: Mutex<BTreeMap<u64, u64>>,
    /// Idempotency key to payment id.
    paid: Mutex<HashMap<String, String>>,
}

impl Shared {
    async fn channel(&self) -> Channel {
        loop {
            if let Some(channel) = self.channel.lock().expect("not poisoned").clone() {
                return channel;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Sends m1, m2 … in order, a window of them at a time; what was not
/// acknowledged is sent again after a reconnect.
async fn write(shared: Arc<Shared>, token: String) {
    let mut acked = 0;
    while !shared.stopped() {
        let Ok(mut session) = Session::open(shared.channel().await, &token).await else { continue };
        session.ask_join("r", From::Latest(true)).await;
        let mut sent = acked;
        loop {
            while sent < acked + 32 && !shared.stopped() {
                sent += 1;
                session.send("r", &format!("m{sent}"), &format!("message {sent}")).await;
            }
            match tokio::time::timeout(LONG, session.incoming.message()).await {
                Ok(Ok(Some(response))) => {
                    if let Some(Tell::Sent(ack)) = response.frame {
                        let id = ack.client_message_id[1..].parse().expect("a number");
                        let before = shared.acked.lock().expect("not poisoned").insert(id, ack.seq);
                        assert!(before.is_none_or(|seq| seq == ack.seq), "two positions of m{id}");
                        acked = acked.max(id);
                    }
                }
                Ok(_) => break,
                Err(_) => panic!("no acknowledgement and no end"),
            }
            if shared.stopped() && sent == acked {
                return;
            }
        }
    }
}

/// Pays p1, p2 …; what got no answer is paid again with the same key.
async fn pay(shared: Arc<Shared>, token: String) {
    for n in 1.. {
        if shared.stopped() {
            return;
        }
        let key = format!("p{n}");
        let method = if n % 5 == 0 { "sandbox_lost_reply" } else { "sandbox_ok" };
        loop {
            let call = process(&shared.channel().await, &token, to_toko(&key, method)).await;
            if let Ok(payment) = call {
                shared.paid.lock().expect("not poisoned").insert(key, payment.payment_id);
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Waits until the node stands in the window, held there.
async fn stand_in(faults: &Path, window: &str) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(10) {
        if faults.join(window).exists() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_kills_lose_and_double_nothing() {
    if !cfg!(feature = "fault") {
        return not_run("the kill test: it needs `--features fault`, as tests/run gives it");
    }
    let faults = tempfile::tempdir().expect("a directory");
    let mut node =
        Node::start_with(&[("SIMPUL_TEST_FAULT_DIR", faults.path().to_str().expect("UTF-8"))]);
    let token = node.token("alice", &[]);
    let shared = Arc::new(Shared::default());
    let channel = node.channel().await;
    room(channel.clone(), &token, "r", &[]).await;
    *shared.channel.lock().expect("not poisoned") = Some(channel);
    let writer = simpul::task::spawn("writer", write(shared.clone(), token.clone()));
    let payers: Vec<_> =
        (0..1).map(|_| simpul::task::spawn("payer", pay(shared.clone(), token.clone()))).collect();

    let mut hits = HashMap::<&str, usize>::new();
    for kill in 0..KILLS {
        let window = (kill < WINDOWS.len() * HITS).then(|| WINDOWS[kill % WINDOWS.len()]);
        if let Some(window) = window {
            let _ = std::fs::remove_file(faults.path().join(window));
            let hold = faults.path().join(format!("{window}.hold"));
            std::fs::write(&hold, "").expect("a hold");
            if stand_in(faults.path(), window).await {
                *hits.entry(window).or_default() += 1;
            }
            node.kill();
            std::fs::remove_file(hold).expect("released");
        } else {
            // Somewhere in the middle of the load: wait for progress, not for time.
            let before = shared.acked.lock().expect("not poisoned").len();
            let begun = Instant::now();
            while shared.acked.lock().expect("not poisoned").len() < before + 1 + kill % 7 * 20 {
                assert!(begun.elapsed() < LONG, "the load stands still");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            node.kill();
        }
        *shared.channel.lock().expect("not poisoned") = None;
        node.restart();
        *shared.channel.lock().expect("not poisoned") = Some(node.channel().await);
    }
    for window in WINDOWS {
        let count = hits.get(window).copied().unwrap_or(0);
        assert!(count >= 3, "the window {window} was hit {count} times: {hits:?}");
    }
    shared.stop.store(true, Ordering::Relaxed);
    tokio::time::timeout(LONG, writer).await.expect("it ends").expect("no panic");
    for payer in payers {
        tokio::time::timeout(LONG, payer).await.expect("it ends").expect("no panic");
    }

    let channel = shared.channel().await;
    judge_messages(&channel, &token, &shared).await;
    let payments = judge_payments(&channel, &token, &shared).await;
    node.signal(rustix::process::Signal::TERM);
    node.wait(Duration::from_secs(30));
    judge_books(node.dir(), &payments).await;
    eprintln!(
        "{KILLS} kills, windows {hits:?}, {} messages, {} payments",
        shared.acked.lock().expect("not poisoned").len(),
        payments.len()
    );
}

async fn judge_messages(channel: &Channel, token: &str, shared: &Shared) {
    let mut client = ChatServiceClient::new(channel.clone());
    let mut log: Vec<Message> = Vec::new();
    loop {
        let after_seq = log.last().map_or(0, |message| message.seq);
        let get = GetMessagesRequest { room_id: "r".to_owned(), after_seq, limit: 10_000 };
        let mut page =
            client.get_messages(with_token(get, token)).await.expect("a stream").into_inner();
        let before = log.len();
        while let Some(response) = page.message().await.expect("no error") {
            log.push(response.message.expect("a message"));
        }
        if log.len() == before {
            break;
        }
    }
    let mut seen = BTreeMap::new();
    for (at, message) in log.iter().enumerate() {
        assert_eq!(message.seq, at as u64 + 1, "a gap");
        if let Some(id) = message.client_message_id.strip_prefix('m') {
            let id: u64 = id.parse().expect("a number");
            assert_eq!(message.body, format!("message {id}"));
            assert!(seen.insert(id, message.seq).is_none(), "m{id} stands twice");
        }
    }
    let acked = shared.acked.lock().expect("not poisoned");
    assert!(acked.len() > KILLS);
    for (id, seq) in acked.iter() {
        assert_eq!(seen.get(id), Some(seq), "m{id} was acknowledged");
    }
    assert!(seen.values().is_sorted(), "out of order");
}

async fn judge_payments(channel: &Channel, token: &str, shared: &Shared) -> Vec<Payment> {
    let mut client = PaymentServiceClient::new(channel.clone());
    let begun = Instant::now();
    loop {
        let (mut payments, mut page_token) = (Vec::new(), String::new());
        loop {
            let list = ListPaymentsRequest { page_size: 500, page_token, ..Default::default() };
            let page = client.list_payments(with_token(list, token)).await.expect("a page");
            let page = page.into_inner();
            payments.extend(page.payments);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        let open = payments.iter().filter(|p| p.status() != PaymentStatus::Succeeded).count();
        if open == 0 {
            let paid = shared.paid.lock().expect("not poisoned");
            for id in paid.values() {
                assert!(payments.iter().any(|p| p.payment_id == *id), "a payment is lost");
            }
            return payments;
        }
        assert!(begun.elapsed() < LONG, "{open} payments never settled");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn judge_books(dir: &Path, payments: &[Payment]) {
    let store = SqliteStore::open(&dir.join("simpul.db"), 1).await.expect("the store");
    assert_eq!(store.audit().await.expect("an audit"), [""; 0]);
    let books = Sandbox::open(&dir.join("sandbox.db")).await.expect("the sandbox's books");
    let charges = books.books().await.expect("books").charges;
    assert_eq!(charges.len(), payments.len(), "one charge a payment");
    let total: i64 = charges.iter().map(|charge| charge.captured).sum();
    assert_eq!(total, payments.len() as i64 * 5_000_000);
}
