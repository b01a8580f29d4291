//! What the nodes have alike, as rows of `meta`: no release minds what it does
//! not ask for there.

use sqlx::postgres::PgConnection;

use crate::store::StoreError;
use crate::store::cluster::Agreement;

/// The first one's word stands; each is written and read by itself, for nothing
/// ever changes it.
pub(super) async fn agree(
    connection: &mut PgConnection,
    own: &Agreement,
) -> Result<Agreement, StoreError> {
    Ok(Agreement {
        cluster: first(&mut *connection, "cluster_name", &own.cluster).await?,
        trust_domain: first(connection, "trust_domain", &own.trust_domain).await?,
    })
}

async fn first(connection: &mut PgConnection, key: &str, own: &str) -> Result<String, StoreError> {
    // Waits for another node's, if that is being written.
    sqlx::query("INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(key)
        .bind(own)
        .execute(&mut *connection)
        .await?;
    // A later statement: it sees what the one before waited for.
    let stands = sqlx::query_scalar("SELECT value FROM meta WHERE key = $1").bind(key);
    Ok(stands.fetch_one(connection).await?)
}
