//! The advisory locks that this program takes in a database: every one of them
//! is named here, so that no two are the same by accident. They are the
//! transaction's, and end with it.

use sqlx::postgres::PgConnection;

/// What is done by one session at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Advisory {
    /// The schema is looked at and brought up to date.
    Migrations = 1,
    /// The sandbox provider books.
    Books = 2,
    /// The partitions are made.
    Partitions = 3,
}

impl Advisory {
    /// "simpul" and the number. The compiler refuses two of one number.
    fn key(self) -> i64 {
        i64::from_be_bytes([b's', b'i', b'm', b'p', b'u', b'l', 0, self as u8])
    }

    /// Waits for the lock and holds it to the end of the transaction.
    pub(crate) async fn lock(self, transaction: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT pg_advisory_xact_lock($1)")
            .bind(self.key())
            .execute(transaction)
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes of two releases must mean the same lock.
    #[test]
    fn keys_stay_what_they_are() {
        let all = [Advisory::Migrations, Advisory::Books, Advisory::Partitions];
        let keys = all.map(Advisory::key);
        let first = 0x7369_6d70_756c_0001;
        assert_eq!(keys, [first, first + 1, first + 2]);
    }
}
