//! How nodes prove themselves to each other.
//!
//! Mutual TLS 1.3, both ways by the mesh bundle alone: no other authority that
//! the node believes counts here, and this one counts nowhere else. A node is
//! known by its SPIFFE id, `/node/<id>` or, for any node, `/node`. Host names
//! are not looked at: addresses of pods change, ids do not.
//!
//! Nothing is resumed: links live long, and a resumed handshake would skip the
//! verifier. The files are looked after like all others; when the bundle
//! changes, [`Mesh::trust`] tells, and both ends look again at the chains of
//! their open connections.

mod verify;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use prometheus_client::registry::Registry;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::ServerConnection;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::sync::watch;

use self::verify::{Accepting, Dialing, Vouching};
use super::connection::PeerCertificate;
use super::material::Authorities;
use super::reload::{Metrics, Naming, Reloader, Source, What};
pub use super::spiffe::NodeName;
use super::spiffe::Patterns;
use super::trust::{BundleRules, PeerChain, PeerError, unix};
use super::{Security, SecurityProblem, development, tls};
use crate::clock::Clock;
use crate::config::Config;
use crate::config::schema::Profile;
use crate::drain;
use crate::principal::{Kind, Principal, Role, Roles, TrustDomain};

/// The id in the principal of a node whose certificate names any: no node can
/// have it.
const ANY: &str = "_";

/// How often the wall clock is looked at while a link stands: a stepped clock or
/// a freeze must not stretch a certificate's time by more.
const LOOK: Duration = Duration::from_millis(900);

/// The mesh's certificates and trust as they are now.
#[derive(Debug)]
pub struct Mesh {
    state: ArcSwap<State>,
    trust: watch::Sender<u64>,
    reloader: Mutex<Reloader>,
    domain: TrustDomain,
    provider: Arc<CryptoProvider>,
    clock: Arc<dyn Clock>,
    interval: Duration,
    /// The data directory, when development made the certificate.
    made: Option<std::path::PathBuf>,
}

/// What connections begin with, replaced as one.
#[derive(Debug)]
struct State {
    server: Arc<ServerConfig>,
    key: Arc<CertifiedKey>,
    vouching: Arc<Vouching>,
}

impl Mesh {
    /// Reads what the configuration names; in development makes what it does
    /// not name. All problems at once, each under its key.
    pub fn load(
        config: &Config,
        data_dir: &Path,
        security: &Security,
    ) -> Result<Arc<Self>, Vec<SecurityProblem>> {
        let clock = security.clock.clone();
        let domain = trust_domain(config).clone();
        let made = makes(config).then(|| data_dir.to_path_buf());
        if made.is_some() {
            development::ensure_node(data_dir, &domain, clock.now())
                .map_err(|error| vec![SecurityProblem::new("data_dir", error.to_string())])?;
        }
        let reloader = reloader(config, data_dir, security.metrics.clone(), clock.now())?;
        let provider = tls::provider();
        let state = state(&reloader, &domain, &provider)
            .map_err(|error| vec![SecurityProblem::new("mesh", error)])?;
        tls::warm_up(&state.server, &provider);
        Ok(Arc::new(Self {
            state: ArcSwap::from_pointee(state),
            trust: watch::channel(0).0,
            reloader: Mutex::new(reloader),
            domain,
            provider,
            clock,
            interval: config.tls.reload_interval,
            made,
        }))
    }

    /// The trust domain of the cluster's nodes.
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// What [`Mesh::load`] would refuse now, without making anything; what is
    /// not there yet the first start makes.
    pub fn check(config: &Config, data_dir: &Path, now: SystemTime) -> Vec<SecurityProblem> {
        let [node, _] = development::node_files(data_dir);
        if makes(config) && !node.exists() {
            return Vec::new();
        }
        let metrics = Metrics::register(&mut Registry::default());
        match reloader(config, data_dir, metrics, now) {
            Ok(reloader) => state(&reloader, trust_domain(config), &tls::provider())
                .err()
                .map(|error| SecurityProblem::new("mesh", error))
                .into_iter()
                .collect(),
            Err(problems) => problems,
        }
    }

    /// The TLS configuration for the next connection that is accepted.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.state.load().server.clone()
    }

    /// The TLS configuration for dialing a node: whoever answers must prove to
    /// be that one.
    pub fn client_config(&self, node: &str) -> Result<Arc<ClientConfig>, String> {
        let state = self.state.load();
        let verifier = Dialing { vouching: state.vouching.clone(), node: node.into() };
        let builder = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| error.to_string())?;
        let mut config = builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(state.key.clone())));
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok(Arc::new(config))
    }

    /// What a dialing connection calls the other end; nobody looks at it.
    pub fn server_name() -> ServerName<'static> {
        ServerName::IpAddress(std::net::IpAddr::from([0, 0, 0, 0]).into())
    }

    /// Which node has opened a connection, decided now against the present
    /// bundle; to be asked after every handshake. It has the role of nodes.
    pub fn peer(&self, connection: &ServerConnection) -> Result<PeerCertificate, PeerError> {
        self.verify(&PeerChain::of(connection).ok_or(PeerError::Missing)?)
    }

    /// Whether a chain still proves the node that it proved.
    pub fn still_proves(&self, chain: &PeerChain, certificate: &PeerCertificate) -> bool {
        self.verify(chain).is_ok_and(|now| now.principal == certificate.principal)
    }

    /// Whether what a dialed node showed still proves it.
    pub fn believes_server(&self, chain: &[CertificateDer<'_>], node: &str) -> bool {
        let Some((leaf, intermediates)) = chain.split_first() else { return false };
        let vouching = self.state.load().vouching.clone();
        vouching.server(leaf, intermediates, node, unix(self.clock.now())).is_ok()
    }

    /// Waits until what a dialed node showed proves it no more: its time is over,
    /// or the bundle changed since `trust` was asked for. Cancel safe.
    pub async fn distrusted(
        &self,
        mut trust: watch::Receiver<u64>,
        chain: &[CertificateDer<'_>],
        node: &str,
    ) {
        let Some((leaf, intermediates)) = chain.split_first() else { return };
        let Ok(end) = super::trust::end_of(leaf, intermediates, self.clock.now()) else { return };
        loop {
            let Ok(left) = end.duration_since(self.clock.now()) else { return };
            let nap = left.clamp(Duration::from_millis(1), LOOK);
            tokio::select! {
                biased;
                Ok(()) = trust.changed() => {
                    if !self.believes_server(chain, node) {
                        return;
                    }
                }
                () = tokio::time::sleep(nap) => {}
            }
        }
    }

    /// The generation of the bundle; changes when it does.
    pub fn trust(&self) -> watch::Receiver<u64> {
        self.trust.subscribe()
    }

    /// Looks after the files until the stop is asked for.
    pub async fn watch(self: Arc<Self>, mut drain: drain::Watch) {
        loop {
            tokio::select! {
                biased;
                () = drain.graceful() => return,
                () = tokio::time::sleep(self.interval) => {}
            }
            self.clone().look().await;
        }
    }

    /// Looks at the files now. Returns when what changed is in force.
    pub async fn look(self: Arc<Self>) {
        let polled = tokio::task::spawn_blocking(move || self.poll(self.clock.now()));
        if polled.await.is_err() {
            tracing::error!("the mesh's certificate files could not be looked at");
        }
    }

    /// Takes over what changed in the files. Blocks on them.
    fn poll(&self, now: SystemTime) {
        if let Some(data_dir) = &self.made
            && let Err(error) = development::ensure_node(data_dir, &self.domain, now)
        {
            tracing::debug!(%error, "the development node certificate is not renewed");
        }
        let mut reloader = self.reloader.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = reloader.poll(now);
        if changed.server || changed.trust {
            match state(&reloader, &self.domain, &self.provider) {
                Ok(state) => self.state.store(Arc::new(state)),
                Err(error) => tracing::error!(error, "the reloaded mesh certificates cannot serve"),
            }
        }
        if changed.trust {
            self.trust.send_modify(|generation| *generation += 1);
        }
    }

    fn verify(&self, chain: &PeerChain) -> Result<PeerCertificate, PeerError> {
        let now = self.clock.now();
        let (leaf, intermediates) = chain.parts().ok_or(PeerError::Missing)?;
        let not_after = super::trust::end_of(leaf, intermediates, now)?;
        let vouching = self.state.load().vouching.clone();
        if vouching.chain(leaf, intermediates, unix(now)).is_err() {
            return Err(PeerError::Untrusted);
        }
        let id = match vouching.name(leaf)? {
            NodeName::Any => ANY.into(),
            NodeName::One(id) => id,
        };
        let principal = Principal::new(Kind::Node, &id, &self.domain)
            .map_err(|_| super::IdentityError::NotNode)?;
        let roles = Roles::NONE.with(Role::Node);
        let thumbprint = super::trust::thumbprint(leaf);
        Ok(PeerCertificate { principal, roles, not_after, thumbprint })
    }
}

/// Which node a principal that [`Mesh::peer`] gave may be; `None` for what is
/// no node.
pub fn node_of(principal: &Principal) -> Option<NodeName> {
    (principal.kind() == Kind::Node).then(|| match principal.id() {
        ANY => NodeName::Any,
        id => NodeName::One(id.into()),
    })
}

/// What TLS found wrong, somewhere below an error; `None` when it was not TLS.
/// Says whom a certificate should have named, or what the other side's alert is.
pub fn refusal_of(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut below = Some(error);
    while let Some(error) = below {
        // An io::Error's source is that of what it holds, not what it holds.
        let held = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = error
            .downcast_ref::<rustls::Error>()
            .or_else(|| held.and_then(|held| held.downcast_ref::<rustls::Error>()));
        if let Some(tls) = tls {
            return Some(match tls {
                rustls::Error::InvalidCertificate(rustls::CertificateError::Other(why)) => {
                    why.0.to_string()
                }
                other => other.to_string(),
            });
        }
        below = error.source();
    }
    None
}

fn trust_domain(config: &Config) -> &TrustDomain {
    config.mesh.trust_domain.as_ref().unwrap_or(&config.auth.trust_domain)
}

/// Whether development makes the material.
fn makes(config: &Config) -> bool {
    config.profile == Profile::Development && config.mesh.cert_file.is_none()
}

fn reloader(
    config: &Config,
    data_dir: &Path,
    metrics: Metrics,
    now: SystemTime,
) -> Result<Reloader, Vec<SecurityProblem>> {
    let production = config.profile == Profile::Production;
    let mut problems = Vec::new();
    let mut reloader = Reloader::new(Arc::default(), production, tls::provider(), metrics);
    // What others would refuse is refused here first, under its own name.
    let id = config.node.id.clone();
    reloader.name_a_node(Naming { domain: trust_domain(config).clone(), id });
    let mesh = &config.mesh;
    let mut miss = |key: &str, why: &str| problems.push(SecurityProblem::new(key, why));
    let rules = BundleRules {
        domain: trust_domain(config).clone(),
        kinds: vec![Kind::Node],
        roles: Roles::NONE.with(Role::Node),
        default_roles: Roles::NONE,
        patterns: Patterns::default(),
    };
    match &mesh.ca_file {
        Some(file) => reloader.add_bundle("mesh.ca_file".into(), file, rules),
        None if makes(config) => {
            let file = development::dir(data_dir).join("ca.pem");
            reloader.add_bundle("mesh dev/ca.pem".into(), &file, rules);
        }
        None => miss("mesh.ca_file", "is needed: it says which nodes are believed"),
    }
    match (&mesh.cert_file, &mesh.key_file) {
        (Some(cert), Some(key)) => {
            let files = vec![cert.clone(), key.clone()];
            reloader.add_server(Source::new("mesh.cert_file".into(), What::Server, files));
        }
        (None, None) if !production => {
            let files = development::node_files(data_dir).to_vec();
            reloader.add_server(Source::new("dev/node.pem".into(), What::Server, files));
        }
        (None, None) => miss("mesh.cert_file", "is needed for a cluster in production"),
        (Some(_), None) => miss("mesh.key_file", "is needed beside mesh.cert_file"),
        (None, Some(_)) => miss("mesh.cert_file", "is needed beside mesh.key_file"),
    }
    problems.extend(reloader.load(now));
    if problems.is_empty() { Ok(reloader) } else { Err(problems) }
}

fn state(
    reloader: &Reloader,
    domain: &TrustDomain,
    provider: &Arc<CryptoProvider>,
) -> Result<State, String> {
    let key = reloader.server().ok_or("there is no mesh certificate")?.key.clone();
    let Authorities { roots, .. } = reloader.authorities(0).ok_or("there is no mesh bundle")?;
    let vouching = Arc::new(Vouching::new(roots.clone(), domain.clone(), provider)?);
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?;
    let mut server = builder
        .with_client_cert_verifier(Arc::new(Accepting { vouching: vouching.clone() }))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key.clone())));
    server.alpn_protocols = vec![b"h2".to_vec()];
    server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(State { server: Arc::new(server), key, vouching })
}

#[cfg(test)]
mod tests;
