//! What the nodes have alike, as rows of `meta`: no release minds what it does
//! not ask for there.

use sqlx::sqlite::SqliteConnection;

use crate::store::StoreError;
use crate::store::cluster::Agreement;

/// The first one's word stands.
pub(super) async fn agree(
    connection: &mut SqliteConnection,
    own: Agreement,
) -> Result<Agreement, StoreError> {
    Ok(Agreement {
        cluster: first(&mut *connection, "cluster_name", own.cluster).await?,
        trust_domain: first(connection, "trust_domain", own.trust_domain).await?,
    })
}

async fn first(
    connection: &mut SqliteConnection,
    key: &'static str,
    own: String,
) -> Result<String, StoreError> {
    sqlx::query("INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT DO NOTHING")
        .bind(key)
        .bind(own)
        .execute(&mut *connection)
        .await?;
    let stands = sqlx::query_scalar("SELECT value FROM meta WHERE key = ?").bind(key);
    Ok(stands.fetch_one(connection).await?)
}
