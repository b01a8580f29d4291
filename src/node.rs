//! The composition root: everything is made here, wired together here, and
//! ended here.
//!
//! [`Node::bind`] does whatever can fail: it opens the data directory and the
//! store, loads certificates and keys, and takes the addresses, so that every
//! problem is told before a client could connect. [`Bound::run`] starts the
//! services, serves until a signal comes, and ends in the order that
//! ARCHITECTURE.md gives.

mod database;
mod error;
mod lifetime;
mod links;
mod member;
mod mesh;
mod services;
mod signals;
mod supervisor;
mod tls;
mod wiring;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use secrecy::ExposeSecret;

use crate::chance;
use crate::clock;
use crate::config::{Config, Loaded, Setting};
use crate::drain;
use crate::payment::provider::sandbox::Sandbox;
use crate::readiness::Readiness;
use crate::security::Security;
use crate::security::mesh::Mesh;
use crate::server::bind::Listener;
use crate::store::datadir::DataDir;
use crate::store::location;
use crate::telemetry::{self, Instance, Telemetry};

use self::database::Database;
use self::error::Refused;
pub use self::error::StartError;
use self::supervisor::Supervisor;

/// How long the last spans have to leave when the node ends.
const FLUSH: Duration = Duration::from_secs(3);

/// Where nodes come from.
#[derive(Debug)]
pub struct Node;

/// A node that has its addresses and does not serve yet.
#[derive(Debug)]
pub struct Bound {
    config: Config,
    /// The effective configuration for operators, secrets masked.
    settings: Vec<Setting>,
    supervisor: Arc<Supervisor>,
    dir: Arc<DataDir>,
    /// This run of the node, a UUID; what it joins the cluster as.
    incarnation: String,
    telemetry: Telemetry,
    registry: Registry,
    security: Arc<Security>,
    database: Database,
    sandbox: Sandbox,
    readiness: Readiness,
    public: Listener,
    admin: Listener,
    /// Only a cluster's node listens for others.
    mesh: Option<MeshEnd>,
}

/// Where other nodes connect, and how they prove themselves.
#[derive(Debug)]
struct MeshEnd {
    /// Taken when it is served.
    listener: Option<Listener>,
    address: SocketAddr,
    security: Arc<Mesh>,
}

impl Node {
    /// Opens and loads everything and takes the addresses. To be called inside
    /// the runtime, once a process: the telemetry is the process's.
    pub async fn bind(loaded: Loaded) -> Result<Bound, StartError> {
        let settings = loaded.effective();
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
        let public = Listener::bind("listen.public", config.listen.public).await;
        let admin = Listener::bind("listen.admin", config.listen.admin).await;
        let mut refused = Refused::default();
        refused.take(location::of(config.store.url.expose_secret(), dir.path()));
        let security = refused.take(security);
        let (public, admin) = (refused.take(public), refused.take(admin));
        let mesh = match &security {
            Some(security) if config.is_clustered() => {
                mesh_end(&config, &dir, security, &mut refused).await
            }
            _ => None,
        };
        refused.none()?;
        let (Some(security), Some(public), Some(admin)) = (security, public, admin) else {
            return Err(StartError::Several(Vec::new()));
        };
        // Last: a database may be migrated, which only a node that starts does.
        let incarnation = chance::uuid().to_string();
        let database = Database::open(&config, dir.path(), &incarnation, &mut registry).await?;
        let sandbox = database.sandbox(dir.path()).await?;
        let readiness = Readiness::new();
        telemetry::ready::register(&mut registry, &readiness);
        database.watch_readiness(&readiness);
        Ok(Bound {
            config,
            settings,
            supervisor: Arc::new(Supervisor::of(&env)),
            dir: Arc::new(dir),
            incarnation,
            telemetry,
            registry,
            security,
            database,
            sandbox,
            readiness,
            public,
            admin,
            mesh,
        })
    }
}

/// The mesh's listener and certificates; what is wrong with them is noted.
async fn mesh_end(
    config: &Config,
    dir: &DataDir,
    security: &Arc<Security>,
    refused: &mut Refused,
) -> Option<MeshEnd> {
    let listener = Listener::bind("listen.mesh", config.listen.mesh).await;
    let listener = refused.take(listener);
    let security = refused.take(Mesh::load(config, dir.path(), security));
    let (listener, security) = (listener?, security?);
    let address = listener.address();
    Some(MeshEnd { listener: Some(listener), address, security })
}

impl Bound {
    /// Where clients connect.
    pub fn public(&self) -> SocketAddr {
        self.public.address()
    }

    /// Where other nodes connect; `None` for a node alone.
    pub fn mesh(&self) -> Option<SocketAddr> {
        self.mesh.as_ref().map(|mesh| mesh.address)
    }

    /// Where probes connect.
    pub fn admin(&self) -> SocketAddr {
        self.admin.address()
    }

    /// Serves until SIGTERM or ctrl-c, then ends within `shutdown.delay` and
    /// `shutdown.grace`; a second signal ends at once. It also ends, with an
    /// error, when a task without which it would only seem to live has panicked.
    pub async fn run(self) -> Result<(), StartError> {
        let mut signals = signals::Signals::listen(self.supervisor.is_there())?;
        let (stop, watch) = drain::channel();
        let (stop_mesh, watch_mesh) = drain::channel();
        let (stop_admin, watch_admin) = drain::channel();
        let watches = services::Watches { public: watch, mesh: watch_mesh, admin: watch_admin };
        let mut running = services::start(self, watches).await?;
        let presence = running.presence();
        let failed = tokio::select! {
            () = presence.serve(&mut signals) => None,
            task = running.failed() => Some(task),
        };
        let end = async {
            if let Some(task) = failed {
                tracing::error!(task, "a task that the node cannot do without is gone: it ends");
                running.give_up().await;
            }
            running.end(stop, stop_mesh, stop_admin).await;
        };
        tokio::select! {
            () = end => {}
            () = signals.second() => tracing::warn!("another signal: ending at once"),
        }
        failed.map_or(Ok(()), |task| Err(StartError::Failed(task)))
    }
}
