//! Payments, their operations, the outbox and the idempotency keys.
//!
//! The rules of a payment are not here: `payment::state` decides what becomes
//! of it, and hands over a [`Change`] that the store applies whole, by
//! compare-and-set, or not at all.

pub(in crate::store) mod backlog;
pub(in crate::store) mod sealed;
mod trail;
mod words;

use std::collections::BTreeMap;

use async_trait::async_trait;
use secrecy::SecretString;
use uuid::Uuid;

use super::StoreError;
use super::ledger::{AccountName, Transfer};
use crate::money::{Currency, Money};
use crate::principal::Principal;

pub use backlog::Backlog;
pub use trail::{Trail, TrailStore, WaitingRow};
pub use words::{CaptureMode, Method, OperationKind, OperationStatus, Status, Task};

/// Why something failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// A stable word.
    pub code: String,
    /// A sentence for people.
    pub message: String,
}

/// What the payer must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextAction {
    /// The kind of action.
    pub kind: String,
    /// Where it is done; empty when it is not a page.
    pub url: String,
}

/// The part of a payment that its operations change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// How far it is.
    pub status: Status,
    /// Taken so far, minor units.
    pub captured: i64,
    /// Given back so far, minor units.
    pub refunded: i64,
    /// Whether the outcome of its newest operation is not known.
    pub unknown: bool,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// What the payer must do.
    pub next_action: Option<NextAction>,
}

/// A payment as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentRecord {
    /// Its id, a UUID version 7: ordered by time.
    pub id: Uuid,
    /// The account that pays.
    pub payer: Principal,
    /// The account that is paid.
    pub payee: Principal,
    /// What was asked for.
    pub amount: Money,
    /// When money moves.
    pub capture: CaptureMode,
    /// What its operations made of it.
    pub proven: Proven,
    /// Whether an operation is under way.
    pub busy: bool,
    /// Whether what is under way is its charge, and it was never sent.
    pub unsent: bool,
    /// The payer's text.
    pub description: String,
    /// The caller's pairs.
    pub metadata: BTreeMap<String, String>,
    /// The room that gets the receipt; empty for none.
    pub room_id: String,
    /// The provider's name.
    pub provider: String,
    /// Microseconds since 1970.
    pub created_at: i64,
    /// Microseconds since 1970.
    pub updated_at: i64,
    /// Grows with each change.
    pub version: u64,
}

/// Something done to a payment.
#[derive(Debug, Clone)]
pub struct OperationRecord {
    /// Its id.
    pub id: Uuid,
    /// The payment.
    pub payment_id: Uuid,
    /// What is done.
    pub kind: OperationKind,
    /// How far it is.
    pub status: OperationStatus,
    /// How much, minor units of the payment's currency.
    pub minor_units: i64,
    /// Its name at the provider, never changed.
    pub provider_key: String,
    /// The name of the payment's charge at the provider.
    pub charge_key: String,
    /// The method token, until it is erased.
    pub method: Option<SecretString>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Microseconds since 1970.
    pub created_at: i64,
}

/// The caller's key for one call of one method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The account on which the caller acts.
    pub account: Principal,
    /// The method.
    pub method: Method,
    /// What the caller gave.
    pub key: String,
}

/// What stands under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// The hash of the request that claimed it.
    pub request_hash: [u8; 32],
    /// The payment.
    pub payment_id: Uuid,
    /// The operation.
    pub operation_id: Uuid,
}

/// A payment that does not stand yet; it begins CREATED.
#[derive(Debug, Clone)]
pub struct NewPayment {
    /// The account that pays.
    pub payer: Principal,
    /// The account that is paid.
    pub payee: Principal,
    /// How much.
    pub amount: Money,
    /// When money moves.
    pub capture: CaptureMode,
    /// The payer's text.
    pub description: String,
    /// The caller's pairs.
    pub metadata: BTreeMap<String, String>,
    /// The room that gets the receipt; empty for none.
    pub room_id: String,
    /// The provider's name.
    pub provider: String,
    /// The provider's token for the means of payment.
    pub method: SecretString,
}

/// What a claimed key begins.
#[derive(Debug, Clone)]
pub enum Work {
    /// A payment and its charge.
    Pay(Box<NewPayment>),
    /// A further operation of a payment that still has this version.
    Operate {
        /// The version on which it was decided.
        version: u64,
        /// What is done.
        kind: OperationKind,
        /// How much.
        minor_units: i64,
        /// Posted together with the claim: a refund's reservation.
        reservation: Option<Transfer>,
    },
    /// Gives up a payment that still has this version and whose charge was
    /// never sent: the charge, its outbox row and its method token are gone,
    /// the cancellation is done, and no provider hears of either.
    Withdraw {
        /// The version on which it was decided.
        version: u64,
        /// How much the payment is for.
        minor_units: i64,
        /// What the charge, which is not done any more, says of itself.
        failure: Failure,
    },
}

/// One transaction: key, operation and outbox row, with the payment itself or
/// the reservation of a refund.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The key.
    pub key: Key,
    /// The request's hash.
    pub request_hash: [u8; 32],
    /// The payment's id.
    pub payment_id: Uuid,
    /// The new operation's id; its provider key is derived from it.
    pub operation_id: Uuid,
    /// What begins.
    pub work: Work,
    /// The caller's trace context (W3C traceparent), or empty.
    pub trace: String,
    /// Microseconds since 1970.
    pub now: i64,
}

/// What became of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// It stands.
    New,
    /// The key was there already; nothing was done.
    Known(KeyRecord),
    /// The payment has changed since, or another operation is under way, or what
    /// was to be withdrawn is being sent.
    Moved,
    /// The payee lacks the money; nothing was done.
    InsufficientBalance,
}

/// A row of the outbox, leased.
#[derive(Debug, Clone)]
pub struct Leased {
    /// The row.
    pub row: i64,
    /// Who holds it.
    pub owner: String,
    /// What is to be done.
    pub task: Task,
    /// How often it was tried since it last went on.
    pub attempts: u32,
    /// The trace context of whoever asked for it.
    pub trace: String,
    /// The payment.
    pub payment: PaymentRecord,
    /// The operation.
    pub operation: OperationRecord,
}

/// What becomes of the outbox row that was worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// It is done.
    Remove,
    /// Again at this time.
    Again {
        /// Microseconds since 1970.
        at: i64,
        /// How often it has been tried by then.
        attempts: u32,
    },
}

/// What becomes of the hold beside the payee's balance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// Nothing.
    Keep,
    /// It begins.
    Put {
        /// Whose balance it stands beside.
        account: AccountName,
        /// The currency.
        currency: Currency,
        /// How much.
        minor_units: i64,
    },
    /// It ends.
    Release,
}

/// What an answer makes of a payment and its operation: applied in one
/// transaction if the payment still has the status and version, else
/// [`StoreError::Conflict`].
#[derive(Debug, Clone)]
pub struct Change {
    /// The payment.
    pub payment_id: Uuid,
    /// The status on which it was decided.
    pub status: Status,
    /// The version on which it was decided.
    pub version: u64,
    /// What the payment becomes.
    pub proven: Proven,
    /// The operation.
    pub operation_id: Uuid,
    /// What the operation becomes.
    pub operation: OperationStatus,
    /// Why the operation failed.
    pub operation_failure: Option<Failure>,
    /// Whether its method token is needed no longer.
    pub erase_method: bool,
    /// Posted with it.
    pub transfers: Vec<Transfer>,
    /// The hold.
    pub hold: Hold,
    /// Whether the room's receipt falls due.
    pub receipt: bool,
    /// The row that was worked on, and by whom.
    pub row: i64,
    /// Who holds it.
    pub owner: String,
    /// What becomes of it.
    pub then: Row,
    /// Microseconds since 1970.
    pub now: i64,
}

/// Which payments of an account.
#[derive(Debug, Clone)]
pub struct Listing {
    /// The account, as payer or payee.
    pub account: Principal,
    /// These statuses; all when empty.
    pub statuses: Vec<Status>,
    /// Older than this payment.
    pub before: Option<Uuid>,
    /// At most so many.
    pub limit: u32,
}

/// The payment area.
#[async_trait]
pub trait PaymentStore: Send + Sync + std::fmt::Debug {
    /// Claims a key and begins what it stands for, in one transaction.
    async fn claim(&self, claim: Claim) -> Result<Claimed, StoreError>;

    /// What stands under a key.
    async fn key(&self, key: &Key) -> Result<Option<KeyRecord>, StoreError>;

    /// One payment.
    async fn payment(&self, id: Uuid) -> Result<Option<PaymentRecord>, StoreError>;

    /// One operation, without its method token.
    async fn operation(&self, id: Uuid) -> Result<Option<OperationRecord>, StoreError>;

    /// The charge of a payment, without its method token.
    async fn charge(&self, payment: Uuid) -> Result<Option<OperationRecord>, StoreError>;

    /// Payments of an account, newest first.
    async fn list(&self, listing: &Listing) -> Result<Vec<PaymentRecord>, StoreError>;

    /// Leases rows that are due, oldest first.
    async fn lease(
        &self,
        owner: &str,
        now: i64,
        until: i64,
        limit: u32,
    ) -> Result<Vec<Leased>, StoreError>;

    /// Notes that a NEW operation, or an UNKNOWN one that the provider proved
    /// not to have, is being sent. Refused ([`StoreError::Conflict`]) when the
    /// lease is no longer held.
    async fn mark_submitting(&self, leased: &Leased, now: i64) -> Result<(), StoreError>;

    /// Applies an outcome.
    async fn record(&self, change: Change) -> Result<(), StoreError>;

    /// Finishes or postpones a row without touching its payment.
    async fn reschedule(&self, leased: &Leased, then: Row) -> Result<(), StoreError>;

    /// Makes a payment's rows due at once, those under lease when it ends.
    async fn hasten(&self, payment: Uuid, now: i64) -> Result<(), StoreError>;

    /// When the next row is due; `None` when there is none.
    async fn next_due(&self) -> Result<Option<i64>, StoreError>;

    /// Takes up what a process left that does not run any more: operations that
    /// it was sending (SUBMITTING) become UNKNOWN, its leases are void. `of`
    /// names the holder of the leases; without it, which only a node that has
    /// the store to itself may ask for, everything is taken up. Returns how many
    /// operations became UNKNOWN.
    async fn recover(&self, now: i64, of: Option<&str>) -> Result<u64, StoreError>;

    /// How full the outbox is, at this time (microseconds since 1970).
    async fn backlog(&self, now: i64) -> Result<Backlog, StoreError>;

    /// Forgets keys that were claimed before a time; returns how many. A key of
    /// a payment on which there is still something to do is kept: whoever sends
    /// it again means that payment, and must not begin another.
    async fn forget_payment_keys(&self, before: i64) -> Result<u64, StoreError>;
}
