//! A session with the server: what is set on it, and whether the server may be
//! used at all. Runs on every new connection, so that no pool ever holds one to
//! a standby, to an older timeline or to another database.

use std::time::Duration;

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::chat::PREPARE_FENCE;
use super::known::Seen;
use crate::store::StoreError;

/// PostgreSQL 13, as `server_version_num` says it.
const OLDEST: i32 = 130_000;

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Reading and ordinary transactions.
    General,
    /// Holding the fence of a partition: whoever freezes there loses it soon.
    Fencing,
}

/// How long a fencing session may stand still inside its transaction.
const FENCE_IDLE: Duration = Duration::from_millis(500);

/// How long a fencing session waits for a lock that is not a partition's.
const FENCE_LOCK: Duration = Duration::from_secs(1);

/// How long the server sends to a fencing client that does not acknowledge.
const FENCE_SILENT: Duration = Duration::from_secs(2);

/// What is set on a session.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) name: String,
    pub(super) purpose: Purpose,
    pub(super) statement_timeout: Duration,
}

impl Session {
    /// Sets everything in one statement. Not as start-up options: poolers
    /// refuse those. A fencing session also prepares its fence: the schema is
    /// up to date before there is one.
    pub(super) async fn set_up(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let statement = self.statement_timeout;
        let (idle, lock, silent) = match self.purpose {
            Purpose::General => (statement, statement, statement * 2),
            Purpose::Fencing => (FENCE_IDLE, FENCE_LOCK, FENCE_SILENT),
        };
        let millis = |time: Duration| time.as_millis().clamp(1, 86_400_000).to_string();
        sqlx::query(
            "SELECT set_config('application_name', $1, false), \
             set_config('statement_timeout', $2, false), \
             set_config('idle_in_transaction_session_timeout', $3, false), \
             set_config('lock_timeout', $4, false), \
             set_config('tcp_user_timeout', $5, false), \
             set_config('default_transaction_isolation', 'read committed', false), \
             set_config('plan_cache_mode', 'auto', false)",
        )
        .bind(&self.name)
        .bind(millis(statement))
        .bind(millis(idle))
        .bind(millis(lock))
        .bind(millis(silent))
        .execute(&mut *connection)
        .await?;
        if self.purpose == Purpose::Fencing {
            sqlx::raw_sql(PREPARE_FENCE).execute(connection).await?;
        }
        Ok(())
    }
}

/// Looks at the server. The error says why it cannot be used: `Version` when
/// waiting does not help.
pub(super) async fn look(connection: &mut PgConnection) -> Result<Seen, StoreError> {
    let row = sqlx::query(
        "SELECT pg_is_in_recovery(), current_setting('server_version_num')::int4, \
         current_setting('server_encoding'), current_setting('synchronous_commit'), \
         current_setting('transaction_read_only') = 'on'",
    )
    .fetch_one(&mut *connection)
    .await?;
    let (recovery, version): (bool, i32) = (row.try_get(0)?, row.try_get(1)?);
    let (encoding, commit): (String, String) = (row.try_get(2)?, row.try_get(3)?);
    let read_only: bool = row.try_get(4)?;
    if version < OLDEST {
        let major = version / 10_000;
        return Err(StoreError::Version(format!(
            "the server is PostgreSQL {major}; 13 is the oldest that is supported"
        )));
    }
    if recovery {
        return Err(StoreError::Unavailable("the server is a standby".to_owned()));
    }
    if encoding != "UTF8" {
        return Err(StoreError::Version(format!(
            "the database's encoding is {encoding}; it must be UTF8"
        )));
    }
    if !matches!(commit.as_str(), "on" | "remote_apply") {
        return Err(StoreError::Version(format!(
            "synchronous_commit is {commit}: what was acknowledged could be lost; \
             it must be on or remote_apply"
        )));
    }
    if read_only {
        return Err(StoreError::Unavailable("the database is read-only".to_owned()));
    }
    identity(connection).await
}

/// The database's own name and its timeline. Every user may ask for both unless
/// an administrator or a hosting service took the right away; then the name is
/// empty, the timeline 0, and an older primary is not told from the newest.
async fn identity(connection: &mut PgConnection) -> Result<Seen, StoreError> {
    let system_id = sqlx::query_scalar("SELECT system_identifier::text FROM pg_control_system()")
        .fetch_one(&mut *connection)
        .await;
    let system_id: String = or_withheld(system_id, "pg_control_system")?;
    // The control file's timeline lags behind a promotion until a checkpoint;
    // the name of the file being written does not.
    let timeline = sqlx::query_scalar(
        "SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int8",
    )
    .fetch_one(&mut *connection)
    .await;
    let timeline: i64 = or_withheld(timeline, "pg_walfile_name")?;
    Ok(Seen { system_id, timeline: timeline.unsigned_abs() })
}

fn or_withheld<T: Default>(
    asked: Result<T, sqlx::Error>,
    function: &'static str,
) -> Result<T, StoreError> {
    let Err(error) = asked else { return Ok(asked?) };
    let code = error.as_database_error().and_then(|error| error.code());
    // No right, no such function, not supported there.
    if !matches!(code.as_deref(), Some("42501" | "42883" | "0A000")) {
        return Err(error.into());
    }
    tracing::warn!(
        function,
        "the database user may not ask this: an older primary is not told from the newest"
    );
    Ok(T::default())
}
