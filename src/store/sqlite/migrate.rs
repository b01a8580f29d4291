//! Brings a database's schema up to date.
//!
//! All pending migrations run in one transaction that begins IMMEDIATE: of two
//! processes that start at once the second waits and then finds nothing to do,
//! and a failed migration leaves the database as it was.
//!
//! A database that knows more migrations than this release is refused before
//! anything is changed, unless the newer release wrote into `meta` under
//! `schema_needs` the newest migration that must be known to run on it: one that
//! only expanded the schema does so.

use sqlx::Connection;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::SqliteConnection;

use crate::store::StoreError;

static MIGRATIONS: Migrator = sqlx::migrate!("src/store/migrations/sqlite");

/// The newest migration of this release.
pub(crate) fn newest() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

pub(super) async fn run(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    if applied(&mut transaction).await? > newest() {
        let needs: Option<String> =
            sqlx::query_scalar("SELECT value FROM meta WHERE key = 'schema_needs'")
                .fetch_optional(&mut *transaction)
                .await?;
        let runs = needs.and_then(|needs| needs.parse::<i64>().ok()).is_some_and(|n| n <= newest());
        transaction.rollback().await?;
        return if runs { Ok(()) } else { Err(newer()) };
    }
    match MIGRATIONS.run_direct(None, &mut *transaction, false).await {
        Ok(()) => Ok(transaction.commit().await?),
        Err(MigrateError::VersionMissing(_) | MigrateError::VersionMismatch(_)) => Err(newer()),
        Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
            Err(error.into())
        }
        Err(error) => Err(StoreError::Fault(error.to_string())),
    }
}

/// The newest migration that the database has; 0 for a new one.
pub(crate) async fn applied(connection: &mut SqliteConnection) -> Result<i64, StoreError> {
    let migrated: i64 = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '_sqlx_migrations')",
    )
    .fetch_one(&mut *connection)
    .await?;
    if migrated == 0 {
        return Ok(0);
    }
    let newest = sqlx::query_scalar("SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations");
    Ok(newest.fetch_one(connection).await?)
}

fn newer() -> StoreError {
    StoreError::Version("the database was made by another, newer release".to_owned())
}
