//! What a database's error means for the store: the one place that reads the
//! codes of both engines.
//!
//! A server's message may quote values (`invalid input syntax for type …`,
//! constraint details). Only those that speak of the server's own state are
//! passed on; of the others the code and the constraint's name are.

use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;

use super::StoreError;

/// The database asks for the transaction to be run again: a serialization
/// failure or a deadlock. Nothing was kept.
pub(crate) const TRY_AGAIN: &str = "the database asks for the transaction to be run again";

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::BeginFailed
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => StoreError::Unavailable(error.to_string()),
            sqlx::Error::Database(inner) => match inner.try_downcast_ref::<PgDatabaseError>() {
                Some(error) => postgres(error),
                None => sqlite(&**inner),
            },
            _ => StoreError::Fault(error.to_string()),
        }
    }
}

fn sqlite(error: &dyn DatabaseError) -> StoreError {
    // The primary result code is the low byte: BUSY 5, LOCKED 6, NOMEM 7,
    // READONLY 8, IOERR 10, FULL 13, CANTOPEN 14, PROTOCOL 15; CORRUPT 11,
    // NOTADB 26.
    let code = error.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or(0);
    match code & 0xff {
        5..=8 | 10 | 13..=15 => StoreError::Unavailable(error.to_string()),
        11 | 26 => StoreError::Corrupt(error.to_string()),
        _ => StoreError::Fault(error.to_string()),
    }
}

fn postgres(error: &PgDatabaseError) -> StoreError {
    let code = error.code();
    match (code, code.get(..2).unwrap_or("")) {
        ("40001" | "40P01", _) => StoreError::Conflict(TRY_AGAIN),
        ("XX001" | "XX002", _) => StoreError::Corrupt(error.message().to_owned()),
        // A lock or a statement took too long, the transaction idled or stands
        // on a server that became a standby, a right was withdrawn; then the
        // classes: connection, authentication, no such database, resources,
        // an operator's doing, the system.
        ("55P03" | "25P02" | "25P03" | "25P04" | "25006" | "42501", _)
        | (_, "08" | "28" | "3D" | "53" | "57" | "58") => {
            StoreError::Unavailable(format!("{} ({code})", error.message()))
        }
        _ => {
            let at = error.constraint().or(error.table()).unwrap_or("no constraint");
            StoreError::Fault(format!("SQLSTATE {code}, {at}"))
        }
    }
}
