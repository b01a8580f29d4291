//! The ledger: immutable double-entry transfers in integer minor units.

use async_trait::async_trait;
use uuid::Uuid;

use super::StoreError;
use super::words::words;
use crate::money::{Currency, Money};
use crate::principal::Principal;

/// An account's name: a principal's text form, or one of the node's own names
/// (`provider_clearing:sandbox`, `refunds_payable`, `suspense`, `fees`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountName(String);

impl AccountName {
    /// A principal's account.
    pub fn of(principal: &Principal) -> Self {
        Self(principal.to_string())
    }

    /// Where money from and to a provider passes.
    pub fn provider_clearing(provider: &str) -> Self {
        Self(format!("provider_clearing:{provider}"))
    }

    /// Money set aside for refunds that are under way.
    pub fn refunds_payable() -> Self {
        Self("refunds_payable".to_owned())
    }

    /// Money that came although its payment had ended.
    pub fn suspense() -> Self {
        Self("suspense".to_owned())
    }

    /// A name as it stands in the store.
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

words! {
    /// Why money moved; the numbers are the contract's `TransactionKind`.
    TransactionKind {
        /// Clearing to payer.
        Funding = 1, "FUNDING";
        /// Payer to payee.
        Payment = 2, "PAYMENT";
        /// Payee to refunds_payable.
        RefundReserved = 3, "REFUND_RESERVED";
        /// refunds_payable to payer.
        Refund = 4, "REFUND";
        /// refunds_payable back to payee.
        RefundReleased = 5, "REFUND_RELEASED";
        /// Payer to clearing.
        Payback = 6, "PAYBACK";
    }
}

/// One movement: out of one account, into another. It gives two entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Movement {
    /// Out of.
    pub from: AccountName,
    /// Into.
    pub to: AccountName,
    /// How much, above 0.
    pub minor_units: i64,
    /// Why.
    pub kind: TransactionKind,
    /// Refuses ([`StoreError::Conflict`]) if `from` would fall below zero.
    pub needs_balance: bool,
}

/// Movements that are posted together or not at all, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Derived from (operation, step), so that posting twice is refused.
    pub id: Uuid,
    /// The payment.
    pub payment_id: Uuid,
    /// The currency of every movement.
    pub currency: Currency,
    /// The movements.
    pub movements: Vec<Movement>,
    /// Microseconds since 1970.
    pub posted_at: i64,
}

/// One entry on one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEntry {
    /// Its own id.
    pub id: Uuid,
    /// The account.
    pub account: AccountName,
    /// The position in the account's history: 1, 2, 3 … without gaps, over all
    /// its currencies.
    pub position: u64,
    /// Why it moved.
    pub kind: TransactionKind,
    /// Positive into the account, negative out of it.
    pub amount: Money,
    /// The account's balance in that currency after it.
    pub balance_after: i64,
    /// The other side.
    pub counterparty: AccountName,
    /// The payment.
    pub payment_id: Uuid,
    /// The transfer.
    pub transfer_id: Uuid,
    /// Microseconds since 1970.
    pub posted_at: i64,
}

/// A balance in one currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BalanceRecord {
    /// What was posted.
    pub posted: Money,
    /// What authorized payments to the account hold, not yet captured.
    pub held: i64,
}

/// Which entries of an account.
#[derive(Debug, Clone, Default)]
pub struct HistoryFilter {
    /// Posted at or after, microseconds since 1970.
    pub from: Option<i64>,
    /// Posted before, microseconds since 1970.
    pub before: Option<i64>,
    /// These kinds; all when empty.
    pub kinds: Vec<TransactionKind>,
}

/// A page of a history. `scanned` is the last position that was looked at, so
/// that a filter that matches nothing still advances the cursor.
#[derive(Debug, Clone)]
pub struct HistoryPage {
    /// By position.
    pub entries: Vec<LedgerEntry>,
    /// The cursor after this page.
    pub scanned: u64,
    /// Whether the page reached the account's newest position.
    pub at_head: bool,
}

/// The [`StoreError::Conflict`] of a transfer whose id was posted before.
pub const ALREADY_POSTED: &str = "the transfer was posted before";

/// The [`StoreError::Conflict`] of a movement out of an account that lacks it.
pub const LACKS_BALANCE: &str = "the balance does not suffice";

/// The [`StoreError::Conflict`] of a second hold of one payment.
pub const HELD: &str = "the payment holds already";

/// What an audit of the whole ledger found wrong; empty when all is well.
pub type AuditFindings = Vec<String>;

/// The ledger area. A payment's postings are the payment area's doing: its
/// transactions call the engine's own `post`.
#[async_trait]
pub trait LedgerStore: Send + Sync + std::fmt::Debug {
    /// Posts a transfer in a transaction of its own: a correction. Returns the
    /// accounts that it touched, sorted. [`StoreError::Conflict`] with
    /// [`ALREADY_POSTED`] or [`LACKS_BALANCE`] when it is refused.
    async fn post(&self, transfer: Transfer) -> Result<Vec<AccountName>, StoreError>;

    /// Entries after a position, by position.
    async fn history(
        &self,
        account: &AccountName,
        after: u64,
        filter: &HistoryFilter,
        limit: u32,
    ) -> Result<HistoryPage, StoreError>;

    /// The newest position of an account; 0 when nothing ever moved on it.
    async fn history_head(&self, account: &AccountName) -> Result<u64, StoreError>;

    /// One entry.
    async fn ledger_entry(&self, id: Uuid) -> Result<Option<LedgerEntry>, StoreError>;

    /// Balances by currency code.
    async fn balances(&self, account: &AccountName) -> Result<Vec<BalanceRecord>, StoreError>;

    /// Checks every rule of the ledger: sums per currency, balances as folds of
    /// entries, positions without gaps, one posting per operation and step.
    async fn audit(&self) -> Result<AuditFindings, StoreError>;
}
