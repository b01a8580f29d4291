//! Looks into the database, beside running nodes and without changing anything.

use std::path::Path;
use std::time::{Duration, SystemTime};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePoolOptions};
use sqlx::{ConnectOptions, Connection};

use super::facts::{DatabaseFacts, ServerProblem};
use crate::clock::micros;
use crate::store::StoreError;
use crate::store::postgres::PgSettings;
use crate::store::postgres::inspect::inspect;
use crate::store::sqlite::ledger::audit::audit;

/// How long an outcome may be unknown, or a task overdue, before it is told.
const LONG: Duration = Duration::from_secs(15 * 60);

/// How many lines of each sort are told.
const EACH: usize = 10;

/// Asks a database server.
pub(super) async fn ask(
    settings: &PgSettings,
    newest: i64,
    now: SystemTime,
) -> Result<DatabaseFacts, ServerProblem> {
    let before = micros(now.checked_sub(LONG).unwrap_or(now));
    match inspect(settings, before).await {
        Ok(seen) => Ok(DatabaseFacts {
            writable: true,
            version: Some((seen.schema, newest)),
            partitions: seen.partitions,
            stuck_payments: seen.stuck,
            overdue_tasks: seen.overdue,
            ..DatabaseFacts::default()
        }),
        Err(error) => {
            let refused = !matches!(error, StoreError::Unavailable(_));
            let why = match error {
                StoreError::Unavailable(why) | StoreError::Version(why) => why,
                other => other.to_string(),
            };
            Err(ServerProblem { refused, why })
        }
    }
}

/// Looks at one database file; `None` when there is none.
pub(super) async fn look(path: &Path, newest: i64, now: SystemTime) -> Option<DatabaseFacts> {
    let meta = std::fs::metadata(path).ok()?;
    let writable = rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
    let wal = std::fs::metadata(path.with_extension("db-wal")).ok();
    let last_write =
        [Some(meta), wal].into_iter().flatten().filter_map(|meta| meta.modified().ok()).max();
    let mut facts = DatabaseFacts { writable, last_write, ..DatabaseFacts::default() };
    if let Err(error) = inside(path, newest, now, &mut facts).await {
        facts.problem = Some(error.to_string());
    }
    Some(facts)
}

async fn inside(
    path: &Path,
    newest: i64,
    now: SystemTime,
    facts: &mut DatabaseFacts,
) -> Result<(), sqlx::Error> {
    let mut db = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .create_if_missing(false)
        .busy_timeout(Duration::from_secs(5))
        .connect()
        .await?;
    let check: Vec<String> =
        sqlx::query_scalar("PRAGMA integrity_check(10)").fetch_all(&mut db).await?;
    facts.damage = check.into_iter().filter(|line| line != "ok").collect();
    if has_table(&mut db, "_sqlx_migrations").await? {
        let theirs: i64 =
            sqlx::query_scalar("SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations")
                .fetch_one(&mut db)
                .await?;
        facts.version = Some((theirs, newest));
    }
    if has_table(&mut db, "ledger_entry").await? {
        facts.ledger = ledger(path).await?;
    }
    if has_table(&mut db, "partition").await? {
        let count: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM \"partition\"").fetch_one(&mut db).await?;
        facts.partitions = count.unsigned_abs();
    }
    if has_table(&mut db, "payment").await? {
        let any: i64 =
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM payment)").fetch_one(&mut db).await?;
        facts.has_payments = any != 0;
    }
    let before = micros(now.checked_sub(LONG).unwrap_or(now));
    if has_table(&mut db, "operation").await? {
        // Status 2 is submitting, 5 unknown.
        let stuck: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM operation WHERE status IN (2, 5) AND updated_at < ?",
        )
        .bind(before)
        .fetch_one(&mut db)
        .await?;
        facts.stuck_payments = stuck.unsigned_abs();
    }
    if has_table(&mut db, "outbox").await? {
        let overdue: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM outbox WHERE next_at < ?")
            .bind(before)
            .fetch_one(&mut db)
            .await?;
        facts.overdue_tasks = overdue.unsigned_abs();
    }
    db.close().await
}

/// What the store's own audit finds, read-only.
async fn ledger(path: &Path) -> Result<Vec<String>, sqlx::Error> {
    let options = SqliteConnectOptions::new().filename(path).read_only(true);
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
    let found = audit(&pool).await;
    pool.close().await;
    found
        .map(|mut found| {
            found.truncate(EACH);
            found
        })
        .or_else(|error| Ok(vec![format!("it cannot be checked: {error}")]))
}

async fn has_table(db: &mut SqliteConnection, name: &str) -> Result<bool, sqlx::Error> {
    let found: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM sqlite_schema WHERE type = 'table' AND name = ?")
            .bind(name)
            .fetch_one(db)
            .await?;
    Ok(found > 0)
}
