//! A look at the file beside running nodes, which changes nothing.

use std::path::{Path, PathBuf};

use sqlx::ConnectOptions as _;
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnection, SqlitePoolOptions};

use super::ledger::audit::audit;
use super::{migrate, reading};
use crate::store::StoreError;
use crate::store::inspect::{Inspected, UNCERTAIN};

/// A file that is looked at. It may be of any release, so that each table may
/// be missing.
#[derive(Debug)]
pub(crate) struct Inspection {
    path: PathBuf,
    db: SqliteConnection,
}

impl Inspection {
    /// Opens the file, which must be there.
    pub(crate) async fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { path: path.to_owned(), db: reading(path).connect().await? })
    }

    /// What SQLite's own check finds; nothing when the file is sound.
    pub(crate) async fn damage(&mut self) -> Result<Vec<String>, StoreError> {
        let found: Vec<String> =
            sqlx::query_scalar("PRAGMA integrity_check(10)").fetch_all(&mut self.db).await?;
        Ok(found.into_iter().filter(|line| line != "ok").collect())
    }

    /// What the ledger's audit finds.
    pub(crate) async fn ledger(&mut self) -> Result<Vec<String>, StoreError> {
        if !self.has("ledger_entry").await? {
            return Ok(Vec::new());
        }
        let pool = SqlitePoolOptions::new().max_connections(1);
        let pool = pool.connect_with(reading(&self.path)).await?;
        let found = audit(&pool).await;
        pool.close().await;
        found
    }

    /// What a node would find; `before` is in microseconds since 1970.
    pub(crate) async fn look(&mut self, before: i64) -> Result<Inspected, StoreError> {
        let mut seen =
            Inspected { schema: migrate::applied(&mut self.db).await?, ..Inspected::default() };
        if self.has("partition").await? {
            let count = sqlx::query_scalar("SELECT COUNT(*) FROM \"partition\"");
            seen.partitions = count.fetch_one(&mut self.db).await.map(i64::unsigned_abs)?;
        }
        if self.has("operation").await? {
            let [submitting, unknown] = UNCERTAIN.map(|status| status as i64);
            let count = sqlx::query_scalar(
                "SELECT COUNT(*) FROM operation WHERE status IN (?, ?) AND updated_at < ?",
            );
            let count = count.bind(submitting).bind(unknown).bind(before);
            seen.stuck = count.fetch_one(&mut self.db).await.map(i64::unsigned_abs)?;
        }
        if self.has("outbox").await? {
            let count = sqlx::query_scalar("SELECT COUNT(*) FROM outbox WHERE next_at < ?");
            let count = count.bind(before);
            seen.overdue = count.fetch_one(&mut self.db).await.map(i64::unsigned_abs)?;
        }
        Ok(seen)
    }

    /// Whether there are payments.
    pub(crate) async fn has_payments(&mut self) -> Result<bool, StoreError> {
        let any = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM payment)");
        Ok(self.has("payment").await? && any.fetch_one(&mut self.db).await?)
    }

    /// Closes it.
    pub(crate) async fn close(self) -> Result<(), StoreError> {
        Ok(self.db.close().await?)
    }

    async fn has(&mut self, table: &str) -> Result<bool, StoreError> {
        let found = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?)",
        );
        Ok(found.bind(table).fetch_one(&mut self.db).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::payment::OperationStatus;
    use crate::store::sqlite::{SqliteStore, newest, writing};

    #[tokio::test]
    async fn what_is_stuck_and_overdue_is_counted() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("simpul.db");
        let store = SqliteStore::open(&path, 1).await.expect("opened");
        store.close().await.expect("closed");
        let mut db = writing(&path).foreign_keys(false).connect().await.expect("opened");
        for status in OperationStatus::ALL {
            let number = *status as i64;
            sqlx::query(
                "INSERT INTO operation (id, payment_id, kind, status, minor_units, provider_key, \
                 created_at, updated_at) VALUES (?1, ?1, 1, ?2, 1, ?3, 10, 10)",
            )
            .bind(number.to_be_bytes().as_slice())
            .bind(number)
            .bind(status.as_str())
            .execute(&mut db)
            .await
            .expect("planted");
        }
        sqlx::query(
            "INSERT INTO outbox (task, payment_id, operation_id, next_at, trace, created_at) \
             VALUES (1, x'00', x'00', 10, '', 10)",
        )
        .execute(&mut db)
        .await
        .expect("planted");
        db.close().await.expect("closed");

        let mut file = Inspection::open(&path).await.expect("opened");
        assert_eq!(file.damage().await.expect("checked"), [""; 0]);
        assert_eq!(file.ledger().await.expect("checked"), [""; 0]);
        assert!(!file.has_payments().await.expect("looked"));
        let seen = file.look(11).await.expect("looked");
        assert_eq!((seen.schema, seen.stuck, seen.overdue), (newest(), 2, 1));
        let seen = file.look(10).await.expect("looked");
        assert_eq!((seen.stuck, seen.overdue), (0, 0));
        file.close().await.expect("closed");
    }

    #[tokio::test]
    async fn a_file_without_tables_is_an_empty_database() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut file = Inspection::open(file.path()).await.expect("opened");
        assert_eq!(file.look(i64::MAX).await.expect("looked"), Inspected::default());
        assert!(!file.has_payments().await.expect("looked"));
    }
}
