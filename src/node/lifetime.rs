//! A serving node, and how it ends.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::FLUSH;
use super::database::Database;
use super::member::{LEAVE, Member};
use super::signals::Signals;
use super::supervisor::Supervisor;
use crate::chat::Chat;
use crate::drain::Drain;
use crate::readiness::Guard;
use crate::security::Security;
use crate::security::audit::AuditLog;
use crate::security::mesh::Mesh;
use crate::store::datadir::DataDir;
use crate::telemetry::Telemetry;
use crate::{config::schema, payment::provider::sandbox::Sandbox, readiness::Readiness};
use std::sync::Arc;

/// What must be ended, in the order of [`Running::end`].
#[derive(Debug)]
pub(super) struct Running {
    pub(super) shutdown: schema::Shutdown,
    pub(super) readiness: Readiness,
    pub(super) chat: Chat,
    pub(super) member: Option<Member>,
    pub(super) database: Database,
    pub(super) sandbox: Sandbox,
    pub(super) security: Arc<Security>,
    pub(super) telemetry: Telemetry,
    pub(super) dir: Arc<DataDir>,
    pub(super) serving: JoinHandle<()>,
    pub(super) mesh: Option<Arc<Mesh>>,
    pub(super) supervisor: Arc<Supervisor>,
    pub(super) public: SocketAddr,
}

/// What a serving node says, and what it does on a word from outside.
#[derive(Debug)]
pub(super) struct Presence {
    supervisor: Arc<Supervisor>,
    security: Arc<Security>,
    mesh: Option<Arc<Mesh>>,
    public: SocketAddr,
}

impl Presence {
    /// Until a signal asks for an end. SIGHUP has the files of certificates,
    /// keys and bundles looked at now, not when their interval is over.
    pub(super) async fn serve(&self, signals: &mut Signals) {
        let serves = format!("serving on {}", self.public);
        self.supervisor.ready(&serves);
        while !signals.first().await {
            self.supervisor.reloading();
            self.security.clone().look().await;
            if let Some(mesh) = &self.mesh {
                mesh.clone().look().await;
            }
            tracing::info!("SIGHUP: the files of certificates and keys were looked at");
            self.supervisor.ready(&serves);
        }
    }
}

/// How long the sandbox's books and the audit log have for what they hold.
const LAST_WRITES: Duration = Duration::from_secs(3);

/// How long the store may take to close.
const CLOSE: Duration = Duration::from_secs(15);

/// This part of the grace period is kept for what comes after the streams, and
/// no more than [`LAST_WRITES`] of it.
const RESERVE: u32 = 10;

/// What even a late step may take.
const AT_ONCE: Duration = Duration::from_millis(100);

const UNCLEAN: &str = "the store was not closed cleanly; what was acknowledged stands";

/// How long forced streams have to be gone.
const FORCED: Duration = Duration::from_millis(500);

impl Running {
    /// What the node shows of itself while it serves.
    pub(super) fn presence(&self) -> Presence {
        Presence {
            supervisor: self.supervisor.clone(),
            security: self.security.clone(),
            mesh: self.mesh.clone(),
            public: self.public,
        }
    }

    /// Waits until a task has ended without which the node would only seem to
    /// live, and names it. Cancel safe.
    pub(super) async fn failed(&mut self) -> &'static str {
        let member = async {
            match &mut self.member {
                Some(member) => member.failed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.chat.failed() => "room owner",
            () = member => "cluster driver",
        }
    }

    /// What a node that has failed does first: others take its partitions at
    /// once, for it cannot hand them over.
    pub(super) async fn give_up(&mut self) {
        if let Some(member) = self.member.take() {
            member.leave(LEAVE).await;
        }
    }

    /// The order of a shutdown: readiness, balancers and partitions, sessions and
    /// calls, the cluster, the store, what was observed, the admin listener. All
    /// of it ends with the grace period, nearly: see [`End`].
    pub(super) async fn end(self, public: Drain, mesh: Drain, admin: Drain) {
        let end = End::of(&self.shutdown);
        let draining: Guard = self.readiness.hold("draining");
        self.supervisor
            .stopping(self.shutdown.delay + self.shutdown.grace + LAST_WRITES * 3 + FLUSH);
        if let Err(error) = self.dir.remove_node_file() {
            tracing::warn!(%error, "node.json stays");
        }
        self.hand_over(&end).await;
        if !public.drain(end.until_the_cut()).await {
            tracing::warn!("the grace period is over: what is open is cut");
            public.drain(end.at_most(FORCED)).await;
        }
        self.serving.abort();
        if let Some(member) = &self.member {
            member.leave(end.at_most(LEAVE)).await;
        }
        // Links carried what the last sessions sent; now nobody needs them. A
        // node alone has none, and nobody holds a guard.
        mesh.drain(Duration::ZERO).await;
        mesh.drain(end.at_most(FORCED)).await;
        drop(self.chat);
        last_writes(&end, &self.database, &self.sandbox, self.security.audit()).await;
        tracing::info!("ended");
        self.telemetry.shutdown(end.at_most(FLUSH)).await;
        admin.drain(end.at_most(FORCED)).await;
        drop(draining);
    }

    /// Serves on until balancers have seen that the node stops, and hands over
    /// what it owns meanwhile.
    async fn hand_over(&self, end: &End) {
        let shutdown = &self.shutdown;
        let within = shutdown.delay + shutdown.grace / 2;
        let handing_over = async {
            if let Some(member) = &self.member {
                member.hand_over(within, end.cut).await;
            }
        };
        tokio::join!(handing_over, tokio::time::sleep(shutdown.delay));
    }
}

/// Closes the store and the books, and writes the audit log to its end. What
/// was acknowledged stands before that.
async fn last_writes(end: &End, database: &Database, sandbox: &Sandbox, audit: &AuditLog) {
    match timeout(end.at_most(CLOSE), database.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "{UNCLEAN}"),
        Err(_) => tracing::error!("{UNCLEAN}"),
    }
    // A disk that does not answer must not hold up the end.
    if timeout(end.at_most(LAST_WRITES), sandbox.close()).await.is_err() {
        tracing::error!("the sandbox's books were not closed cleanly");
    }
    if timeout(end.at_most(LAST_WRITES), audit.flush()).await.is_err() {
        tracing::error!("the audit log was not written to its end");
    }
}

/// When a stop must be over. One deadline for all its steps: a step that gets no
/// answer takes the time of those after it, never more than that.
#[derive(Debug)]
struct End {
    /// When streams and calls are cut.
    cut: Instant,
    /// When everything is over.
    over: Instant,
}

impl End {
    fn of(shutdown: &schema::Shutdown) -> Self {
        let over = Instant::now() + shutdown.delay + shutdown.grace;
        Self { cut: over - (shutdown.grace / RESERVE).min(LAST_WRITES), over }
    }

    fn until_the_cut(&self) -> Duration {
        self.cut.saturating_duration_since(Instant::now())
    }

    /// What a step may take: half of what is left, for others come after it, and
    /// not so little that one which is answered at once could fail.
    fn at_most(&self, limit: Duration) -> Duration {
        let left = self.over.saturating_duration_since(Instant::now());
        limit.min((left / 2).max(AT_ONCE))
    }
}
