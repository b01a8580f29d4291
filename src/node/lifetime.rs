//! A serving node, and how it ends.

use std::time::Duration;

use tokio::task::JoinHandle;

use super::FLUSH;
use crate::chat::Chat;
use crate::drain::Drain;
use crate::readiness::Guard;
use crate::security::Security;
use crate::store::datadir::DataDir;
use crate::store::sqlite::SqliteStore;
use crate::telemetry::Telemetry;
use crate::{config::schema, payment::provider::sandbox::Sandbox, readiness::Readiness};
use std::sync::Arc;

/// What must be ended, in the order of [`Running::end`].
#[derive(Debug)]
pub(super) struct Running {
    pub(super) shutdown: schema::Shutdown,
    pub(super) readiness: Readiness,
    pub(super) chat: Chat,
    pub(super) store: SqliteStore,
    pub(super) sandbox: Sandbox,
    pub(super) security: Arc<Security>,
    pub(super) telemetry: Telemetry,
    pub(super) dir: DataDir,
    pub(super) serving: JoinHandle<()>,
}

/// How long forced streams have to be gone.
const FORCED: Duration = Duration::from_millis(500);

impl Running {
    /// The order of a shutdown: readiness, balancers, sessions and calls, the
    /// store, what was observed, the admin listener.
    pub(super) async fn end(self, public: Drain, admin: Drain) {
        let draining: Guard = self.readiness.hold("draining");
        if let Err(error) = self.dir.remove_node_file() {
            tracing::warn!(%error, "node.json stays");
        }
        tokio::time::sleep(self.shutdown.delay).await;
        if !public.drain(self.shutdown.grace).await {
            tracing::warn!("the grace period is over: what is open is cut");
            public.drain(FORCED).await;
        }
        self.serving.abort();
        drop(self.chat);
        if let Err(error) = self.store.close().await {
            tracing::error!(%error, "the store was not closed cleanly; what was acknowledged stands");
        }
        self.sandbox.close().await;
        self.security.audit().flush().await;
        tracing::info!("ended");
        self.telemetry.shutdown(FLUSH).await;
        admin.drain(FORCED).await;
        drop(draining);
    }
}
