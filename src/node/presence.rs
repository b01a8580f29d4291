//! What a node says of itself, and what it does on a word from outside.

use std::net::SocketAddr;
use std::sync::Arc;

use super::StartError;
use super::signals::{Asked, Signals};
use super::supervisor::Supervisor;
use crate::readiness::Readiness;
use crate::security::Security;
use crate::security::mesh::Mesh;
use crate::store::datadir::DataDir;

/// A started node, as others see it.
#[derive(Debug)]
pub(super) struct Presence {
    pub(super) supervisor: Arc<Supervisor>,
    pub(super) security: Arc<Security>,
    pub(super) certificates: Option<Arc<Mesh>>,
    pub(super) readiness: Readiness,
    pub(super) dir: Arc<DataDir>,
    pub(super) addresses: Addresses,
}

/// Where the node is reached.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    pub(super) public: SocketAddr,
    pub(super) mesh: Option<SocketAddr>,
    pub(super) admin: SocketAddr,
}

impl Presence {
    /// Until a signal asks for an end, which may be before the node is ready. It
    /// says so once it is. SIGHUP has the files of certificates, keys and bundles
    /// looked at now, not when their interval is over.
    pub(super) async fn serve(&self, signals: &mut Signals) -> Result<(), StartError> {
        let mut ready = false;
        loop {
            tokio::select! {
                () = self.readiness.ready(), if !ready => {
                    self.is_ready()?;
                    ready = true;
                }
                asked = signals.first() => match asked {
                    Asked::End => return Ok(()),
                    Asked::Look => tokio::select! {
                        () = self.look(ready) => {}
                        // A file may be on a disk that does not answer.
                        () = signals.end() => return Ok(()),
                    },
                },
            }
        }
    }

    /// Tells where it serves.
    fn is_ready(&self) -> Result<(), StartError> {
        let Addresses { public, mesh, admin } = self.addresses;
        self.dir.write_node_file(public, mesh, admin, self.security.ca_file())?;
        tracing::info!(%public, %admin, node = self.dir.node_id(), "ready");
        self.supervisor.ready(&self.serves());
        Ok(())
    }

    fn serves(&self) -> String {
        format!("serving on {}", self.addresses.public)
    }

    /// Looks at the files; a supervisor hears of it from a node that is ready.
    async fn look(&self, ready: bool) {
        if ready {
            self.supervisor.reloading();
        }
        self.security.clone().look().await;
        if let Some(certificates) = &self.certificates {
            certificates.clone().look().await;
        }
        tracing::info!("SIGHUP: the files of certificates and keys were looked at");
        if ready {
            self.supervisor.ready(&self.serves());
        }
    }
}
