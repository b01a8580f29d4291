//! The composition root: everything is made here, wired together here, and
//! ended here.
//!
//! [`Node::bind`] does whatever can fail: it opens the data directory and the
//! store, loads certificates and keys, and takes the addresses, so that every
//! problem is told before a client could connect. [`Bound::run`] starts the
//! services, serves until a signal comes, and ends in the order that
//! ARCHITECTURE.md gives.

mod error;
mod lifetime;
mod services;
mod signals;
mod tls;
mod wiring;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use secrecy::ExposeSecret;

use crate::clock;
use crate::config::{Config, Loaded};
use crate::drain;
use crate::payment::provider::sandbox::Sandbox;
use crate::readiness::Readiness;
use crate::security::Security;
use crate::server::bind::Listener;
use crate::store::datadir::DataDir;
use crate::store::sqlite::{SqliteStore, StoreMetrics, location};
use crate::telemetry::{self, Instance, Telemetry};

use self::error::Refused;
pub use self::error::StartError;

/// How long the last spans have to leave when the node ends.
const FLUSH: Duration = Duration::from_secs(3);

/// Where nodes come from.
#[derive(Debug)]
pub struct Node;

/// A node that has its addresses and does not serve yet.
#[derive(Debug)]
pub struct Bound {
    config: Config,
    dir: DataDir,
    telemetry: Telemetry,
    registry: Registry,
    security: Arc<Security>,
    store: SqliteStore,
    sandbox: Sandbox,
    readiness: Readiness,
    public: Listener,
    admin: Listener,
}

impl Node {
    /// Opens and loads everything and takes the addresses. To be called inside
    /// the runtime, once a process: the telemetry is the process's.
    pub async fn bind(loaded: Loaded) -> Result<Bound, StartError> {
        let Loaded { mut config, env, .. } = loaded;
        let dir = DataDir::open(&config.data_dir, config.node.id.as_deref())?;
        config.data_dir = dir.path().to_owned();
        config.node.id = Some(dir.node_id().to_owned());
        let incarnation = dir.incarnation().to_string();
        let instance = Instance { node_id: dir.node_id(), incarnation: &incarnation };
        let telemetry = telemetry::init(&config.telemetry, instance, &env)?;
        let mut registry = telemetry::metrics::registry();
        telemetry.register(&mut registry);

        let security = Security::load(&config, dir.path(), Arc::new(clock::System), &mut registry);
        let file = location::file(config.store.url.expose_secret(), dir.path());
        let public = Listener::bind("listen.public", config.listen.public).await;
        let admin = Listener::bind("listen.admin", config.listen.admin).await;
        let mut refused = Refused::default();
        let (security, file) = (refused.take(security), refused.take(file));
        let (public, admin) = (refused.take(public), refused.take(admin));
        let (Some(security), Some(file), Some(public), Some(admin)) =
            (security, file, public, admin)
        else {
            return Err(refused.into());
        };
        // Last: a database may be migrated, which only a node that starts does.
        let (store, sandbox) = open_stores(&config, &dir, &file, &mut registry).await?;
        let readiness = Readiness::new();
        store.watch_readiness(&readiness);
        Ok(Bound {
            config,
            dir,
            telemetry,
            registry,
            security,
            store,
            sandbox,
            readiness,
            public,
            admin,
        })
    }
}

/// The node's own database, and the books that the sandbox keeps as a remote
/// provider would: in a file and with a connection of its own.
async fn open_stores(
    config: &Config,
    dir: &DataDir,
    file: &Path,
    registry: &mut Registry,
) -> Result<(SqliteStore, Sandbox), StartError> {
    let metrics = StoreMetrics::register(registry);
    let store = SqliteStore::open_with(file, config.store.readers, metrics).await?;
    let sandbox = Sandbox::open(&dir.path().join("sandbox.db")).await?;
    Ok((store, sandbox))
}

impl Bound {
    /// Where clients connect.
    pub fn public(&self) -> SocketAddr {
        self.public.address()
    }

    /// Where probes connect.
    pub fn admin(&self) -> SocketAddr {
        self.admin.address()
    }

    /// Serves until SIGTERM or ctrl-c, then ends within `shutdown.delay` and
    /// `shutdown.grace`; a second signal ends at once.
    pub async fn run(self) -> Result<(), StartError> {
        let mut signals = signals::Signals::listen()?;
        let (stop, watch) = drain::channel();
        let (stop_admin, watch_admin) = drain::channel();
        let running = services::start(self, watch, watch_admin).await?;
        signals.first().await;
        tokio::select! {
            () = running.end(stop, stop_admin) => {}
            () = signals.second() => tracing::warn!("a second signal: ending at once"),
        }
        Ok(())
    }
}
