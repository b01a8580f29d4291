//! A payment system behind an adapter.
//!
//! A provider is idempotent by the operation's persisted provider key: sent
//! again with the same key, nothing happens twice. What an adapter cannot prove
//! it must call [`ProviderAnswer::Unknown`]: the worker then asks, and sends
//! again only when [`PaymentProvider::query`] proved that nothing arrived.

pub mod sandbox;

use async_trait::async_trait;
use secrecy::SecretString;
use uuid::Uuid;

use crate::money::Money;
use crate::store::payment::{CaptureMode, NextAction, OperationKind};

/// What is asked of a provider.
#[derive(Debug, Clone)]
pub struct ProviderRequest {
    /// The payment, for the provider's own records.
    pub payment_id: Uuid,
    /// What is done.
    pub kind: OperationKind,
    /// The operation's name at the provider; the guard against doubles.
    pub provider_key: String,
    /// The charge's name at the provider: what is captured, cancelled, refunded.
    pub charge_key: String,
    /// How much.
    pub amount: Money,
    /// Whether a charge only reserves.
    pub capture: CaptureMode,
    /// The means of payment; only a charge has it.
    pub method: Option<SecretString>,
}

/// Which operation is asked about.
#[derive(Debug, Clone)]
pub struct ProviderQuery {
    /// What was done.
    pub kind: OperationKind,
    /// The operation's name at the provider.
    pub provider_key: String,
}

/// What a provider says of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderAnswer {
    /// Done; the money moved as asked (a cancellation: it is given up).
    Succeeded,
    /// The charge reserved the money.
    Authorized,
    /// The payer must confirm the charge.
    RequiresAction(NextAction),
    /// It has it and decides later.
    Pending,
    /// It refuses, for good.
    Declined {
        /// A stable word.
        code: String,
        /// A sentence for people, without anything secret.
        message: String,
    },
    /// The charge was given up.
    Canceled,
    /// The charge's time passed.
    Expired,
    /// The request never reached it: sending again is safe.
    NotSent,
    /// It proves that it has nothing under this key. Only to a query.
    NotFound,
    /// Nobody knows: a time-out, a cut connection, an answer without sense.
    Unknown,
}

impl ProviderAnswer {
    /// The word for spans and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            ProviderAnswer::Succeeded => "succeeded",
            ProviderAnswer::Authorized => "authorized",
            ProviderAnswer::RequiresAction(_) => "requires_action",
            ProviderAnswer::Pending => "pending",
            ProviderAnswer::Declined { .. } => "declined",
            ProviderAnswer::Canceled => "canceled",
            ProviderAnswer::Expired => "expired",
            ProviderAnswer::NotSent => "not_sent",
            ProviderAnswer::NotFound => "not_found",
            ProviderAnswer::Unknown => "unknown",
        }
    }
}

/// A payment system.
#[async_trait]
pub trait PaymentProvider: Send + Sync + std::fmt::Debug {
    /// Its name in payments, accounts and metrics. Example: `sandbox`.
    fn name(&self) -> &'static str;

    /// Whether a token can be one of its own; the rule for refusals otherwise.
    fn check_method(&self, method: &str) -> Result<(), &'static str>;

    /// Sends an operation. Dropping the future leaves its outcome unknown.
    async fn submit(&self, request: &ProviderRequest) -> ProviderAnswer;

    /// Asks what became of an operation.
    async fn query(&self, query: &ProviderQuery) -> ProviderAnswer;
}
