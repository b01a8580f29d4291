//! Payments through providers.
//!
//! The service claims a key and writes what is to be done; the worker does it
//! and records what became of it; [`state`] alone decides what that means. The
//! three meet in the store, so that a crash anywhere leaves work that is found
//! again, and money that moved exactly once.
//!
//! What a payment needs of other parts of the node it asks for through the
//! traits here, which `node` wires: this module knows no rooms and no histories.

mod metrics;
pub mod provider;
mod service;
pub mod state;
mod wake;
mod worker;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;
use uuid::Uuid;

use self::provider::PaymentProvider;
use self::provider::sandbox::Sandbox;
use self::wake::Hub;
use crate::clock::{self, Clock};
use crate::config::schema;
use crate::drain;
use crate::money::Money;
use crate::principal::Principal;
use crate::proto::payment::v1::payment_service_server::PaymentServiceServer;
use crate::proto::sandbox::v1::sandbox_service_server::SandboxServiceServer;
use crate::refusal::Refusal;
use crate::security::accounts::Accounts;
use crate::store::StoreError;
use crate::store::ledger::{AccountName, Transfer};
use crate::store::payment::{PaymentStore, Status};

pub use metrics::PaymentMetrics;
pub use service::{PaymentHandler, SandboxHandler};

/// What a room is told of a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptData {
    /// The payment: the key under which the receipt is posted once.
    pub payment_id: Uuid,
    /// Who paid.
    pub payer: Principal,
    /// Who is paid.
    pub payee: Principal,
    /// The amount of the payment.
    pub amount: Money,
    /// What was proven.
    pub status: Status,
}

/// Posts receipts to rooms.
#[async_trait]
pub trait ReceiptPoster: Send + Sync + std::fmt::Debug {
    /// Posts a receipt in the payer's name. Called at least once for each:
    /// again for the same payment it must change nothing and succeed.
    async fn post(
        &self,
        room_id: &str,
        payer: Principal,
        receipt: ReceiptData,
    ) -> Result<(), Refusal>;
}

/// Knows who is in a room.
#[async_trait]
pub trait Membership: Send + Sync + std::fmt::Debug {
    /// Whether the principal is a member; false too when there is no such room.
    async fn is_member(&self, room_id: &str, principal: &Principal) -> Result<bool, Refusal>;
}

/// Told, after the commit, what changed, so that whoever follows it here or on
/// another node looks. A hint: who waits looks every few seconds anyway.
pub trait Notifier: Send + Sync + std::fmt::Debug {
    /// The payment changed, and with it the balances or histories of these
    /// accounts, each named once; often of none. Must not block.
    fn touched(&self, accounts: &[AccountName], payment: Uuid);
}

/// What [`Payments::start`] needs.
#[derive(Debug)]
pub struct Parts {
    /// Where payments are kept.
    pub store: Arc<dyn PaymentStore>,
    /// This run of the node, a UUID: under it the worker holds its leases, until
    /// [`Payments::runs_as`] names another.
    pub incarnation: String,
    /// Whether other nodes run on the store. If not, everything that an earlier
    /// process left is taken up at the start; if so, whoever declares a node
    /// dead calls [`Payments::recover_of`].
    pub shared: bool,
    /// Who moves the money.
    pub provider: Arc<dyn PaymentProvider>,
    /// Time-outs, bounds.
    pub config: schema::Payment,
    /// Whose account is whose.
    pub accounts: Accounts,
    /// Where receipts go.
    pub receipts: Arc<dyn ReceiptPoster>,
    /// Who may name a room.
    pub membership: Arc<dyn Membership>,
    /// Who is told of postings.
    pub notifier: Arc<dyn Notifier>,
    /// What is counted.
    pub metrics: PaymentMetrics,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// When to stop.
    pub drain: drain::Watch,
}

/// What service and worker share.
#[derive(Debug)]
struct Core {
    parts: Parts,
    /// This run of the node: in whose name rows are leased.
    incarnation: Mutex<Arc<str>>,
    /// Wakes the worker.
    work: Notify,
    /// Wakes those who wait for a payment.
    hub: Hub,
}

impl Core {
    fn now(&self) -> i64 {
        clock::micros(self.parts.clock.now())
    }

    fn incarnation(&self) -> Arc<str> {
        self.incarnation.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn store(&self) -> &dyn PaymentStore {
        self.parts.store.as_ref()
    }

    /// Tells those who wait, here and on other nodes, of what was just
    /// committed. The payee's balance changes with the hold alone, too.
    fn tell(&self, payment: Uuid, transfers: &[Transfer], held: Option<&Principal>) {
        self.hub.touch(payment);
        let movements = transfers.iter().flat_map(|transfer| &transfer.movements);
        let mut accounts: BTreeSet<AccountName> =
            movements.flat_map(|movement| [&movement.from, &movement.to]).cloned().collect();
        accounts.extend(held.map(AccountName::of));
        let accounts: Vec<_> = accounts.into_iter().collect();
        self.parts.notifier.touched(&accounts, payment);
    }
}

/// The running payment area. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Payments {
    core: Arc<Core>,
}

impl Payments {
    /// Takes up what an earlier process left, if no other node runs on the
    /// store, and starts the worker. It ends by the drain: no new work, sends
    /// under way within the deadline.
    pub async fn start(parts: Parts) -> Result<Self, StoreError> {
        let shared = parts.shared;
        let incarnation = Mutex::new(parts.incarnation.as_str().into());
        let (work, hub) = (Notify::new(), Hub::default());
        let core = Arc::new(Core { parts, incarnation, work, hub });
        let payments = Self { core: core.clone() };
        if !shared {
            payments.recover(None).await?;
        }
        worker::start(core);
        Ok(payments)
    }

    /// Takes up what an incarnation of a node left that was declared dead: what
    /// it was sending is asked about, what it had leased is leased anew. Returns
    /// how many operations it was sending. Should nobody call it, leases run
    /// out by themselves, and the same is done later. Calling it twice, or for
    /// an incarnation that lives after all, costs nothing but a question.
    pub async fn recover_of(&self, incarnation: &str) -> Result<u64, StoreError> {
        self.recover(Some(incarnation)).await
    }

    /// The node was declared dead and takes part again, as this incarnation: what
    /// is leased from now on is leased in its name, so that whoever declares it
    /// dead next takes that up.
    pub fn runs_as(&self, incarnation: &str) {
        *self.core.incarnation.lock().unwrap_or_else(PoisonError::into_inner) = incarnation.into();
    }

    /// A payment changed on another node: wakes whoever waits for it here.
    pub fn touched(&self, payment: Uuid) {
        self.core.hub.touch(payment);
    }

    async fn recover(&self, of: Option<&str>) -> Result<u64, StoreError> {
        let unknown = self.core.store().recover(self.core.now(), of).await?;
        if unknown > 0 {
            tracing::warn!(
                unknown,
                of = of.unwrap_or("the last run"),
                "operations were being sent when their node ended; asking about them"
            );
        }
        self.core.work.notify_one();
        Ok(unknown)
    }

    /// The service, to be put behind the layers.
    pub fn service(&self) -> PaymentServiceServer<PaymentHandler> {
        PaymentServiceServer::new(PaymentHandler::new(self.core.clone()))
    }

    /// The payer's side of the sandbox. Only where it is the provider.
    pub fn sandbox_service(&self, sandbox: Sandbox) -> SandboxServiceServer<SandboxHandler> {
        SandboxServiceServer::new(SandboxHandler::new(self.core.clone(), sandbox))
    }
}
