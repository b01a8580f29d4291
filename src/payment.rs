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

use std::sync::Arc;

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

/// Told that an account's balance or history changed, after the commit.
pub trait Notifier: Send + Sync + std::fmt::Debug {
    /// Must not block.
    fn touched(&self, account: &AccountName);
}

/// What [`Payments::start`] needs.
#[derive(Debug)]
pub struct Parts {
    /// Where payments are kept. No other node may run on it.
    pub store: Arc<dyn PaymentStore>,
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
    /// Wakes the worker.
    work: Notify,
    /// Wakes those who wait for a payment.
    hub: Hub,
}

impl Core {
    fn now(&self) -> i64 {
        clock::micros(self.parts.clock.now())
    }

    fn store(&self) -> &dyn PaymentStore {
        self.parts.store.as_ref()
    }

    /// Tells of what was just committed.
    fn tell(&self, payment: Uuid, transfers: &[Transfer]) {
        self.hub.touch(payment);
        for movement in transfers.iter().flat_map(|transfer| &transfer.movements) {
            self.parts.notifier.touched(&movement.from);
            self.parts.notifier.touched(&movement.to);
        }
    }
}

/// The running payment area. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Payments {
    core: Arc<Core>,
}

impl Payments {
    /// Takes up what an earlier process left, and starts the worker. It ends by
    /// the drain: no new work, sends under way within the deadline.
    pub async fn start(parts: Parts) -> Result<Self, StoreError> {
        let now = clock::micros(parts.clock.now());
        let unknown = parts.store.recover(now).await?;
        if unknown > 0 {
            tracing::warn!(
                unknown,
                "operations were being sent at the last stop; asking about them"
            );
        }
        let core = Arc::new(Core { parts, work: Notify::new(), hub: Hub::default() });
        worker::start(core.clone());
        Ok(Self { core })
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
