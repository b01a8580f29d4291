//! The embedded engine: one SQLite file in write-ahead mode.
//!
//! Reading goes through a pool of read-only connections. Writing goes through
//! one [`writer::Writer`], which commits many callers' writes at once and
//! returns to each only after the commit was fsynced (`synchronous = FULL`).

mod chat;
mod ledger;
mod payment;
pub mod writer;

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use self::writer::Writer;
use super::StoreError;

/// The engine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    writer: Writer,
    readers: SqlitePool,
}

impl SqliteStore {
    /// Opens or makes the database and brings its schema up to date.
    pub async fn open(path: &Path, readers: u32) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5))
            .pragma("secure_delete", "ON")
            .statement_cache_capacity(256);
        let writer = Writer::open(options.clone()).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(readers)
            .connect_with(options.read_only(true).create_if_missing(false))
            .await
            .map_err(StoreError::from)?;
        Ok(Self { writer, readers })
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => StoreError::Unavailable(error.to_string()),
            sqlx::Error::Database(inner) => {
                // The primary result code is the low byte: BUSY 5, LOCKED 6,
                // READONLY 8, IOERR 10, FULL 13, CANTOPEN 14; CORRUPT 11, NOTADB 26.
                let code = inner.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or(0);
                match code & 0xff {
                    5 | 6 | 8 | 10 | 13 | 14 => StoreError::Unavailable(inner.to_string()),
                    11 | 26 => StoreError::Corrupt(inner.to_string()),
                    _ => StoreError::Fault(inner.to_string()),
                }
            }
            _ => StoreError::Fault(error.to_string()),
        }
    }
}
