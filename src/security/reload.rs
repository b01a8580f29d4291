//! Files that change while the node runs.
//!
//! Every `tls.reload_interval` each file's content is read, so that a changed
//! file, a renamed one and a swapped symlink are all seen, without a signal. A
//! source is taken over whole or not at all: one that is torn, mismatched,
//! over, or cannot be read is refused and the last good one kept; it is tried
//! again each time, since it may be written just now or its time may be about
//! to begin. Both the failure and the remaining lifetime are metrics, and the
//! log says each change of state once.

mod source;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::CertificateDer;

pub(super) use self::source::{Metrics, Source, What};
use super::material::{self, Authorities, ServerIdentity};
use super::problem::SecurityProblem;
use super::spiffe::{self, NodeName};
use super::token::{IssuerRules, KeySet};
use super::trust::{self, BundleRules, Trust};
use crate::principal::{Principal, Roles, TrustDomain};

/// What was good when it was last looked at.
#[derive(Debug)]
pub(super) struct Reloader {
    sources: Vec<Source>,
    server: Option<ServerIdentity>,
    bundles: Vec<(BundleRules, Option<Authorities>)>,
    issuers: Vec<(IssuerRules, Option<Arc<KeySet>>)>,
    bindings: Arc<HashMap<Principal, Roles>>,
    production: bool,
    provider: Arc<CryptoProvider>,
    metrics: Metrics,
    node: Option<Naming>,
}

/// The node that a mesh certificate must name.
#[derive(Debug, Clone)]
pub(super) struct Naming {
    pub(super) domain: TrustDomain,
    /// Any, where the node's id is not known.
    pub(super) id: Option<String>,
}

impl Naming {
    fn check(&self, leaf: &[u8]) -> Result<(), String> {
        let name = spiffe::uri(leaf).and_then(|uri| spiffe::node(&uri, &self.domain));
        let name = name.map_err(|error| error.to_string())?;
        match (&self.id, name) {
            (Some(id), NodeName::One(named)) if *named != **id => {
                Err(format!("names the node {named}, but this node is {id} (node.id)"))
            }
            _ => Ok(()),
        }
    }
}

/// Which parts are others than before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Changed {
    pub(super) server: bool,
    pub(super) trust: bool,
    pub(super) tokens: bool,
}

/// A source's new content, read well.
enum Read {
    Server(ServerIdentity),
    Bundle(usize, Authorities),
    Issuer(usize, KeySet),
}

impl Reloader {
    pub(super) fn new(
        bindings: Arc<HashMap<Principal, Roles>>,
        production: bool,
        provider: Arc<CryptoProvider>,
        metrics: Metrics,
    ) -> Self {
        Self {
            sources: Vec::new(),
            server: None,
            bundles: Vec::new(),
            issuers: Vec::new(),
            bindings,
            production,
            provider,
            metrics,
            node: None,
        }
    }

    /// The server's certificate must be a node's, and the first bundle, which is
    /// to be added before it, must vouch for it.
    pub(super) fn name_a_node(&mut self, naming: Naming) {
        self.node = Some(naming);
    }

    /// Looks after the listener's own certificate and key.
    pub(super) fn add_server(&mut self, source: Source) {
        self.sources.push(source);
    }

    /// Looks after a bundle.
    pub(super) fn add_bundle(&mut self, key: String, file: &std::path::Path, rules: BundleRules) {
        let what = What::Bundle(self.bundles.len());
        self.sources.push(Source::new(key, what, vec![file.to_path_buf()]));
        self.bundles.push((rules, None));
    }

    /// Looks after an issuer's keys.
    pub(super) fn add_issuer(&mut self, key: String, file: &std::path::Path, rules: IssuerRules) {
        let what = What::Issuer(self.issuers.len());
        self.sources.push(Source::new(key, what, vec![file.to_path_buf()]));
        self.issuers.push((rules, None));
    }

    /// Reads everything for the first time; what fails keeps the node from
    /// starting.
    pub(super) fn load(&mut self, now: SystemTime) -> Vec<SecurityProblem> {
        let mut problems = Vec::new();
        for index in 0..self.sources.len() {
            if let Err((key, error)) = self.look(index, now) {
                problems.push(SecurityProblem::new(key, error));
            }
        }
        self.measure(now);
        problems
    }

    /// Reads everything again and takes over what changed and is good.
    pub(super) fn poll(&mut self, now: SystemTime) -> Changed {
        let mut changed = Changed::default();
        for index in 0..self.sources.len() {
            let looked = self.look(index, now);
            let Some(source) = self.sources.get_mut(index) else { continue };
            match looked {
                Ok(None) => {}
                Ok(Some(What::Server)) => changed.server = true,
                Ok(Some(What::Bundle(_))) => changed.trust = true,
                Ok(Some(What::Issuer(_))) => changed.tokens = true,
                Err((_, error)) => source.failed(&error, &self.metrics),
            }
        }
        self.measure(now);
        changed
    }

    /// The listener's certificate; `None` only before a good load.
    pub(super) fn server(&self) -> Option<&ServerIdentity> {
        self.server.as_ref()
    }

    /// One bundle's authorities; `None` only before a good load.
    pub(super) fn authorities(&self, bundle: usize) -> Option<&Authorities> {
        self.bundles.get(bundle).and_then(|(_, held)| held.as_ref())
    }

    /// All bundles as they are.
    pub(super) fn trust(&self) -> Result<Trust, String> {
        let good = self
            .bundles
            .iter()
            .filter_map(|(rules, authorities)| Some((rules.clone(), authorities.clone()?)));
        Trust::new(good.collect(), self.bindings.clone(), &self.provider)
    }

    /// All key sets as they are.
    pub(super) fn issuers(&self) -> Vec<(IssuerRules, Arc<KeySet>)> {
        let good = self.issuers.iter();
        good.filter_map(|(rules, keys)| Some((rules.clone(), keys.clone()?))).collect()
    }

    /// Looks at one source; says what it is when it was taken over.
    fn look(&mut self, index: usize, now: SystemTime) -> Result<Option<What>, (String, String)> {
        let Some(source) = self.sources.get(index) else { return Ok(None) };
        let named = |error: String| (source.key.clone(), error);
        let files = source.read().map_err(named)?;
        let digest = source::digest(&files);
        if source.is_current(&digest) {
            self.recovered(index);
            return Ok(None);
        }
        let read = self.parse(source.what, &files, now).map_err(named)?;
        let what = source.what;
        match read {
            Read::Server(identity) => self.server = Some(identity),
            Read::Bundle(at, authorities) => {
                if let Some((_, slot)) = self.bundles.get_mut(at) {
                    *slot = Some(authorities);
                }
            }
            Read::Issuer(at, mut keys) => {
                if let Some((_, slot)) = self.issuers.get_mut(at) {
                    if let Some(former) = slot {
                        keys.go_on_from(former);
                    }
                    *slot = Some(Arc::new(keys));
                }
            }
        }
        if let Some(source) = self.sources.get_mut(index) {
            source.taken(digest, &self.metrics);
        }
        Ok(Some(what))
    }

    fn recovered(&mut self, index: usize) {
        if let Some(source) = self.sources.get_mut(index) {
            source.recovered(&self.metrics);
        }
    }

    fn parse(&self, what: What, files: &[source::Bytes], now: SystemTime) -> Result<Read, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        match (what, files) {
            (What::Server, [chain, key]) => {
                let identity =
                    material::server_identity(chain, key, now, self.production, &self.provider)
                        .map_err(|error| text(&error))?;
                if let (Some(naming), Some((leaf, intermediates))) =
                    (&self.node, identity.key.cert.split_first())
                {
                    naming.check(leaf)?;
                    self.vouched(leaf, intermediates, now)?;
                }
                Ok(Read::Server(identity))
            }
            (What::Bundle(at), [bundle]) => material::authorities(bundle, now, self.production)
                .map(|authorities| Read::Bundle(at, authorities))
                .map_err(|error| text(&error)),
            (What::Issuer(at), [set]) => KeySet::read(set, self.production)
                .map(|keys| Read::Issuer(at, keys))
                .map_err(|error| text(&error)),
            _ => Err("has another number of files than it should".into()),
        }
    }

    /// Whether the node's own bundle vouches for its own certificate: others have
    /// the same one. Where the bundle changes later, what is in use stays so: the
    /// bundle says whom the node believes, which must not wait for anything.
    fn vouched(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<(), String> {
        // A bundle that could not be read says so under its own name.
        let Some(bundle) = self.authorities(0) else { return Ok(()) };
        let (roots, provider) = (bundle.roots.clone(), self.provider.clone());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
            .build()
            .map_err(|error| error.to_string())?;
        verifier
            .verify_client_cert(leaf, intermediates, trust::unix(now))
            .map(drop)
            .map_err(|error| format!("no authority of mesh.ca_file vouches for it: {error}"))
    }

    fn measure(&self, now: SystemTime) {
        for source in &self.sources {
            let end = match source.what {
                What::Server => self.server.as_ref().map(|identity| identity.not_after),
                What::Bundle(at) => {
                    let bundle = self.bundles.get(at).and_then(|(_, held)| held.as_ref());
                    bundle.map(|authorities| authorities.not_after)
                }
                What::Issuer(_) => None,
            };
            if let Some(end) = end {
                self.metrics.lifetime(&source.key, end, now);
            }
        }
    }
}
