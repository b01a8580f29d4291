//! The embedded engine: one SQLite file in write-ahead mode.
//!
//! Reading goes through a pool of read-only connections. Writing goes through
//! one [`writer::Writer`], which commits many callers' writes at once and
//! returns to each only after the commit was fsynced (`synchronous = FULL`).
//!
//! Several nodes of one machine may share the file (`share`): each has a writer
//! of its own, and the writers take turns.

mod chat;
mod cluster;
pub(crate) mod inspect;
pub(crate) mod ledger;
pub mod location;
pub mod metrics;
mod migrate;
mod payment;
pub(crate) mod share;
pub mod writer;

use std::future::Future;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use tokio::sync::watch;
use tracing::Instrument;

pub(crate) use self::migrate::{applied, newest};

pub use self::metrics::StoreMetrics;
use self::share::turn::Turn;
use self::share::{Usage, name};
use self::writer::{JobFuture, Writer};
use super::StoreError;
use super::operation::Operations;
use crate::readiness::Readiness;
use crate::task;

/// How long a statement waits for a lock that another process has.
const BUSY: Duration = Duration::from_secs(5);

/// Pages in the write-ahead log at which a commit moves them into the database:
/// 4 MiB, so that moving is rare and reading the log stays cheap.
const CHECKPOINT_PAGES: &str = "1000";

/// What the log file may keep on disk after it was moved: 16 MiB.
const LOG_KEPT: &str = "16777216";

/// How long reads have to end when the store is closed.
const CLOSE_READERS: Duration = Duration::from_secs(2);

/// How long the last writes and the moving of the log may take.
const CLOSE_WRITER: Duration = Duration::from_secs(5);

/// The engine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    writer: Writer,
    readers: SqlitePool,
    operations: Operations,
    /// The file's one name.
    file: Arc<Path>,
    /// Dropped with the last clone.
    usage: Arc<Usage>,
}

/// What traces call the engine.
const SYSTEM: &str = "sqlite";

impl SqliteStore {
    /// Opens or makes the database and brings its schema up to date, whoever
    /// else uses it: for tools and tests.
    pub async fn open(path: &Path, readers: u32) -> Result<Self, StoreError> {
        Self::open_with(path, readers, StoreMetrics::default()).await
    }

    /// As [`open`](Self::open), with metrics that were registered.
    pub async fn open_with(
        path: &Path,
        readers: u32,
        metrics: StoreMetrics,
    ) -> Result<Self, StoreError> {
        Self::open_as(path, readers, metrics, |_| Ok(Usage::Open)).await
    }

    /// For a node that has the file to itself: refused
    /// ([`StoreError::Unavailable`]) while others have it, and they while this
    /// one has.
    pub async fn open_alone(
        path: &Path,
        readers: u32,
        metrics: StoreMetrics,
    ) -> Result<Self, StoreError> {
        Self::open_as(path, readers, metrics, Usage::alone).await
    }

    /// For one of several nodes of this machine that share the file
    /// (`cluster.shared_file`): refused on a network file system
    /// ([`StoreError::Version`]) and while a node has the file to itself.
    pub async fn open_shared(
        path: &Path,
        readers: u32,
        metrics: StoreMetrics,
    ) -> Result<Self, StoreError> {
        share::check_place(path)?;
        Self::open_as(path, readers, metrics, Usage::shared).await
    }

    /// Under the file's one name alone: what keeps processes apart is named
    /// after it. How many names it has is counted once it is there and locked.
    async fn open_as(
        path: &Path,
        readers: u32,
        metrics: StoreMetrics,
        usage: fn(&Path) -> Result<Usage, StoreError>,
    ) -> Result<Self, StoreError> {
        let file: Arc<Path> = name::resolve(path)?.into();
        let path = &*file;
        let usage = usage(path)?;
        create(path)?;
        name::check(path)?;
        let turn = usage.nodes().is_some().then(|| Turn::of(path)).transpose()?;
        let writer = Writer::open(writing(path), turn, metrics).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(readers.max(1))
            .acquire_timeout(BUSY)
            .connect_with(reading(path))
            .await?;
        let operations = Operations::default();
        Ok(Self { writer, readers, operations, file, usage: Arc::new(usage) })
    }

    /// The same store, with its operations counted there.
    pub fn counted(mut self, operations: Operations) -> Self {
        self.operations = operations;
        self
    }

    /// The file, by the name that all who open it meet at.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Whether several nodes share the file.
    pub fn is_shared(&self) -> bool {
        self.usage.nodes().is_some()
    }

    /// Whether writing works: false from a failed commit until a write
    /// succeeded on a reopened database.
    pub fn health(&self) -> watch::Receiver<bool> {
        self.writer.health()
    }

    /// Makes the node not ready ("store writable") whenever writing does not
    /// work, for as long as the store is open.
    pub fn watch_readiness(&self, readiness: &Readiness) {
        let (mut health, readiness) = (self.health(), readiness.clone());
        task::spawn("store readiness", async move {
            let mut held = None;
            loop {
                let writable = *health.borrow_and_update();
                held = match (writable, held.take()) {
                    (true, _) => None,
                    (false, None) => Some(readiness.hold("store writable")),
                    (false, guard) => guard,
                };
                if health.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    /// Moves the whole log into the database file and truncates it, so that
    /// what was deleted is on no page of either.
    pub async fn checkpoint_truncate(&self) -> Result<(), StoreError> {
        self.writer.checkpoint().await
    }

    /// Takes no more writes, finishes those that wait, moves the log into the
    /// database file and closes every connection. Takes bounded time, although
    /// a read may hang or the disk may not answer: what was acknowledged stands.
    pub async fn close(&self) -> Result<(), StoreError> {
        if tokio::time::timeout(CLOSE_READERS, self.readers.close()).await.is_err() {
            tracing::warn!("a read does not end; the store is closed under it");
        }
        let closed = tokio::time::timeout(CLOSE_WRITER, self.writer.close()).await;
        self.let_go();
        closed.unwrap_or_else(|_| {
            Err(StoreError::Unavailable("the last writes do not end".to_owned()))
        })
    }

    /// Runs the job in the next transaction; returns its value once that is
    /// durable. The operation names the span. Example: `payment.claim`.
    pub(crate) async fn write<T, F>(&self, operation: &'static str, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> JobFuture<'c, T> + Send + 'static,
    {
        let asked = self.operations.write(SYSTEM, operation);
        let written = self.writer.write(asked.span(), job).await;
        asked.done(written)
    }

    /// Reads in a span that the operation names. Example: `ledger.history`.
    pub(crate) async fn read<T>(
        &self,
        operation: &'static str,
        reading: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let asked = self.operations.read(SYSTEM, operation);
        let read = reading.instrument(asked.span()).await;
        asked.done(read)
    }

    /// How the file is used.
    fn usage(&self) -> &Usage {
        &self.usage
    }

    /// The connections for reading.
    pub(crate) fn readers(&self) -> &SqlitePool {
        &self.readers
    }
}

/// Nobody else may read the file, nor the log and index that SQLite makes
/// beside it with the same mode.
fn create(path: &Path) -> Result<(), StoreError> {
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(StoreError::Unavailable(format!("cannot make the database: {error}"))),
    }
}

fn writing(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY)
        .pragma("secure_delete", "ON")
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
        .pragma("journal_size_limit", LOG_KEPT)
        .pragma("temp_store", "MEMORY")
        .statement_cache_capacity(256)
}

fn reading(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .read_only(true)
        .busy_timeout(BUSY)
        .pragma("query_only", "ON")
        .pragma("temp_store", "MEMORY")
        .statement_cache_capacity(256)
}
