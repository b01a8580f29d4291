//! The payment area on SQLite.
