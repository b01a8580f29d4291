//! The engine for many nodes: PostgreSQL 13 or newer.
//!
//! Three pools: one for reading and ordinary transactions, a small one for beats,
//! and one whose sessions append under a partition's fence; these are set so that
//! a frozen node loses its fence soon (`session`). Every connection is admitted only to a primary
//! of the newest timeline (`known`); after a failure the addresses are looked
//! through again (`primary`).
//!
//! A transaction that the database asks to be run again (a serialization
//! failure, a deadlock) is run again here, so a job may run more than once. An
//! answer to COMMIT that is lost leaves the outcome unknown, which is
//! [`StoreError::Unavailable`].

pub mod addresses;
pub(crate) mod advisory;
mod chat;
mod cluster;
pub mod distribute;
pub(crate) mod inspect;
mod known;
mod ledger;
mod migrate;
mod notice;
mod payment;
mod primary;
mod rows;
mod session;
mod transaction;

use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

pub(crate) use self::migrate::newest;

use self::known::Known;
use self::primary::{Primary, Watch};
use self::session::{Purpose, Session};
use super::StoreError;
use super::operation::Operations;
use crate::readiness::Readiness;
use crate::{config, task};

/// How long a connection that is tried may take to answer.
const TRIED: Duration = Duration::from_secs(1);

/// Connections that are kept free for beats and for reads of who lives.
const VITAL: u32 = 2;

/// How long connections have to end when the store is closed.
const CLOSE: Duration = Duration::from_secs(5);

/// What the engine needs to know.
#[derive(Debug, Clone)]
pub struct PgSettings {
    /// `store.url`: one address or several (see [`addresses`]).
    pub url: SecretString,
    /// The node's id; it stands in the sessions' names.
    pub node: String,
    /// This run of the node, a UUID: what its fencing sessions are found by,
    /// until it joins the cluster as another one.
    pub incarnation: String,
    /// Connections, both pools together.
    pub connections: u32,
    /// How long connecting, or waiting for a free connection, may take.
    pub connect_timeout: Duration,
    /// How long one statement may take.
    pub statement_timeout: Duration,
}

impl PgSettings {
    /// From the configuration. The incarnation is the one that joins the
    /// cluster.
    pub fn of(store: &config::schema::Store, node: &str, incarnation: &str) -> Self {
        Self {
            url: store.url.clone(),
            node: node.to_owned(),
            incarnation: incarnation.to_owned(),
            connections: store.connections,
            connect_timeout: store.connect_timeout,
            statement_timeout: store.statement_timeout,
        }
    }
}

/// The engine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PgStore {
    pool: PgPool,
    fencing: PgPool,
    /// For beats and for the reads that prove who lives: what else is asked of
    /// the store must not make a node look dead.
    vital: PgPool,
    /// Asks for a look at the addresses; full means that one is coming.
    look: mpsc::Sender<()>,
    health: watch::Receiver<bool>,
    known: Arc<Known>,
    operations: Operations,
    /// Chat's tables are distributed by partition.
    distributed: bool,
    /// How long one attempt at anything may take, connecting included.
    attempt: Duration,
    /// How long one statement may take.
    statement: Duration,
}

impl PgStore {
    /// Finds the primary, brings the schema up to date and opens the pools.
    /// Fails with [`StoreError::Version`] and the reason when the server cannot
    /// be used however long one waits.
    pub async fn open(settings: PgSettings) -> Result<Self, StoreError> {
        let addresses = addresses::parse(settings.url.expose_secret())
            .map_err(|error| StoreError::Version(error.to_string()))?
            .into_iter()
            // Statements at the level trace alone; slow ones are the caller's
            // span to show.
            .map(|address| address.disable_statement_logging())
            .collect();
        let known = Arc::new(Known::default());
        known.runs_as(&settings.incarnation);
        let connect_timeout = settings.connect_timeout;
        let primary = Primary { addresses, known: known.clone(), connect_timeout };
        let (place, mut connection) = primary.find().await?;
        migrate::run(&mut connection).await?;
        let distributed = distribute::is_distributed(&mut connection).await?;
        let _ = timeout(connect_timeout, connection.close()).await;
        let Some(options) = primary.addresses.get(place) else {
            return Err(StoreError::Fault("an address out of range".to_owned()));
        };
        let all = settings.connections.max(6) - VITAL;
        let fences = all / 2;
        let vital = pool(options, &settings, &known, Purpose::General, VITAL);
        let pool = pool(options, &settings, &known, Purpose::General, all - fences);
        let fencing = self::pool(options, &settings, &known, Purpose::Fencing, fences);
        let (healthy, health) = watch::channel(true);
        let (look, wanted) = mpsc::channel(1);
        let pools = [pool.clone(), fencing.clone(), vital.clone()];
        task::spawn("store primary", Watch { primary, pools, place, healthy }.run(wanted));
        let attempt = connect_timeout + settings.statement_timeout * 2;
        let statement = settings.statement_timeout;
        let operations = Operations::default();
        Ok(Self {
            pool,
            fencing,
            vital,
            look,
            health,
            known,
            operations,
            distributed,
            attempt,
            statement,
        })
    }

    /// The same store, with its operations counted there.
    pub fn counted(mut self, operations: Operations) -> Self {
        self.operations = operations;
        self
    }

    /// Whether the store is reached: false from a failed look at the addresses
    /// until one succeeds.
    pub fn health(&self) -> watch::Receiver<bool> {
        self.health.clone()
    }

    /// Makes the node not ready ("store reached") whenever the store is not
    /// reached, for as long as it is open.
    pub fn watch_readiness(&self, readiness: &Readiness) {
        let (mut health, readiness) = (self.health(), readiness.clone());
        task::spawn("store readiness", async move {
            let mut held = None;
            loop {
                let reached = *health.borrow_and_update();
                held = match (reached, held.take()) {
                    (true, _) => None,
                    (false, None) => Some(readiness.hold("store reached")),
                    (false, guard) => guard,
                };
                if health.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    /// Another node works on this timeline: an older primary is no longer
    /// accepted, and if ours is one, the newest is looked for.
    pub fn saw_timeline(&self, timeline: u64) {
        if self.known.saw_timeline(timeline) {
            self.look_again();
        }
    }

    /// Closes every connection. Takes bounded time; what was acknowledged
    /// stands.
    pub async fn close(&self) {
        let closing =
            async { tokio::join!(self.pool.close(), self.fencing.close(), self.vital.close()) };
        if timeout(CLOSE, closing).await.is_err() {
            tracing::warn!("a statement does not end; the store is closed under it");
        }
    }

    /// A connection outside of the pools, under a name of its own, to the server
    /// that they use: for what must not share a transaction with them. It is
    /// admitted as theirs are, and has their time limits.
    pub(crate) async fn own_connection(&self, name: &str) -> Result<PgConnection, StoreError> {
        let session = Session {
            name: name.to_owned(),
            purpose: Purpose::General,
            statement_timeout: self.statement,
        };
        let connecting = async {
            let mut connection = self.pool.connect_options().connect().await?;
            session.set_up(&mut connection).await?;
            let seen = session::look(&mut connection).await?;
            self.known.admit(&seen)?;
            Ok(connection)
        };
        let connected = timeout(self.attempt, connecting).await.unwrap_or_else(|_| {
            Err(StoreError::Unavailable("the server does not answer in time".to_owned()))
        });
        if connected.is_err() {
            self.look_again();
        }
        connected
    }

    /// The connections for reading and ordinary transactions.
    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Whether chat's tables are distributed by partition over several servers.
    pub fn is_distributed(&self) -> bool {
        self.distributed
    }

    /// The store by the connections that are kept free for what must not wait.
    fn vital(&self) -> Self {
        Self { pool: self.vital.clone(), ..self.clone() }
    }

    fn look_again(&self) {
        // Full: a look is coming. Closed: the store is going down.
        let _ = self.look.try_send(());
    }
}

/// What the fencing sessions of an incarnation are called, up to the node's id.
/// The server keeps 63 bytes of a name: the incarnation comes first.
fn fencing_name(incarnation: &str) -> String {
    format!("simpul/{incarnation}/")
}

fn pool(
    options: &PgConnectOptions,
    settings: &PgSettings,
    known: &Arc<Known>,
    purpose: Purpose,
    connections: u32,
) -> PgPool {
    let (node, statement_timeout) = (settings.node.clone(), settings.statement_timeout);
    let session = move |known: &Known| {
        let name = match purpose {
            Purpose::General => format!("simpul {node}"),
            Purpose::Fencing => fencing_name(&known.incarnation()) + &node,
        };
        Session { name, purpose, statement_timeout }
    };
    let (connecting, acquiring) = (known.clone(), known.clone());
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(settings.connect_timeout)
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            let (session, known) = (session(&connecting), connecting.clone());
            Box::pin(async move { admit(connection, &session, &known).await })
        })
        .before_acquire(move |connection, meta| {
            let known = acquiring.clone();
            Box::pin(async move {
                let misnamed = purpose == Purpose::Fencing && !known.names(meta.age);
                if misnamed || !known.trusts(meta.age) {
                    return Ok(false);
                }
                let tried = known.suspects(meta.idle_for);
                Ok(!tried || matches!(timeout(TRIED, connection.ping()).await, Ok(Ok(()))))
            })
        })
        .connect_lazy_with(options.clone())
}

async fn admit(
    connection: &mut PgConnection,
    session: &Session,
    known: &Known,
) -> Result<(), sqlx::Error> {
    session.set_up(connection).await?;
    let seen = session::look(connection).await;
    let admitted = seen.and_then(|seen| known.admit(&seen));
    admitted.map_err(|error| sqlx::Error::Configuration(error.to_string().into()))
}
