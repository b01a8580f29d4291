//! A payment area on a directory of its own, that can be stopped dead and
//! started again.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tonic::{Request, Response, Status as RpcStatus};
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::clock;
use crate::config::schema;
use crate::drain;
use crate::id;
use crate::payment::provider::PaymentProvider;
use crate::payment::provider::sandbox::Sandbox;
use crate::payment::{
    Membership, Notifier, Parts, PaymentHandler, PaymentMetrics, Payments, ReceiptData,
    ReceiptPoster,
};
use crate::principal::{Principal, Role, Roles};
use crate::proto::money::v1::Money;
use crate::proto::payment::v1 as pb;
use crate::proto::payment::v1::payment_service_server::PaymentService;
use crate::refusal::{Reason, Refusal};
use crate::security::accounts::Accounts;
use crate::security::permit::{Caller, Permit, Proof, Validity};
use crate::store::ledger::{AccountName, LedgerStore};
use crate::store::sqlite::{SqliteStore, StoreMetrics};

/// A room that knows receipts by their payment, as the chat side does.
#[derive(Debug, Default)]
pub(super) struct Room {
    pub(super) posted: Mutex<Vec<ReceiptData>>,
    pub(super) calls: Mutex<u32>,
    /// How many posts to refuse first.
    pub(super) refuse: Mutex<u32>,
}

#[async_trait]
impl ReceiptPoster for Room {
    async fn post(&self, room: &str, _: Principal, receipt: ReceiptData) -> Result<(), Refusal> {
        assert_eq!(room, "lobby");
        *self.calls.lock().unwrap() += 1;
        {
            let mut refuse = self.refuse.lock().unwrap();
            if *refuse > 0 {
                *refuse -= 1;
                return Err(Refusal::new(Reason::NotOwner, "not now"));
            }
        }
        let mut posted = self.posted.lock().unwrap();
        if !posted.iter().any(|known| known.payment_id == receipt.payment_id) {
            posted.push(receipt);
        }
        Ok(())
    }
}

#[async_trait]
impl Membership for Room {
    async fn is_member(&self, room: &str, principal: &Principal) -> Result<bool, Refusal> {
        Ok(room == "lobby" && principal.id() == "alice")
    }
}

#[derive(Debug, Default)]
pub(super) struct Touched(pub(super) Mutex<HashSet<String>>);

impl Notifier for Touched {
    fn touched(&self, accounts: &[AccountName], payment: Uuid) {
        let mut told = self.0.lock().unwrap();
        told.insert(payment.to_string());
        told.extend(accounts.iter().map(|account| account.as_str().to_owned()));
    }
}

/// One run of the area. Dropping its `drain` and the runtime's tasks is the
/// crash; `stop` is the clean end.
pub(super) struct Kit {
    pub(super) dir: Arc<TempDir>,
    pub(super) store: Arc<SqliteStore>,
    pub(super) sandbox: Sandbox,
    pub(super) payments: Payments,
    pub(super) room: Arc<Room>,
    pub(super) touched: Arc<Touched>,
    pub(super) drain: drain::Drain,
    pub(super) incarnation: String,
}

pub(super) fn config() -> schema::Payment {
    schema::Payment {
        provider: schema::Provider::Sandbox,
        sandbox: false,
        give_up: Duration::from_secs(3600),
        idempotency_kept: Duration::from_secs(3600),
        provider_timeout: Duration::from_secs(5),
        workers: 8,
        lease: Duration::from_secs(30),
        refund_below_zero: false,
    }
}

pub(super) async fn sandbox(dir: &Path) -> Sandbox {
    Sandbox::open(&dir.join("sandbox.db")).await.expect("the books open")
}

impl Kit {
    pub(super) async fn new() -> Self {
        let dir = Arc::new(tempfile::tempdir().expect("a directory"));
        let provider = sandbox(dir.path()).await;
        Self::with(dir, config(), Arc::new(provider)).await
    }

    pub(super) async fn with(
        dir: Arc<TempDir>,
        config: schema::Payment,
        provider: Arc<dyn PaymentProvider>,
    ) -> Self {
        Self::sharing(dir, config, provider, Accounts::default()).await
    }

    /// With principals that share accounts.
    pub(super) async fn sharing(
        dir: Arc<TempDir>,
        config: schema::Payment,
        provider: Arc<dyn PaymentProvider>,
        accounts: Accounts,
    ) -> Self {
        Self::started(dir, config, provider, accounts, false).await
    }

    /// One of several nodes on the store in the directory.
    pub(super) async fn node(
        dir: Arc<TempDir>,
        config: schema::Payment,
        provider: Arc<dyn PaymentProvider>,
    ) -> Self {
        Self::started(dir, config, provider, Accounts::default(), true).await
    }

    async fn started(
        dir: Arc<TempDir>,
        config: schema::Payment,
        provider: Arc<dyn PaymentProvider>,
        accounts: Accounts,
        shared: bool,
    ) -> Self {
        let incarnation = id::fresh().to_string();
        let path = dir.path().join("simpul.db");
        let store = match shared {
            true => SqliteStore::open_shared(&path, 4, StoreMetrics::default()).await,
            false => SqliteStore::open(&path, 4).await,
        };
        let store = Arc::new(store.expect("the store opens"));
        let (drain, watch) = drain::channel();
        let (room, touched) = (Arc::new(Room::default()), Arc::new(Touched::default()));
        let payments = Payments::start(Parts {
            store: store.clone(),
            incarnation: incarnation.clone(),
            shared,
            provider,
            config,
            accounts,
            receipts: room.clone(),
            membership: room.clone(),
            notifier: touched.clone(),
            metrics: PaymentMetrics::register(&mut Registry::default()),
            clock: Arc::new(clock::System),
            drain: watch,
        });
        let payments = payments.await.expect("it starts");
        let sandbox = sandbox(dir.path()).await;
        Self { dir, store, sandbox, payments, room, touched, drain, incarnation }
    }

    pub(super) fn handler(&self) -> PaymentHandler {
        PaymentHandler::new(self.payments.core.clone())
    }

    /// Ends everything; what was under way is cut off.
    pub(super) async fn crash(self) -> Arc<TempDir> {
        self.drain.drain(Duration::ZERO).await;
        self.dir
    }

    pub(super) async fn pay(&self, request: pb::ProcessPaymentRequest) -> pb::Payment {
        let answered = self.handler().process_payment(as_user("alice", request)).await;
        answered.expect("a payment").into_inner().payment.expect("is given")
    }

    pub(super) async fn get(&self, id: &str) -> pb::Payment {
        let request = pb::GetPaymentRequest { payment_id: id.to_owned() };
        let answered = self.handler().get_payment(as_user("alice", request)).await;
        answered.expect("a payment").into_inner().payment.expect("is given")
    }

    pub(super) async fn refund(
        &self,
        id: &str,
        key: &str,
        minor_units: i64,
    ) -> Result<pb::Payment, RpcStatus> {
        let request = pb::RefundPaymentRequest {
            payment_id: id.to_owned(),
            idempotency_key: key.to_owned(),
            minor_units,
        };
        let answered = self.handler().refund_payment(as_user("toko", request)).await;
        answered.map(Response::into_inner).map(|answer| answer.payment.expect("is given"))
    }

    pub(super) async fn capture(
        &self,
        id: &str,
        key: &str,
        minor_units: i64,
    ) -> Result<pb::Payment, RpcStatus> {
        let request = pb::CapturePaymentRequest {
            payment_id: id.to_owned(),
            idempotency_key: key.to_owned(),
            minor_units,
        };
        let answered = self.handler().capture_payment(as_user("toko", request)).await;
        answered.map(Response::into_inner).map(|answer| answer.payment.expect("is given"))
    }

    pub(super) async fn cancel(
        &self,
        who: &str,
        id: &str,
        key: &str,
    ) -> Result<pb::Payment, RpcStatus> {
        let request =
            pb::CancelPaymentRequest { payment_id: id.to_owned(), idempotency_key: key.to_owned() };
        let answered = self.handler().cancel_payment(as_user(who, request)).await;
        answered.map(Response::into_inner).map(|answer| answer.payment.expect("is given"))
    }

    pub(super) async fn until(&self, id: &str, status: pb::PaymentStatus) -> pb::Payment {
        let wait = async {
            loop {
                let payment = self.get(id).await;
                if payment.status() == status {
                    return payment;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it comes to that")
    }

    pub(super) async fn balance(&self, account: &str) -> (i64, i64) {
        let account = AccountName::from_stored(account.to_owned());
        let balances = self.store.balances(&account).await.expect("balances");
        balances.first().map_or((0, 0), |balance| (balance.posted.minor_units, balance.held))
    }

    /// The ledger keeps its rules and says what the sandbox's books say.
    pub(super) async fn balanced(&self) {
        assert_eq!(self.store.audit().await.expect("an audit"), Vec::<String>::new());
        let books = self.sandbox.books().await.expect("books");
        let net = books.net.get("IDR").copied().unwrap_or(0);
        assert_eq!(self.balance("provider_clearing:sandbox").await.0, -net);
    }
}

pub(super) fn who(name: &str) -> Principal {
    format!("user/{name}@dev.simpul").parse().expect("a principal")
}

/// A request by a user with the roles customer and merchant.
pub(super) fn as_user<T>(name: &str, message: T) -> Request<T> {
    as_roles(name, [Role::Customer, Role::Merchant].into_iter().collect(), message)
}

pub(super) fn as_roles<T>(name: &str, roles: Roles, message: T) -> Request<T> {
    let caller = Caller { principal: who(name), roles, acting_service: None, proof: Proof::Token };
    let validity = Validity::until(SystemTime::now() + Duration::from_secs(3600), None);
    let mut request = Request::new(message);
    request.extensions_mut().insert(Permit::new(caller, validity));
    request
}

pub(super) fn wanted(key: &str, method: &str) -> pb::ProcessPaymentRequest {
    pb::ProcessPaymentRequest {
        idempotency_key: key.to_owned(),
        payee: "toko".to_owned(),
        amount: Some(Money { currency: "IDR".to_owned(), minor_units: 50_000 }),
        payment_method: method.to_owned(),
        ..Default::default()
    }
}

pub(super) fn manual(key: &str, method: &str) -> pb::ProcessPaymentRequest {
    pb::ProcessPaymentRequest { capture: pb::CaptureMode::Manual as i32, ..wanted(key, method) }
}

pub(super) fn reason(status: &RpcStatus) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

pub(super) fn fields(status: &RpcStatus) -> Vec<String> {
    let details = status.get_details_bad_request();
    let violations = details.map(|details| details.field_violations).unwrap_or_default();
    violations.into_iter().map(|violation| violation.field).collect()
}
