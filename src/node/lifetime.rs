//! A serving node, and how it ends.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::FLUSH;
use super::database::Database;
use super::member::Member;
use super::signals::Signals;
use super::supervisor::Supervisor;
use crate::chat::Chat;
use crate::drain::Drain;
use crate::readiness::Guard;
use crate::security::Security;
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
            member.leave().await;
        }
    }

    /// The order of a shutdown: readiness, balancers and partitions, sessions and
    /// calls, the cluster, the store, what was observed, the admin listener.
    pub(super) async fn end(self, public: Drain, mesh: Drain, admin: Drain) {
        let draining: Guard = self.readiness.hold("draining");
        self.supervisor
            .stopping(self.shutdown.delay + self.shutdown.grace + LAST_WRITES * 3 + FLUSH);
        if let Err(error) = self.dir.remove_node_file() {
            tracing::warn!(%error, "node.json stays");
        }
        let grace = self.hand_over().await;
        if !public.drain(grace).await {
            tracing::warn!("the grace period is over: what is open is cut");
            public.drain(FORCED).await;
        }
        self.serving.abort();
        if let Some(member) = &self.member {
            member.leave().await;
        }
        // Links carried what the last sessions sent; now nobody needs them. A
        // node alone has none, and nobody holds a guard.
        mesh.drain(Duration::ZERO).await;
        mesh.drain(FORCED).await;
        drop(self.chat);
        if let Err(error) = self.database.close().await {
            tracing::error!(%error, "the store was not closed cleanly; what was acknowledged stands");
        }
        // A disk that does not answer must not hold up the end.
        if timeout(LAST_WRITES, self.sandbox.close()).await.is_err() {
            tracing::error!("the sandbox's books were not closed cleanly");
        }
        if timeout(LAST_WRITES, self.security.audit().flush()).await.is_err() {
            tracing::error!("the audit log was not written to its end");
        }
        tracing::info!("ended");
        self.telemetry.shutdown(FLUSH).await;
        admin.drain(FORCED).await;
        drop(draining);
    }

    /// Serves on until balancers have seen that the node stops, and hands over
    /// what it owns meanwhile. Gives what is left of the grace period.
    async fn hand_over(&self) -> Duration {
        let shutdown = &self.shutdown;
        let begun = Instant::now();
        let within = shutdown.delay + shutdown.grace / 2;
        let handing_over = async {
            if let Some(member) = &self.member {
                member.hand_over(within).await;
            }
        };
        tokio::join!(handing_over, tokio::time::sleep(shutdown.delay));
        let over = begun.elapsed().saturating_sub(shutdown.delay);
        shutdown.grace.saturating_sub(over)
    }
}
