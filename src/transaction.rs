//! Histories and balances: what callers may see of the ledger.
//!
//! Customers and merchants read their own accounts, support and auditors
//! anyone's; what belongs to somebody else is NOT_FOUND.

mod history;
mod request;
mod service;
#[cfg(test)]
mod tests;
mod touched;

pub use service::Transactions;
pub use touched::{Subscription, Touched};
