//! Where the books stand: a file of their own, or tables of their own in the
//! database that the nodes share. Either way on a connection of their own, so
//! that they are never written in one transaction with the nodes' own tables.

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _};

use crate::payment::provider::sandbox::books::Rows;
use crate::store::StoreError;
use crate::store::postgres::PgStore;
use crate::store::postgres::advisory::Advisory;

/// How long a write waits for another process's.
const BUSY: Duration = Duration::from_secs(5);

/// What the connection to a shared database is called there.
const NAME: &str = "simpul sandbox";

static POSTGRES: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrations = sqlx::migrate!("src/payment/provider/sandbox/migrations/postgres");
    // The nodes' own migrations have their table; and the lock is taken here.
    migrations.dangerous_set_table_name("sandbox_migrations");
    migrations.set_locking(false);
    migrations
});

/// The books, opened.
pub(in crate::payment::provider::sandbox) enum Shelf {
    File(SqliteConnection),
    Shared {
        store: PgStore,
        /// Absent after a failure, until the next group.
        connection: Option<PgConnection>,
    },
}

impl Shelf {
    pub(in crate::payment::provider::sandbox) async fn file(
        path: &Path,
    ) -> Result<Self, StoreError> {
        let mut connection = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .pragma("secure_delete", "ON")
            .busy_timeout(BUSY)
            .connect()
            .await?;
        // In one transaction: of two nodes that start at once the second waits.
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::migrate!("src/payment/provider/sandbox/migrations/sqlite")
            .run_direct(None, &mut *transaction, false)
            .await
            .map_err(|error| StoreError::Fault(error.to_string()))?;
        transaction.commit().await?;
        Ok(Shelf::File(connection))
    }

    pub(in crate::payment::provider::sandbox) async fn shared(
        store: &PgStore,
    ) -> Result<Self, StoreError> {
        let mut connection = store.own_connection(NAME).await?;
        let mut transaction = connection.begin().await?;
        lock(&mut transaction).await?;
        if !is_made(&mut transaction).await? {
            POSTGRES
                .run_direct(None, &mut *transaction, false)
                .await
                .map_err(|error| StoreError::Fault(error.to_string()))?;
        }
        transaction.commit().await?;
        Ok(Shelf::Shared { store: store.clone(), connection: Some(connection) })
    }

    /// Begins a transaction that no other node's comes between.
    pub(super) async fn begin(&mut self) -> Result<(), StoreError> {
        match self {
            Shelf::File(connection) => {
                sqlx::query("BEGIN IMMEDIATE").execute(connection).await?;
            }
            Shelf::Shared { store, connection } => {
                if connection.is_none() {
                    *connection = Some(store.own_connection(NAME).await?);
                }
                let Some(connection) = connection else { return Err(closed()) };
                sqlx::query("BEGIN").execute(&mut *connection).await?;
                lock(connection).await?;
            }
        }
        Ok(())
    }

    /// The books, within the transaction.
    pub(super) fn rows(&mut self) -> Result<&mut dyn Rows, StoreError> {
        match self {
            Shelf::File(connection) => Ok(connection),
            Shelf::Shared { connection: Some(connection), .. } => Ok(connection),
            Shelf::Shared { connection: None, .. } => Err(closed()),
        }
    }

    pub(super) async fn commit(&mut self) -> Result<(), StoreError> {
        match self {
            Shelf::File(connection) => sqlx::query("COMMIT").execute(connection).await.map(drop)?,
            Shelf::Shared { connection: Some(connection), .. } => {
                sqlx::query("COMMIT").execute(connection).await.map(drop)?;
            }
            Shelf::Shared { connection: None, .. } => return Err(closed()),
        }
        Ok(())
    }

    /// Undoes what was begun, if anything was. A connection to a server is not
    /// trusted after a failure.
    pub(super) async fn undo(&mut self) {
        match self {
            Shelf::File(connection) => {
                // Fails when there is nothing to undo.
                let _ = sqlx::query("ROLLBACK").execute(connection).await;
            }
            Shelf::Shared { connection, .. } => drop(connection.take()),
        }
    }

    pub(super) async fn close(self) -> Result<(), StoreError> {
        match self {
            Shelf::File(connection) => connection.close().await?,
            Shelf::Shared { connection: Some(connection), .. } => connection.close().await?,
            Shelf::Shared { connection: None, .. } => {}
        }
        Ok(())
    }
}

/// Whether the tables are as this release has them: a user who may not make any
/// can keep books in them.
async fn is_made(connection: &mut PgConnection) -> Result<bool, StoreError> {
    let any: bool = sqlx::query_scalar("SELECT to_regclass('sandbox_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    if !any {
        return Ok(false);
    }
    let found: Vec<(i64, Vec<u8>)> = sqlx::query_as(
        "SELECT version, checksum FROM sandbox_migrations WHERE success ORDER BY version",
    )
    .fetch_all(connection)
    .await?;
    Ok(POSTGRES.iter().map(|one| (one.version, one.checksum.to_vec())).eq(found))
}

/// One node books at a time, as in a file: a charge is read, decided on and
/// written.
async fn lock(transaction: &mut PgConnection) -> Result<(), StoreError> {
    Ok(Advisory::Books.lock(transaction).await?)
}

fn closed() -> StoreError {
    StoreError::Unavailable("the sandbox's books are not open".to_owned())
}
