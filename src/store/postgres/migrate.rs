//! Brings a database's schema up to date.
//!
//! All pending migrations run in one transaction that begins with an advisory
//! lock: of ten nodes that start at once one migrates, the others wait and then
//! find nothing to do, and a failed migration leaves the database as it was.
//!
//! A database that knows more migrations than this release is refused before
//! anything is changed, unless the newer release wrote into `meta` under
//! `schema_needs` the newest migration that must be known to run on it. Releases
//! expand first and contract one release later, so the release before always
//! runs, and one that is older is refused: each release's first migration raises
//! `schema_needs` to the newest of the release before.

use std::sync::LazyLock;

use sqlx::Connection;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::PgConnection;

use super::advisory::Advisory;
use crate::fault;
use crate::store::StoreError;

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrations = sqlx::migrate!("src/store/migrations/postgres");
    let unknown = usize::try_from(fault::releases_before()).unwrap_or(usize::MAX);
    if unknown > 0 {
        let known = migrations.migrations.len().saturating_sub(unknown);
        migrations.migrations = migrations.migrations.iter().take(known).cloned().collect();
    }
    // The lock below covers more: the look at what is there.
    migrations.set_locking(false);
    migrations
});

/// The newest migration of this release.
pub(crate) fn newest() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

pub(super) async fn run(connection: &mut PgConnection) -> Result<(), StoreError> {
    let mut transaction = connection.begin().await?;
    // A migration of a large table, or another node's, may take its time.
    sqlx::query(
        "SELECT set_config('statement_timeout', '0', true), \
         set_config('lock_timeout', '0', true), \
         set_config('idle_in_transaction_session_timeout', '0', true)",
    )
    .execute(&mut *transaction)
    .await?;
    Advisory::Migrations.lock(&mut transaction).await?;
    let applied = applied(&mut transaction).await?;
    if applied > newest() {
        let needs: Option<String> =
            sqlx::query_scalar("SELECT value FROM meta WHERE key = 'schema_needs'")
                .fetch_optional(&mut *transaction)
                .await?;
        let needs = needs.and_then(|needs| needs.parse().ok()).unwrap_or(applied);
        transaction.rollback().await?;
        return if needs <= newest() { Ok(()) } else { Err(newer(applied, needs)) };
    }
    if applied == newest() && is_ours(&mut transaction).await? {
        // Nothing to make: for that the user need not be one who may.
        return Ok(transaction.rollback().await?);
    }
    match MIGRATIONS.run_direct(None, &mut *transaction, false).await {
        Ok(()) => Ok(transaction.commit().await?),
        Err(MigrateError::VersionMissing(_) | MigrateError::VersionMismatch(_)) => Err(other()),
        Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
            Err(refused(error))
        }
        Err(error) => Err(StoreError::Fault(error.to_string())),
    }
}

/// The newest migration that the database has; 0 for a new one.
pub(super) async fn applied(connection: &mut PgConnection) -> Result<i64, StoreError> {
    let migrated: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    if !migrated {
        return Ok(0);
    }
    let newest = sqlx::query_scalar("SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations");
    newest.fetch_one(connection).await.map_err(|error| match code(&error).as_deref() {
        Some("42501") => StoreError::Version(
            "the database user may not use the tables, which another user made".to_owned(),
        ),
        _ => error.into(),
    })
}

/// Whether exactly this release's migrations made the database.
async fn is_ours(connection: &mut PgConnection) -> Result<bool, StoreError> {
    let found: Vec<(i64, Vec<u8>)> = sqlx::query_as(
        "SELECT version, checksum FROM _sqlx_migrations WHERE success ORDER BY version",
    )
    .fetch_all(connection)
    .await?;
    let own = MIGRATIONS.iter().map(|one| (one.version, one.checksum.to_vec()));
    Ok(own.eq(found))
}

/// Releases are rolled one after the other.
fn newer(applied: i64, needs: i64) -> StoreError {
    StoreError::Version(format!(
        "the database was made by a newer release: its schema is {applied} and needs a release \
         that knows schema {needs}; this one knows {}",
        newest()
    ))
}

fn other() -> StoreError {
    StoreError::Version("the database was made by another release".to_owned())
}

/// Without the right to make tables nothing gets better by waiting.
fn refused(error: sqlx::Error) -> StoreError {
    match code(&error).as_deref() {
        Some("42501" | "3F000") => StoreError::Version(
            "the database user may not make tables in the schema (GRANT CREATE ON SCHEMA)"
                .to_owned(),
        ),
        _ => error.into(),
    }
}

/// PostgreSQL's word for what went wrong.
fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()))
}
