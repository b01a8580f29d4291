//! A serving node, and how it ends.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;

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

/// How long the sandbox's books and the audit log have for what they hold.
const LAST_WRITES: Duration = Duration::from_secs(3);

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
}
