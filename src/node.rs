//! The composition root: everything is made here, wired together here, and
//! ended here.
//!
//! [`Node::bind`] does whatever can fail: it opens the data directory and the
//! store, loads certificates and keys, and takes the addresses, so that every
//! problem is told before a client could connect. [`Bound::run`] starts the
//! services, serves until a signal comes, and ends in the order that
//! ARCHITECTURE.md gives.

mod database;
mod end;
mod error;
mod lifetime;
mod links;
mod member;
mod mesh;
mod presence;
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
use tokio::time::timeout;

use crate::chance;
use crate::clock;
use crate::config::{Config, Loaded, Setting};
use crate::payment::provider::sandbox::Sandbox;
use crate::readiness::Readiness;
use crate::security::Security;
use crate::security::mesh::Mesh;
use crate::server::bind::Listener;
use crate::store::cluster::NodeState;
use crate::store::datadir::DataDir;
use crate::store::location;
use crate::telemetry::{self, Instance, Telemetry};

use self::database::Database;
use self::end::{End, FLUSH, FORCED, Stops};
use self::error::Refused;
pub use self::error::StartError;
use self::member::LEAVE;
use self::signals::Signals;
use self::supervisor::Supervisor;

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
    /// `shutdown.grace`; a second signal ends at once. Both also hold while it
    /// starts, whatever it waits for then. It ends with an error when it cannot
    /// start, or when a task without which it would only seem to live has
    /// panicked.
    pub async fn run(mut self) -> Result<(), StartError> {
        let mut signals = Signals::listen(self.supervisor.is_there())?;
        let (stops, watches) = end::stops();
        let services = tokio::select! {
            started = services::start(&mut self, &watches) => Some(started?),
            () = signals.end() => None,
        };
        let Some(services) = services else {
            tokio::select! {
                () = self.cut_short(stops) => {}
                () = signals.second() => {}
            }
            return Ok(());
        };
        services::serve(self, services, watches)?.run(&mut signals, stops).await
    }

    /// Ends a start half way: it serves nobody, so nothing is handed over and
    /// nobody waited for.
    async fn cut_short(self, stops: Stops) {
        let end = End::of(&self.config.shutdown);
        self.supervisor.stopping(End::longest(&self.config.shutdown));
        stops.public.drain(Duration::ZERO).await;
        stops.mesh.drain(Duration::ZERO).await;
        // The row may stand already: others need not find out that it is over.
        if let Some(store) = self.database.cluster() {
            let left = store.set_state(self.dir.node_id(), &self.incarnation, NodeState::Left);
            if !matches!(timeout(end.at_most(LEAVE), left).await, Ok(Ok(_))) {
                tracing::warn!("the store could not be told that the node is gone");
            }
        }
        end.last_writes(&self.database, &self.sandbox, self.security.audit()).await;
        tracing::info!("ended before it was started");
        self.telemetry.shutdown(end.at_most(FLUSH)).await;
        stops.admin.drain(end.at_most(FORCED)).await;
    }
}
