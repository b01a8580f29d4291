//! Looks into the embedded database, beside a running node and without
//! changing anything.

use std::path::Path;
use std::time::{Duration, SystemTime};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};

use super::facts::DatabaseFacts;
use crate::clock::micros;

/// How long an outcome may be unknown, or a task overdue, before it is told.
const LONG: Duration = Duration::from_secs(15 * 60);

/// How many lines of each sort are told.
const EACH: usize = 10;

/// What a sound ledger answers with no row.
const LEDGER: [&str; 3] = [
    "SELECT 'the entries of ' || currency || ' sum to ' || SUM(minor_units) FROM ledger_entry \
     GROUP BY currency HAVING SUM(minor_units) <> 0",
    "SELECT 'the positions of ' || account || ' have gaps' FROM ledger_entry \
     GROUP BY account HAVING COUNT(*) <> MAX(position) OR MIN(position) <> 1",
    "SELECT 'the balance of ' || account || ' in ' || currency || ' is not the sum of its entries' \
     FROM (SELECT account, currency, posted, 0 AS entries FROM account_balance \
       UNION ALL SELECT account, currency, 0, SUM(minor_units) FROM ledger_entry \
       GROUP BY account, currency) \
     GROUP BY account, currency HAVING SUM(posted) <> SUM(entries)",
];

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
        for rule in LEDGER {
            let broken: Vec<String> = sqlx::query_scalar(rule).fetch_all(&mut db).await?;
            facts.ledger.extend(broken.into_iter().take(EACH));
        }
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

async fn has_table(db: &mut SqliteConnection, name: &str) -> Result<bool, sqlx::Error> {
    let found: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM sqlite_schema WHERE type = 'table' AND name = ?")
            .bind(name)
            .fetch_one(db)
            .await?;
    Ok(found > 0)
}
