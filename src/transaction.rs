//! Histories and balances.
