use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use super::*;
use crate::drain;
use crate::principal::{Principal, Role};
use crate::proto::transaction::v1 as pb;
use crate::proto::transaction::v1::transaction_service_server::TransactionService;
use crate::security::accounts::Accounts;
use crate::security::permit::{Caller, Permit, Proof, Validity};
use crate::store::LedgerStore;
use crate::store::ledger::{AccountName, Movement, TransactionKind, Transfer};
use crate::store::sqlite::SqliteStore;

struct Fixture {
    _dir: tempfile::TempDir,
    store: Arc<SqliteStore>,
    touched: Touched,
    drain: drain::Drain,
    service: Transactions,
}

async fn fixture() -> Fixture {
    let dir = tempfile::tempdir().expect("a directory");
    let store = SqliteStore::open(&dir.path().join("simpul.db"), 2).await.expect("opened");
    let (store, touched) = (Arc::new(store), Touched::new());
    let (drain, watch) = drain::channel();
    let service = Transactions::new(store.clone(), Accounts::default(), touched.clone(), watch);
    Fixture { _dir: dir, store, touched, drain, service }
}

fn principal(id: &str) -> Principal {
    format!("user/{id}@a").parse().expect("a principal")
}

fn asked<T>(id: &str, role: Role, message: T) -> Request<T> {
    let caller = Caller {
        principal: principal(id),
        roles: [role].into_iter().collect(),
        acting_service: None,
        proof: Proof::Token,
    };
    let end = SystemTime::now() + Duration::from_secs(600);
    let mut request = Request::new(message);
    request.extensions_mut().insert(Permit::new(caller, Validity::until(end, None)));
    request
}

impl Fixture {
    /// A payment of alice to toko: two entries for alice, one for toko.
    async fn pay(&self, number: u128) {
        let (alice, toko) =
            (AccountName::of(&principal("alice")), AccountName::of(&principal("toko")));
        let movement = |from: &AccountName, to: &AccountName, kind| Movement {
            from: from.clone(),
            to: to.clone(),
            minor_units: 100,
            kind,
            needs_balance: false,
        };
        let clearing = AccountName::provider_clearing("sandbox");
        let transfer = Transfer {
            id: Uuid::from_u128(number << 8),
            payment_id: Uuid::from_u128(number),
            currency: "IDR".parse().expect("a currency"),
            movements: vec![
                movement(&clearing, &alice, TransactionKind::Funding),
                movement(&alice, &toko, TransactionKind::Payment),
            ],
            posted_at: i64::try_from(number).expect("small") * 1_000_000,
        };
        for account in self.store.post(transfer).await.expect("posted") {
            self.touched.touched(&account);
        }
    }

    async fn history(
        &self,
        who: &str,
        role: Role,
        ask: pb::GetTransactionHistoryRequest,
    ) -> Result<<Transactions as TransactionService>::GetTransactionHistoryStream, Status> {
        let answer = self.service.get_transaction_history(asked(who, role, ask)).await?;
        Ok(answer.into_inner())
    }

    async fn positions(&self, ask: pb::GetTransactionHistoryRequest) -> Vec<u64> {
        let stream = self.history("alice", Role::Customer, ask).await.expect("a stream");
        stream.map(|item| position(item.expect("an entry"))).collect().await
    }
}

fn position(response: pb::GetTransactionHistoryResponse) -> u64 {
    response.transaction.expect("a transaction").position
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().expect("an ErrorInfo").reason
}

fn at(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds, nanos: 0 })
}

#[tokio::test]
async fn a_history_is_read_from_a_cursor_filtered_and_limited() {
    let f = fixture().await;
    for number in 1..=400 {
        f.pay(number).await;
    }
    let ask = pb::GetTransactionHistoryRequest::default;
    assert_eq!(f.positions(ask()).await, (1..=800).collect::<Vec<_>>());
    let after = pb::GetTransactionHistoryRequest { after_position: 797, ..ask() };
    assert_eq!(f.positions(after).await, [798, 799, 800]);
    let limited = pb::GetTransactionHistoryRequest { limit: 3, after_position: 5, ..ask() };
    assert_eq!(f.positions(limited).await, [6, 7, 8]);
    let times = pb::GetTransactionHistoryRequest {
        posted_from: at(10),
        posted_before: at(12),
        kinds: vec![pb::TransactionKind::Payment as i32],
        ..ask()
    };
    assert_eq!(f.positions(times).await, [20, 22]);
    let none = pb::GetTransactionHistoryRequest { posted_from: at(9_999), ..ask() };
    assert_eq!(f.positions(none).await, Vec::<u64>::new());
}

#[tokio::test]
async fn following_goes_on_live_without_gap_or_double_and_ends_with_the_node() {
    let f = Arc::new(fixture().await);
    f.pay(1).await;
    let ask = pb::GetTransactionHistoryRequest { follow: true, ..Default::default() };
    let mut stream = f.history("alice", Role::Customer, ask).await.expect("a stream");
    let poster = f.clone();
    let posting = crate::task::spawn("poster", async move {
        for number in 2..=100 {
            poster.pay(number).await;
        }
    });
    for expected in 1..=200 {
        let item = stream.next().await.expect("it goes on").expect("an entry");
        assert_eq!(position(item), expected);
    }
    posting.await.expect("posted");
    assert_eq!(f.touched.followed(), 1);
    let drained = f.drain.drain(Duration::ZERO);
    let (_, end) = tokio::join!(drained, stream.next());
    let status = end.expect("an end").expect_err("a status");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "DRAINING"));
    assert!(stream.next().await.is_none());
    drop(stream);
    assert_eq!(f.touched.followed(), 0);
}

#[tokio::test]
async fn a_follower_finds_by_itself_what_nothing_woke_it_for() {
    let f = fixture().await;
    let (_drain, watch) = drain::channel();
    let deaf = Transactions::new(f.store.clone(), Accounts::default(), Touched::new(), watch);
    f.pay(1).await;
    let ask = pb::GetTransactionHistoryRequest { follow: true, limit: 4, ..Default::default() };
    let answer = deaf.get_transaction_history(asked("alice", Role::Customer, ask)).await;
    let mut stream = answer.expect("a stream").into_inner();
    for expected in [1, 2] {
        assert_eq!(position(stream.next().await.expect("more").expect("an entry")), expected);
    }
    // The page that was read ended at the head: what follows is found by looking.
    f.pay(2).await;
    let rest: Vec<_> = stream.map(|item| position(item.expect("an entry"))).collect().await;
    assert_eq!(rest, [3, 4]);
}

#[tokio::test]
async fn every_violated_field_is_named_at_once() {
    let f = fixture().await;
    let ask = pb::GetTransactionHistoryRequest {
        account: "robot/x".to_owned(),
        posted_from: Some(prost_types::Timestamp { seconds: 0, nanos: -1 }),
        posted_before: at(i64::MAX),
        kinds: vec![0, 2, 99],
        after_position: u64::MAX,
        ..Default::default()
    };
    let Err(status) = f.history("alice", Role::Customer, ask).await else { panic!("refused") };
    assert_eq!(status.code(), Code::InvalidArgument);
    let violations = status.get_details_bad_request().expect("BadRequest").field_violations;
    let mut fields: Vec<_> = violations.iter().map(|v| v.field.as_str()).collect();
    fields.sort_unstable();
    let expected =
        ["account", "after_position", "kinds[0]", "kinds[2]", "posted_before", "posted_from"];
    assert_eq!(fields, expected);
    let backwards = pb::GetTransactionHistoryRequest {
        posted_from: at(5),
        posted_before: at(5),
        ..Default::default()
    };
    let Err(status) = f.history("alice", Role::Customer, backwards).await else {
        panic!("refused")
    };
    assert_eq!(reason(&status), "INVALID_ARGUMENT");
}

#[tokio::test]
async fn a_cursor_ahead_of_the_history_is_refused() {
    let f = fixture().await;
    f.pay(1).await;
    let ask =
        |after_position| pb::GetTransactionHistoryRequest { after_position, ..Default::default() };
    assert_eq!(f.positions(ask(2)).await, Vec::<u64>::new());
    let Err(status) = f.history("alice", Role::Customer, ask(3)).await else { panic!("refused") };
    assert_eq!((status.code(), reason(&status).as_str()), (Code::OutOfRange, "CURSOR_AHEAD"));
}

#[tokio::test]
async fn others_accounts_are_not_there_except_for_support_and_auditors() {
    let f = fixture().await;
    f.pay(1).await;
    let balance = |who, role| {
        let ask = pb::GetBalanceRequest { account: "alice".to_owned() };
        f.service.get_balance(asked(who, role, ask))
    };
    let status = balance("eve", Role::Customer).await.expect_err("hidden");
    assert_eq!(status.code(), Code::NotFound);
    for role in [Role::Support, Role::Auditor] {
        let found = balance("eve", role).await.expect("shown").into_inner();
        assert_eq!(found.account, "user/alice@a");
        assert_eq!(found.balances.len(), 1);
    }
    let own = pb::GetBalanceRequest::default();
    let toko = f.service.get_balance(asked("toko", Role::Merchant, own)).await.expect("shown");
    let posted = toko.into_inner().balances.remove(0).posted.expect("an amount");
    assert_eq!((posted.currency.as_str(), posted.minor_units), ("IDR", 100));

    let mut stream =
        f.history("alice", Role::Customer, Default::default()).await.expect("a stream");
    let first = stream.next().await.expect("one").expect("an entry").transaction.expect("one");
    let get = |who, role, id: &str| {
        let ask = pb::GetTransactionRequest { transaction_id: id.to_owned() };
        f.service.get_transaction(asked(who, role, ask))
    };
    let got = get("alice", Role::Customer, &first.transaction_id).await.expect("shown");
    assert_eq!(got.into_inner().transaction, Some(first.clone()));
    for who in ["eve", "toko"] {
        let hidden = get(who, Role::Customer, &first.transaction_id).await.expect_err("hidden");
        assert_eq!(hidden.code(), Code::NotFound, "{who}");
    }
    get("eve", Role::Auditor, &first.transaction_id).await.expect("shown");
    let bad = get("alice", Role::Customer, "one").await.expect_err("no id");
    assert_eq!(bad.code(), Code::InvalidArgument);
}

/// A caller that has no permit came past the layers: never served.
#[tokio::test]
async fn without_a_permit_nothing_is_shown() {
    let f = fixture().await;
    let ask = Request::new(pb::GetBalanceRequest { account: "alice".to_owned() });
    assert_eq!(f.service.get_balance(ask).await.expect_err("refused").code(), Code::Internal);
}
