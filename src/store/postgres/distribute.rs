//! The same engine on several servers: Citus.
//!
//! Chat alone is distributed, by partition: everything that one append writes
//! has the same partition, is on the same server, and is one transaction there.
//! Payments, the ledger and the cluster's own tables stay where they are, on the
//! coordinator: a posting touches accounts that have nothing in common.
//!
//! Declared by an operator, once, with nodes stopped or not: the tables are
//! locked while their rows move. A node that was running sees it after a
//! restart; until then it appends with the statements for one server, and what
//! Citus refuses of them is not acknowledged.

use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Row as _};

use super::{PgSettings, PgStore};
use crate::store::StoreError;

/// The tables in the order in which they are declared, with the column that
/// holds the partition. The first one is what the others lie beside.
const TABLES: [(&str, &str); 5] = [
    ("\"partition\"", "id"),
    ("room", "partition"),
    ("entry", "partition"),
    ("entry_key", "partition"),
    ("member", "partition"),
];

/// What `distribute` found and did, table by table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distributed {
    /// The table.
    pub table: String,
    /// It was distributed before.
    pub already: bool,
}

/// Declares chat's tables distributed by partition, each of `shards` shards.
/// Refuses with [`StoreError::Version`] a database without the extension.
/// Running it again changes nothing.
pub async fn distribute(settings: PgSettings, shards: u32) -> Result<Vec<Distributed>, StoreError> {
    let store = PgStore::open(settings).await?;
    let mut connection = store.pool().acquire().await?.detach();
    let done = declare(&mut connection, shards).await;
    let _ = connection.close().await;
    store.close().await;
    done
}

async fn declare(
    connection: &mut PgConnection,
    shards: u32,
) -> Result<Vec<Distributed>, StoreError> {
    if !has_extension(connection).await? {
        return Err(StoreError::Version(
            "the database has no extension citus (CREATE EXTENSION citus)".to_owned(),
        ));
    }
    let mut transaction = connection.begin().await?;
    sqlx::query(
        "SELECT set_config('statement_timeout', '0', true), set_config('lock_timeout', '0', true), \
         set_config('citus.shard_count', $1, true)",
    )
    .bind(shards.clamp(1, 4096).to_string())
    .execute(&mut *transaction)
    .await?;
    let mut done = Vec::new();
    for (table, column) in TABLES {
        let already = is_declared(&mut transaction, table).await?;
        if !already {
            let beside = if done.is_empty() { "default" } else { "\"partition\"" };
            sqlx::query("SELECT create_distributed_table($1::regclass, $2, colocate_with => $3)")
                .bind(table)
                .bind(column)
                .bind(beside)
                .execute(&mut *transaction)
                .await
                .map_err(told)?;
        }
        done.push(Distributed { table: table.trim_matches('"').to_owned(), already });
    }
    transaction.commit().await?;
    Ok(done)
}

/// What Citus refuses is for the operator to read; it speaks of tables alone.
fn told(error: sqlx::Error) -> StoreError {
    match error.as_database_error() {
        Some(said) => StoreError::Version(said.message().to_owned()),
        None => error.into(),
    }
}

async fn has_extension(connection: &mut PgConnection) -> Result<bool, StoreError> {
    let found = sqlx::query("SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus')")
        .fetch_one(connection)
        .await?;
    Ok(found.try_get(0)?)
}

async fn is_declared(connection: &mut PgConnection, table: &str) -> Result<bool, StoreError> {
    let found = sqlx::query(
        "SELECT EXISTS (SELECT FROM pg_dist_partition \
         WHERE logicalrelid = $1::regclass AND partmethod = 'h')",
    )
    .bind(table)
    .fetch_one(connection)
    .await?;
    Ok(found.try_get(0)?)
}

/// Whether the database has chat's tables distributed.
pub(super) async fn is_distributed(connection: &mut PgConnection) -> Result<bool, StoreError> {
    Ok(has_extension(connection).await? && is_declared(connection, "\"partition\"").await?)
}
