//! Who is calling, and what they may do.
//!
//! [`Security`] holds everything that the listener and the layers decide with:
//! the certificates and keys as they are now, the policy, the audit log. It is
//! made once, reports every problem of its configuration at once, and goes on
//! with changed files while the node runs ([`Security::watch`]).
//!
//! The life of a proof: the handshake verifies a certificate's chain; after
//! it [`Security::peer`] says whom it names, also when the handshake was a
//! resumed one; the authenticate layer joins that with a token; the authorize
//! layer asks the policy and makes the [`permit::Permit`]. When the bundles
//! change, [`Security::trust`] tells the accept loop, which asks
//! [`Security::recheck`] for each open connection.

pub mod accounts;
pub mod audit;
pub mod authenticate;
pub mod authorize;
pub mod belief;
pub mod connection;
pub mod development;
mod failures;
pub mod identity;
pub mod issue;
mod material;
pub mod mesh;
pub mod permit;
pub mod policy;
mod problem;
mod proof;
mod reload;
mod setup;
mod spiffe;
pub mod tls;
mod token;
mod trust;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use prometheus_client::registry::Registry;
use rustls::crypto::CryptoProvider;
use rustls::server::{ServerConfig, ServerConnection};
use tokio::sync::watch;

use self::accounts::Accounts;
use self::audit::AuditLog;
use self::authenticate::{AuthenticateLayer, Authenticator};
use self::authorize::AuthorizeLayer;
use self::connection::PeerCertificate;
use self::policy::Policy;
pub use self::problem::SecurityProblem;
use self::reload::Reloader;
pub use self::spiffe::IdentityError;
use self::trust::Trust;
pub use self::trust::{PeerChain, PeerError};
use crate::clock::Clock;
use crate::config::Config;
use crate::config::schema::ClientAuth;
use crate::drain;

/// Everything that decides about callers.
#[derive(Debug)]
pub struct Security {
    serving: ArcSwap<Serving>,
    /// Counts the changes of the bundles.
    trust: watch::Sender<u64>,
    reloader: Mutex<Reloader>,
    authenticator: Arc<Authenticator>,
    accounts: Accounts,
    client_auth: ClientAuth,
    provider: Arc<CryptoProvider>,
    clock: Arc<dyn Clock>,
    reload_interval: Duration,
    /// How the files are, the mesh's among them.
    metrics: reload::Metrics,
    development: Option<Development>,
}

/// What the listener serves with, replaced as one.
#[derive(Debug)]
struct Serving {
    config: Arc<ServerConfig>,
    trust: Trust,
}

/// The material that this node made for itself.
#[derive(Debug)]
struct Development {
    data_dir: PathBuf,
    node_id: Option<String>,
    /// Whether the listener serves with it.
    serves: bool,
}

impl Security {
    /// Reads everything that the configuration names; in development makes what
    /// it does not name. All problems at once, each under its key.
    pub fn load(
        config: &Config,
        data_dir: &Path,
        clock: Arc<dyn Clock>,
        registry: &mut Registry,
    ) -> Result<Arc<Self>, Vec<SecurityProblem>> {
        setup::load(config, data_dir, clock, registry).map(Arc::new)
    }

    /// Everything that [`Security::load`] would refuse now, without making or
    /// writing anything.
    pub fn check(config: &Config, data_dir: &Path, now: SystemTime) -> Vec<SecurityProblem> {
        setup::check(config, data_dir, now)
    }

    /// The TLS configuration for the next connection.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.serving.load().config.clone()
    }

    /// Whom a connection's certificate proves, decided now against the present
    /// bundles; to be asked after every handshake. `None` when no certificate
    /// was given and none is required.
    pub fn peer(
        &self,
        connection: &ServerConnection,
    ) -> Result<Option<PeerCertificate>, PeerError> {
        match PeerChain::of(connection) {
            Some(chain) => self.recheck(&chain).map(Some),
            None if self.client_auth == ClientAuth::Required => Err(PeerError::Missing),
            None => Ok(None),
        }
    }

    /// Whether a chain still proves whom it proved, with the same roles: for
    /// open connections after a change of trust. Others must be closed, since
    /// their calls go on under what was proven at first.
    pub fn still_proves(&self, chain: &PeerChain, certificate: &PeerCertificate) -> bool {
        self.recheck(chain).is_ok_and(|now| {
            now.principal == certificate.principal && now.roles == certificate.roles
        })
    }

    /// Whom a chain proves now.
    pub fn recheck(&self, chain: &PeerChain) -> Result<PeerCertificate, PeerError> {
        self.serving.load().trust.verify(chain, self.clock.now())
    }

    /// The generation of the bundles; changes when they do.
    pub fn trust(&self) -> watch::Receiver<u64> {
        self.trust.subscribe()
    }

    /// Looks after the files until the stop is asked for.
    pub async fn watch(self: Arc<Self>, mut drain: drain::Watch) {
        loop {
            tokio::select! {
                () = drain.graceful() => return,
                () = tokio::time::sleep(self.reload_interval) => {}
            }
            self.clone().look().await;
        }
    }

    /// Looks at the files now. Returns when what changed is in force.
    pub async fn look(self: Arc<Self>) {
        let polled = tokio::task::spawn_blocking(move || self.poll(self.clock.now()));
        if polled.await.is_err() {
            tracing::error!("the certificate files could not be looked at");
        }
    }

    /// Whose account is whose.
    pub fn accounts(&self) -> Accounts {
        self.accounts.clone()
    }

    /// The authority that clients of this node need, when it made its own.
    pub fn ca_file(&self) -> Option<PathBuf> {
        let development = self.development.as_ref().filter(|development| development.serves)?;
        Some(development::dir(&development.data_dir).join("ca.pem"))
    }

    /// Who may call what.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.authenticator.policy
    }

    /// The audit log, to be flushed when the node has stopped.
    pub fn audit(&self) -> &Arc<AuditLog> {
        &self.authenticator.audit
    }

    /// Finds out who calls.
    pub fn authenticate_layer(&self) -> AuthenticateLayer {
        AuthenticateLayer { authenticator: self.authenticator.clone() }
    }

    /// Decides whether they may.
    pub fn authorize_layer(&self) -> AuthorizeLayer {
        AuthorizeLayer { authenticator: self.authenticator.clone() }
    }

    /// Takes over what changed in the files. Blocks on them.
    fn poll(&self, now: SystemTime) {
        if let Some(development) = &self.development
            && let Err(error) =
                development::renew(&development.data_dir, development.node_id.as_deref(), now)
        {
            tracing::debug!(%error, "the development server certificate is not renewed");
        }
        let mut reloader = self.reloader.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = reloader.poll(now);
        if changed.tokens {
            self.authenticator.tokens.replace(reloader.issuers());
        }
        if changed.server || changed.trust {
            match serving(&reloader, self.client_auth, &self.provider) {
                Ok(serving) => self.serving.store(Arc::new(serving)),
                Err(error) => tracing::error!(error, "the reloaded certificates cannot serve"),
            }
        }
        if changed.trust {
            self.trust.send_modify(|generation| *generation += 1);
        }
    }
}

fn serving(
    reloader: &Reloader,
    client_auth: ClientAuth,
    provider: &Arc<CryptoProvider>,
) -> Result<Serving, String> {
    let identity = reloader.server().ok_or("there is no server certificate")?;
    let trust = reloader.trust()?;
    let config = tls::server_config(identity.key.clone(), &trust, client_auth, provider)?;
    tls::warm_up(&config, provider);
    Ok(Serving { config, trust })
}

#[cfg(test)]
mod tests;
