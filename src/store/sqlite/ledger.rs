//! The ledger area on SQLite.
