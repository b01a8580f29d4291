//! The chat area on SQLite.
