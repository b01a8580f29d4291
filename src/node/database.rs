//! The node's database, whichever engine it is.

use std::path::Path;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use secrecy::ExposeSecret;

use super::StartError;
use crate::config::Config;
use crate::payment::provider::sandbox::Sandbox;
use crate::readiness::Readiness;
use crate::store::location::{self, Location};
use crate::store::operation::{self, Operations};
use crate::store::postgres::{self, PgSettings, PgStore};
use crate::store::sqlite::{self, SqliteStore, StoreMetrics};
use crate::store::{ClusterStore, Store, StoreError};

/// An open database. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) enum Database {
    /// One node's own file.
    Sqlite(SqliteStore),
    /// A file that nodes of this machine share.
    Shared(SqliteStore),
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
        let operations = Operations::register(registry);
        let file = match location::of(settings.url.expose_secret(), data_dir)? {
            Location::Postgres => {
                let node = config.node.id.as_deref().unwrap_or_default();
                let store = PgStore::open(PgSettings::of(settings, node, incarnation)).await?;
                operation::show_health(registry, store.health());
                return Ok(Self::Postgres(store.counted(operations)));
            }
            Location::Sqlite(file) => file,
        };
        let metrics = StoreMetrics::register(registry);
        Ok(if config.cluster.shared_file {
            let store = SqliteStore::open_shared(&file, settings.readers, metrics).await?;
            Self::Shared(store.counted(operations))
        } else {
            let store = SqliteStore::open_alone(&file, settings.readers, metrics).await?;
            Self::Sqlite(store.counted(operations))
        })
    }

    /// The books of the sandbox, which are a remote provider's: what one node
    /// charged, another finds.
    pub(super) async fn sandbox(&self, data_dir: &Path) -> Result<Sandbox, StoreError> {
        match self {
            Self::Sqlite(_) => Sandbox::open(&data_dir.join("sandbox.db")).await,
            Self::Shared(store) => Sandbox::open(&store.file().with_file_name("sandbox.db")).await,
            Self::Postgres(store) => Sandbox::open_shared(store).await,
        }
    }

    /// Everything that services keep.
    pub(super) fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Sqlite(store) | Self::Shared(store) => Arc::new(store.clone()),
            Self::Postgres(store) => Arc::new(store.clone()),
        }
    }

    /// What the nodes share; `None` for a node alone.
    pub(super) fn cluster(&self) -> Option<Arc<dyn ClusterStore>> {
        match self {
            Self::Sqlite(_) => None,
            Self::Shared(store) => Some(Arc::new(store.clone())),
            Self::Postgres(store) => Some(Arc::new(store.clone())),
        }
    }

    /// The newest migration that this release knows.
    pub(super) fn newest_schema(&self) -> u32 {
        let newest = match self {
            Self::Sqlite(_) | Self::Shared(..) => sqlite::newest(),
            Self::Postgres(_) => postgres::newest(),
        };
        u32::try_from(newest).unwrap_or(u32::MAX)
    }

    /// Makes the node not ready while the database cannot be used.
    pub(super) fn watch_readiness(&self, readiness: &Readiness) {
        match self {
            Self::Sqlite(store) | Self::Shared(store) => store.watch_readiness(readiness),
            Self::Postgres(store) => store.watch_readiness(readiness),
        }
    }

    /// A newer timeline of the database was seen.
    pub(super) fn saw_timeline(&self, timeline: u64) {
        match self {
            Self::Sqlite(_) | Self::Shared(..) => {}
            Self::Postgres(store) => store.saw_timeline(timeline),
        }
    }

    /// Writes what is left and closes.
    pub(super) async fn close(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(store) | Self::Shared(store) => store.close().await,
            Self::Postgres(store) => {
                store.close().await;
                Ok(())
            }
        }
    }
}
