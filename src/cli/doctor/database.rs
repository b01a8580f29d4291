//! Looks into the database, beside running nodes and without changing anything.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::facts::{DatabaseFacts, ServerProblem};
use crate::clock::micros;
use crate::store::StoreError;
use crate::store::postgres::PgSettings;
use crate::store::postgres::inspect::inspect;
use crate::store::sqlite::inspect::Inspection;

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
    match inspect(settings, before(now)).await {
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
            Err(ServerProblem { refused, why: why(error) })
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
        facts.problem = Some(why(error));
    }
    Some(facts)
}

async fn inside(
    path: &Path,
    newest: i64,
    now: SystemTime,
    facts: &mut DatabaseFacts,
) -> Result<(), StoreError> {
    let mut file = Inspection::open(path).await?;
    facts.damage = file.damage().await?;
    facts.ledger = match file.ledger().await {
        Ok(found) => found.into_iter().take(EACH).collect(),
        Err(error) => vec![format!("it cannot be checked: {error}")],
    };
    let seen = file.look(before(now)).await?;
    facts.version = Some((seen.schema, newest));
    facts.partitions = seen.partitions;
    facts.stuck_payments = seen.stuck;
    facts.overdue_tasks = seen.overdue;
    facts.has_payments = file.has_payments().await?;
    file.close().await
}

/// What is wrong, without the sort of it.
fn why(error: StoreError) -> String {
    match error {
        StoreError::Unavailable(why)
        | StoreError::Corrupt(why)
        | StoreError::Version(why)
        | StoreError::Fault(why) => why,
        StoreError::Conflict(why) => why.to_owned(),
    }
}

/// What happened before this is long ago.
fn before(now: SystemTime) -> i64 {
    micros(now.checked_sub(LONG).unwrap_or(now))
}
