//! A started node, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::StartError;
use super::database::Database;
use super::end::{End, FLUSH, FORCED, Stops};
use super::member::{LEAVE, Member};
use super::presence::{Addresses, Presence};
use super::signals::Signals;
use super::supervisor::Supervisor;
use crate::chat::Chat;
use crate::config::schema;
use crate::payment::provider::sandbox::Sandbox;
use crate::readiness::{Guard, Readiness};
use crate::security::Security;
use crate::security::mesh::Mesh;
use crate::store::datadir::DataDir;
use crate::telemetry::Telemetry;

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
    pub(super) addresses: Addresses,
}

impl Running {
    /// Until a signal asks for an end or the node has failed, be it ready by then
    /// or not; then it ends in order, unless another signal comes.
    pub(super) async fn run(
        mut self,
        signals: &mut Signals,
        stops: Stops,
    ) -> Result<(), StartError> {
        let presence = self.presence();
        let served = tokio::select! {
            served = presence.serve(signals) => served,
            task = self.failed() => Err(StartError::Failed(task)),
        };
        let end = async {
            if let Err(StartError::Failed(task)) = &served {
                tracing::error!(task, "a task that the node cannot do without is gone: it ends");
                self.give_up().await;
            }
            self.end(stops).await;
        };
        tokio::select! {
            () = end => {}
            () = signals.second() => {}
        }
        served
    }

    /// What the node shows of itself.
    fn presence(&self) -> Presence {
        Presence {
            supervisor: self.supervisor.clone(),
            security: self.security.clone(),
            certificates: self.mesh.clone(),
            readiness: self.readiness.clone(),
            dir: self.dir.clone(),
            addresses: self.addresses,
        }
    }

    /// Waits until a task has ended without which the node would only seem to
    /// live, and names it. Cancel safe.
    async fn failed(&mut self) -> &'static str {
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
    async fn give_up(&mut self) {
        if let Some(member) = self.member.take() {
            member.leave(LEAVE).await;
        }
    }

    /// The order of a shutdown: readiness, balancers and partitions, sessions and
    /// calls, the cluster, the store, what was observed, the admin listener. All
    /// of it ends with the grace period, nearly: see [`End`].
    async fn end(self, stops: Stops) {
        let Stops { public, mesh, admin } = stops;
        let end = End::of(&self.shutdown);
        let draining: Guard = self.readiness.hold("draining");
        self.supervisor.stopping(End::longest(&self.shutdown));
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
        end.last_writes(&self.database, &self.sandbox, self.security.audit()).await;
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
