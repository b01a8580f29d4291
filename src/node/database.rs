//! The node's database, whichever engine it is.

use std::path::Path;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use secrecy::ExposeSecret;

use super::StartError;
use crate::config::Config;
use crate::payment::provider::sandbox::Sandbox;
use crate::readiness::Readiness;
use crate::store::postgres::{self, PgSettings, PgStore};
use crate::store::sqlite::{self, SqliteStore, StoreMetrics, location};
use crate::store::{ClusterStore, Store, StoreError};

/// The file of the sandbox's books.
const BOOKS: &str = "sandbox.db";

/// An open database. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) enum Database {
    /// One node's own file, or one that several nodes of this machine share.
    Sqlite(SqliteStore),
    /// Shared by the nodes of a cluster.
    Postgres(PgStore),
}

impl Database {
    /// Opens what the configuration names, and brings its schema up to date.
    pub(super) async fn open(
        config: &Config,
        data_dir: &Path,
        incarnation: &str,
        registry: &mut Registry,
    ) -> Result<Self, StartError> {
        let settings = &config.store;
        if settings.is_postgres() {
            let store = PgStore::open(PgSettings {
                url: settings.url.clone(),
                node: config.node.id.clone().unwrap_or_default(),
                incarnation: incarnation.to_owned(),
                connections: settings.connections,
                connect_timeout: settings.connect_timeout,
                statement_timeout: settings.statement_timeout,
            });
            return Ok(Self::Postgres(store.await?));
        }
        let file = location::file(settings.url.expose_secret(), data_dir)?;
        let metrics = StoreMetrics::register(registry);
        let store = match config.cluster.shared_file {
            true => SqliteStore::open_shared(&file, settings.readers, metrics).await?,
            false => SqliteStore::open_alone(&file, settings.readers, metrics).await?,
        };
        Ok(Self::Sqlite(store))
    }

    /// Everything that services keep.
    pub(super) fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Sqlite(store) => Arc::new(store.clone()),
            Self::Postgres(store) => Arc::new(store.clone()),
        }
    }

    /// What the nodes share; `None` for a node alone.
    pub(super) fn cluster(&self) -> Option<Arc<dyn ClusterStore>> {
        match self {
            Self::Sqlite(store) if store.is_shared() => Some(Arc::new(store.clone())),
            Self::Sqlite(_) => None,
            Self::Postgres(store) => Some(Arc::new(store.clone())),
        }
    }

    /// The sandbox's books, apart from the node's own tables. Where nodes share a
    /// store they share the books: what one charged, another must find.
    pub(super) async fn books(
        &self,
        config: &Config,
        data_dir: &Path,
    ) -> Result<Sandbox, StartError> {
        let beside = match self {
            Self::Postgres(store) => return Ok(Sandbox::open_shared(store).await?),
            Self::Sqlite(store) if store.is_shared() => {
                location::file(config.store.url.expose_secret(), data_dir)?.with_file_name(BOOKS)
            }
            Self::Sqlite(_) => data_dir.join(BOOKS),
        };
        Ok(Sandbox::open(&beside).await?)
    }

    /// The newest migration that this release knows.
    pub(super) fn newest_schema(&self) -> u32 {
        let newest = match self {
            Self::Sqlite(_) => sqlite::newest(),
            Self::Postgres(_) => postgres::newest(),
        };
        u32::try_from(newest).unwrap_or(u32::MAX)
    }

    /// Makes the node not ready while the database cannot be used.
    pub(super) fn watch_readiness(&self, readiness: &Readiness) {
        match self {
            Self::Sqlite(store) => store.watch_readiness(readiness),
            Self::Postgres(store) => store.watch_readiness(readiness),
        }
    }

    /// A newer timeline of the database was seen.
    pub(super) fn saw_timeline(&self, timeline: u64) {
        match self {
            Self::Sqlite(_) => {}
            Self::Postgres(store) => store.saw_timeline(timeline),
        }
    }

    /// Writes what is left and closes.
    pub(super) async fn close(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(store) => store.close().await,
            Self::Postgres(store) => {
                store.close().await;
                Ok(())
            }
        }
    }
}
