//! Reading, and transactions that are run again when the database asks for it.
//!
//! Everything has a deadline here, beside the server's own: a server that does
//! not answer costs that long and its connection, never more. A connection whose
//! future was dropped in the middle is closed, not given back: what it was asked
//! is still under way.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgDatabaseError, PgPool, PgRow, PgSeverity, Postgres};
use sqlx::{AssertSqlSafe, Connection as _, raw_sql};
use tokio::time::timeout;
use tracing::Instrument as _;

use super::{PgStore, notice};
use crate::backoff;
use crate::store::StoreError;
use crate::store::database_error::TRY_AGAIN;

/// A future that borrows a connection.
pub(crate) type JobFuture<'c, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'c>>;

/// What traces call the engine.
const SYSTEM: &str = "postgresql";

/// How often a transaction is run when the database asks for it again.
const RUNS: u32 = 12;

/// The first and the longest delay between runs.
const AGAIN: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(200));

/// A connection on loan. Dropped before [`give_back`](Lease::give_back) it is
/// closed.
struct Lease(Option<PoolConnection<Postgres>>);

impl Lease {
    async fn take(pool: &PgPool) -> Result<Self, StoreError> {
        Ok(Self(Some(pool.acquire().await?)))
    }

    fn connection(&mut self) -> Result<&mut PgConnection, StoreError> {
        let gone = || StoreError::Fault("a connection that was given back".to_owned());
        self.0.as_deref_mut().ok_or_else(gone)
    }

    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

impl PgStore {
    /// Reads in a span that the operation names. Example: `ledger.history`. The
    /// job may run twice: a connection that broke while idle is replaced once.
    pub(crate) async fn read<T, F>(&self, operation: &'static str, job: F) -> Result<T, StoreError>
    where
        T: Send,
        F: for<'c> Fn(&'c mut PgConnection) -> JobFuture<'c, T> + Send + Sync,
    {
        let asked = self.operations.read(SYSTEM, operation);
        let reading = async {
            let first = self.within(self.read_once(&job)).await;
            match first {
                Err(StoreError::Unavailable(_)) if *self.health.borrow() => {
                    self.within(self.read_once(&job)).await
                }
                other => other,
            }
        };
        let read = reading.instrument(asked.span()).await;
        asked.done(read)
    }

    async fn read_once<T, F>(&self, job: &F) -> Result<T, StoreError>
    where
        T: Send,
        F: for<'c> Fn(&'c mut PgConnection) -> JobFuture<'c, T> + Send + Sync,
    {
        let mut lease = Lease::take(&self.pool).await?;
        let read = job(lease.connection()?).await;
        if !matches!(read, Err(StoreError::Unavailable(_))) {
            lease.give_back();
        }
        read
    }

    /// Runs the job in a transaction of its own and commits it; in a span that
    /// the operation names. Example: `payment.claim`. The job runs again, from
    /// the beginning, when the database asks for it (`TRY_AGAIN` out of the job
    /// or the commit).
    pub(crate) async fn write<T, F>(&self, operation: &'static str, job: F) -> Result<T, StoreError>
    where
        T: Send,
        F: for<'c> Fn(&'c mut PgConnection) -> JobFuture<'c, T> + Send + Sync,
    {
        self.write_in(&self.pool, operation, job).await
    }

    /// As [`write`](Self::write), in a session that loses a partition's fence
    /// when it stands still.
    pub(super) async fn write_fenced<T, F>(
        &self,
        operation: &'static str,
        job: F,
    ) -> Result<T, StoreError>
    where
        T: Send,
        F: for<'c> Fn(&'c mut PgConnection) -> JobFuture<'c, T> + Send + Sync,
    {
        self.write_in(&self.fencing, operation, job).await
    }

    /// As [`write_fenced`](Self::write_fenced), for a transaction that is begun by
    /// text of the caller's own: BEGIN and what follows it, in one message. The
    /// job gets the rows that it gave.
    pub(super) async fn write_begun<T, F>(
        &self,
        operation: &'static str,
        beginning: &str,
        job: F,
    ) -> Result<T, StoreError>
    where
        T: Send,
        F: for<'c> Fn(&'c mut PgConnection, Vec<PgRow>) -> JobFuture<'c, T> + Send + Sync,
    {
        self.again(operation, || self.begun_once(beginning, &job)).await
    }

    /// Runs a job that is one changing statement (the last, if it reads before):
    /// a transaction by itself, without the cost of its beginning and end.
    pub(super) async fn change<T, F>(
        &self,
        operation: &'static str,
        job: F,
    ) -> Result<T, StoreError>
    where
        T: Send,
        F: for<'c> Fn(&'c mut PgConnection) -> JobFuture<'c, T> + Send + Sync,
    {
        self.again(operation, || change_once(&self.pool, &job)).await
    }

    async fn write_in<T, F>(
        &self,
        pool: &PgPool,
        operation: &'static str,
        job: F,
    ) -> Result<T, StoreError>
    where
        T: Send,
        F: for<'c> Fn(&'c mut PgConnection) -> JobFuture<'c, T> + Send + Sync,
    {
        self.again(operation, || self.write_once(pool, &job)).await
    }

    /// Runs a transaction again as often as the database asks for it.
    async fn again<T, Run>(
        &self,
        operation: &'static str,
        run: impl Fn() -> Run + Send,
    ) -> Result<T, StoreError>
    where
        Run: Future<Output = Result<T, StoreError>> + Send,
    {
        let asked = self.operations.write(SYSTEM, operation);
        let writing = async {
            for attempt in 0..RUNS {
                match self.within(run()).await {
                    Err(StoreError::Conflict(TRY_AGAIN)) => {
                        let delay = backoff::full_jitter(AGAIN.0, AGAIN.1, attempt, rand::random());
                        tokio::time::sleep(delay).await;
                    }
                    other => return other,
                }
            }
            Err(StoreError::Unavailable(format!("{TRY_AGAIN}, {RUNS} times now")))
        };
        let written = writing.instrument(asked.span()).await;
        asked.done(written)
    }

    async fn write_once<T, F>(&self, pool: &PgPool, job: &F) -> Result<T, StoreError>
    where
        T: Send,
        F: for<'c> Fn(&'c mut PgConnection) -> JobFuture<'c, T> + Send + Sync,
    {
        let mut lease = Lease::take(pool).await?;
        let begun = lease.connection()?.begin().await;
        let mut transaction = begun.map_err(|error| self.not_begun(error.into()))?;
        let written = match job(&mut transaction).await {
            Ok(value) => commit(transaction.commit()).await.map(|()| value),
            Err(error @ StoreError::Unavailable(_)) => {
                drop(transaction);
                Err(error)
            }
            Err(error) => transaction.rollback().await.map_err(StoreError::from).and(Err(error)),
        };
        if !matches!(written, Err(StoreError::Unavailable(_))) {
            lease.give_back();
        }
        written
    }

    /// The library knows nothing of a transaction that is begun in a text. Its
    /// end is ours: COMMIT, ROLLBACK, or that of the connection, with the lease.
    async fn begun_once<T, F>(&self, beginning: &str, job: &F) -> Result<T, StoreError>
    where
        T: Send,
        F: for<'c> Fn(&'c mut PgConnection, Vec<PgRow>) -> JobFuture<'c, T> + Send + Sync,
    {
        let mut lease = Lease::take(&self.fencing).await?;
        let connection = lease.connection()?;
        let begun = raw_sql(AssertSqlSafe(beginning)).fetch_all(&mut *connection).await;
        let written = match begun {
            Ok(rows) => job(connection, rows).await,
            Err(error) if is_lost(&error) => return Err(self.not_begun(error.into())),
            Err(error) => Err(error.into()),
        };
        let ended = match written {
            Ok(value) => commit(raw_sql("COMMIT").execute(connection)).await.map(|()| value),
            Err(error @ StoreError::Unavailable(_)) => Err(error),
            Err(error) => {
                let rolled_back = raw_sql("ROLLBACK").execute(connection).await;
                rolled_back.map_err(StoreError::from).and(Err(error))
            }
        };
        if !matches!(ended, Err(StoreError::Unavailable(_))) {
            lease.give_back();
        }
        ended
    }

    /// Nothing was asked yet that could be kept: another connection may do.
    fn not_begun(&self, error: StoreError) -> StoreError {
        let StoreError::Unavailable(_) = error else { return error };
        self.known.failed();
        StoreError::Conflict(TRY_AGAIN)
    }

    /// Ends what takes too long, and asks for a look at the addresses when the
    /// store did not answer.
    async fn within<T>(
        &self,
        doing: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let done = timeout(self.attempt, doing).await;
        let done = done.unwrap_or_else(|_| {
            Err(StoreError::Unavailable("the server does not answer in time".to_owned()))
        });
        if matches!(done, Err(StoreError::Unavailable(_))) {
            self.known.failed();
            self.look_again();
        }
        done
    }
}

async fn change_once<T, F>(pool: &PgPool, job: &F) -> Result<T, StoreError>
where
    T: Send,
    F: for<'c> Fn(&'c mut PgConnection) -> JobFuture<'c, T> + Send + Sync,
{
    let mut lease = Lease::take(pool).await?;
    let (changed, warned) = notice::watched(job(lease.connection()?)).await;
    if !matches!(changed, Err(StoreError::Unavailable(_))) {
        lease.give_back();
    }
    if warned && changed.is_ok() { Err(in_doubt()) } else { changed }
}

/// Any error after COMMIT was sent leaves its outcome unknown, unless the
/// database says that it rolled back; so does a warning: that is how the server
/// tells that it no longer waits for its synchronous standby.
async fn commit<T>(
    committing: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<(), StoreError> {
    let (committed, warned) = notice::watched(committing).await;
    match committed {
        Ok(_) if warned => Err(in_doubt()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The connection is gone, not merely its statement.
fn is_lost(error: &sqlx::Error) -> bool {
    let database = error.as_database_error();
    match database.and_then(|error| error.try_downcast_ref::<PgDatabaseError>()) {
        Some(error) => matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic),
        None => true,
    }
}

fn in_doubt() -> StoreError {
    StoreError::Unavailable("the server warned on COMMIT: the standby may not have it".to_owned())
}
