//! A look at the database that changes nothing: for whoever wants to know whether
//! a node could start on it.

use std::sync::Arc;

use secrecy::ExposeSecret as _;
use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::time::timeout;

use super::known::Known;
use super::primary::Primary;
use super::{PgSettings, addresses, migrate};
use crate::store::StoreError;
use crate::store::inspect::{Inspected, UNCERTAIN};

/// Looks. The error is the one that a node would refuse to start with;
/// `before` is in microseconds since 1970.
pub(crate) async fn inspect(settings: &PgSettings, before: i64) -> Result<Inspected, StoreError> {
    let addresses = addresses::parse(settings.url.expose_secret())
        .map_err(|error| StoreError::Version(error.to_string()))?
        .into_iter()
        .map(|address| address.disable_statement_logging())
        .collect();
    let connect_timeout = settings.connect_timeout;
    let primary = Primary { addresses, known: Arc::new(Known::default()), connect_timeout };
    let (_, mut connection) = primary.find().await?;
    let seen = timeout(settings.statement_timeout, look(&mut connection, before)).await;
    let _ = timeout(connect_timeout, connection.close()).await;
    seen.unwrap_or_else(|_| Err(StoreError::Unavailable("the server is slow".to_owned())))
}

async fn look(connection: &mut PgConnection, before: i64) -> Result<Inspected, StoreError> {
    let schema = migrate::applied(connection).await?;
    if schema < migrate::newest() && !may_create(connection).await? {
        return Err(StoreError::Version(
            "the user may not create tables, and the schema is not up to date".to_owned(),
        ));
    }
    let mut seen = Inspected { schema, ..Inspected::default() };
    if schema == 0 {
        return Ok(seen);
    }
    let partitions: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM partition").fetch_one(&mut *connection).await?;
    let [submitting, unknown] = UNCERTAIN.map(|status| status as i16);
    let stuck: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM operation WHERE status IN ($1, $2) AND updated_at < $3",
    )
    .bind(submitting)
    .bind(unknown)
    .bind(before)
    .fetch_one(&mut *connection)
    .await?;
    let overdue: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM outbox WHERE next_at < $1")
        .bind(before)
        .fetch_one(&mut *connection)
        .await?;
    seen.partitions = partitions.unsigned_abs();
    seen.stuck = stuck.unsigned_abs();
    seen.overdue = overdue.unsigned_abs();
    Ok(seen)
}

async fn may_create(connection: &mut PgConnection) -> Result<bool, StoreError> {
    let may: Option<bool> =
        sqlx::query_scalar("SELECT has_schema_privilege(current_schema(), 'CREATE')")
            .fetch_one(connection)
            .await?;
    Ok(may.unwrap_or(false))
}
