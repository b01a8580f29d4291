//! From the configuration to [`Security`]: names are read, rules are put
//! together, files are loaded, and whatever is wrong is said at once.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use super::accounts::Accounts;
use super::audit::{self, AuditLog};
use super::authenticate::{Authenticator, Denials};
use super::failures::Failures;
use super::policy::Policy;
use super::proof::Delegation;
use super::reload::{Metrics, Reloader, Source, What};
use super::spiffe::Patterns;
use super::token::{IssuerRules, Tokens};
use super::trust::BundleRules;
use super::{Development, Security, SecurityProblem, development, serving, tls};
use crate::clock::Clock;
use crate::config::Config;
use crate::config::schema::{Auth, CaBundle, ClientAuth, Issuer, Profile};
use crate::principal::{Kind, Principal, Role, Roles};

type Bindings = Arc<HashMap<Principal, Roles>>;

/// What [`load`] would refuse, found without making or writing anything.
pub(super) fn check(config: &Config, data_dir: &Path, now: SystemTime) -> Vec<SecurityProblem> {
    let mut problems = Problems::default();
    let production = config.profile == Profile::Production;
    policy(!production, &mut problems);
    let bindings = bindings(&config.auth, &mut problems);
    accounts(&config.auth, &mut problems);
    delegation(config, bindings.clone(), &mut problems);
    let metrics = Metrics::register(&mut Registry::default());
    let provider = tls::provider();
    let mut reloader = Reloader::new(bindings, production, provider.clone(), metrics);
    // What is not there yet the first start makes.
    let made = !production && development::dir(data_dir).exists();
    if made {
        problems.take("data_dir", development::look(data_dir));
    }
    add_sources(config, data_dir, made, &mut reloader, &mut problems);
    problems.0.extend(reloader.load(now));
    problems.take("telemetry.audit_file", audit::look(&config.telemetry.audit_file, data_dir));
    if problems.0.is_empty() && reloader.server().is_some() {
        problems.take("tls", serving(&reloader, config.tls.client_auth, &provider));
    }
    problems.0
}

/// Every file that is read, each under its key. `made` says whether there is
/// development's own material.
fn add_sources(
    config: &Config,
    data_dir: &Path,
    made: bool,
    reloader: &mut Reloader,
    problems: &mut Problems,
) {
    let production = config.profile == Profile::Production;
    let named = config.tls.cert_file.is_some() || config.tls.key_file.is_some();
    if production || made || named {
        add_server(config, data_dir, reloader, problems);
    }
    add_bundles(&config.auth, reloader, problems);
    add_issuers(config, reloader, problems);
    if made {
        add_development(config, data_dir, reloader, problems);
    } else if production {
        demand_sources(config, problems);
    }
}

pub(super) fn load(
    config: &Config,
    data_dir: &Path,
    clock: Arc<dyn Clock>,
    registry: &mut Registry,
) -> Result<Security, Vec<SecurityProblem>> {
    let mut problems = Problems::default();
    let production = config.profile == Profile::Production;
    let policy = policy(!production, &mut problems);
    let bindings = bindings(&config.auth, &mut problems);
    let accounts = accounts(&config.auth, &mut problems);
    let delegation = delegation(config, bindings.clone(), &mut problems);
    let provider = tls::provider();
    let metrics = Metrics::register(registry);
    let mut reloader =
        Reloader::new(bindings.clone(), production, provider.clone(), metrics.clone());
    let development = own_material(config, data_dir, clock.as_ref(), &mut problems);
    add_sources(config, data_dir, development.is_some(), &mut reloader, &mut problems);
    problems.0.extend(reloader.load(clock.now()));
    let audit = AuditLog::open(&config.telemetry.audit_file, data_dir, registry);
    let audit = problems.take("telemetry.audit_file", audit);
    let (Some(policy), Some(audit), true) = (policy, audit, problems.0.is_empty()) else {
        return Err(problems.0);
    };
    let serving = serving(&reloader, config.tls.client_auth, &provider)
        .map_err(|error| vec![SecurityProblem::new("tls", error)])?;
    let denials = Denials::default();
    registry.register(
        "calls_denied",
        "Calls refused for who made them, by reason",
        denials.clone(),
    );
    let authenticator = Authenticator {
        policy: Arc::new(policy),
        tokens: Tokens::new(reloader.issuers(), bindings, clock.clone()),
        delegation,
        failures: Failures::new(config.traffic.failures_per_minute),
        clock: clock.clone(),
        audit: Arc::new(audit),
        denials,
    };
    Ok(Security {
        serving: ArcSwap::from_pointee(serving),
        trust: watch::channel(0).0,
        reloader: Mutex::new(reloader),
        authenticator: Arc::new(authenticator),
        accounts,
        client_auth: config.tls.client_auth,
        provider,
        clock,
        reload_interval: config.tls.reload_interval,
        metrics,
        development,
    })
}

/// Every problem so far.
#[derive(Default)]
struct Problems(Vec<SecurityProblem>);

impl Problems {
    fn add(&mut self, key: impl Into<String>, message: impl ToString) {
        self.0.push(SecurityProblem::new(key, message));
    }

    fn take<T, E: ToString>(&mut self, key: &str, read: Result<T, E>) -> Option<T> {
        read.map_err(|error| self.add(key, error.to_string())).ok()
    }
}

fn policy(development: bool, problems: &mut Problems) -> Option<Policy> {
    match Policy::embedded(development) {
        Ok(policy) => Some(policy),
        Err(errors) => {
            for error in errors {
                problems.add("proto", error);
            }
            None
        }
    }
}

fn bindings(auth: &Auth, problems: &mut Problems) -> Bindings {
    let mut bindings = HashMap::new();
    for (text, roles) in &auth.bindings {
        let key = format!("auth.bindings.\"{text}\"");
        grantable(&key, roles, problems);
        if let Some(principal) = problems.take(&key, Principal::from_str(text)) {
            bindings.insert(principal, roles.iter().copied().collect());
        }
    }
    Arc::new(bindings)
}

fn accounts(auth: &Auth, problems: &mut Problems) -> Accounts {
    let mut shared: HashMap<Principal, Principal> = HashMap::new();
    for (account, sharers) in &auth.accounts {
        let key = format!("auth.accounts.\"{account}\"");
        let account = problems.take(&key, Principal::from_str(account));
        for sharer in sharers {
            let sharer = problems.take(&key, Principal::from_str(sharer));
            let (Some(account), Some(sharer)) = (&account, sharer) else { continue };
            if let Some(other) = shared.insert(sharer.clone(), account.clone())
                && other != *account
            {
                problems.add(&key, format!("{sharer} shares another account already"));
            }
        }
    }
    // An account that itself shares another would depend on the order of asking.
    for account in shared.values() {
        if shared.get(account).is_some_and(|other| other != account) {
            problems.add("auth.accounts", format!("{account} is an account and shares another"));
        }
    }
    Accounts::new(shared)
}

fn delegation(config: &Config, bindings: Bindings, problems: &mut Problems) -> Delegation {
    let auth = &config.auth;
    let mut may_delegate = HashSet::new();
    for text in &auth.may_delegate {
        match problems.take("auth.may_delegate", Principal::from_str(text)) {
            Some(service) if service.kind() == Kind::Service => {
                may_delegate.insert(service);
            }
            Some(other) => problems.add("auth.may_delegate", format!("{other} is no service")),
            None => {}
        }
    }
    grantable("auth.delegated_roles", &auth.delegated_roles, problems);
    let configured = auth.ca.iter().map(|ca| &ca.trust_domain);
    let configured = configured.chain(auth.issuer.iter().map(|issuer| &issuer.trust_domain));
    let own = (config.profile == Profile::Development).then_some(&auth.trust_domain);
    Delegation {
        may_delegate,
        delegated_roles: auth.delegated_roles.iter().copied().collect(),
        bindings,
        domains: configured.chain(own).cloned().collect(),
    }
}

/// The role of nodes comes from the mesh alone.
fn grantable(key: &str, roles: &[Role], problems: &mut Problems) {
    if roles.contains(&Role::Node) {
        problems.add(key, "cannot grant the role node");
    }
}

fn assertable(key: &str, kinds: &[Kind], problems: &mut Problems) {
    if kinds.is_empty() || kinds.contains(&Kind::Node) {
        problems.add(key, "must be user, service or both: nodes are proven by the mesh alone");
    }
}

fn own_material(
    config: &Config,
    data_dir: &Path,
    clock: &dyn Clock,
    problems: &mut Problems,
) -> Option<Development> {
    if config.profile == Profile::Production {
        return None;
    }
    let node_id = config.node.id.clone();
    let made = development::ensure(data_dir, node_id.as_deref(), clock.now());
    problems.take("data_dir", made)?;
    let serves = config.tls.cert_file.is_none();
    Some(Development { data_dir: data_dir.to_path_buf(), node_id, serves })
}

fn add_server(config: &Config, data_dir: &Path, reloader: &mut Reloader, problems: &mut Problems) {
    let files = match (&config.tls.cert_file, &config.tls.key_file) {
        (Some(cert), Some(key)) => vec![cert.clone(), key.clone()],
        (None, None) if config.profile == Profile::Development => {
            let dir = development::dir(data_dir);
            vec![dir.join("server.pem"), dir.join("server-key.pem")]
        }
        (None, None) => return problems.add("tls.cert_file", "is needed in production"),
        (Some(_), None) => return problems.add("tls.key_file", "is needed beside tls.cert_file"),
        (None, Some(_)) => return problems.add("tls.cert_file", "is needed beside tls.key_file"),
    };
    reloader.add_server(Source::new("tls.cert_file".into(), What::Server, files));
}

fn add_bundles(auth: &Auth, reloader: &mut Reloader, problems: &mut Problems) {
    for (index, bundle) in auth.ca.iter().enumerate() {
        let key = format!("auth.ca[{index}]");
        let CaBundle { file, trust_domain, kinds, roles, default_roles, paths } = bundle;
        assertable(&format!("{key}.kinds"), kinds, problems);
        grantable(&format!("{key}.roles"), roles, problems);
        let beyond = default_roles.iter().find(|role| !roles.contains(role));
        if let Some(role) = beyond {
            problems.add(format!("{key}.default_roles"), format!("{role} is not among its roles"));
        }
        let patterns = problems.take(&format!("{key}.paths"), Patterns::new(paths));
        let Some(patterns) = patterns else { continue };
        let rules = BundleRules {
            domain: trust_domain.clone(),
            kinds: kinds.clone(),
            roles: roles.iter().copied().collect(),
            default_roles: default_roles.iter().copied().collect(),
            patterns,
        };
        reloader.add_bundle(format!("{key}.file"), file, rules);
    }
}

fn add_issuers(config: &Config, reloader: &mut Reloader, problems: &mut Problems) {
    let auth = &config.auth;
    let mut names = HashSet::new();
    for (index, issuer) in auth.issuer.iter().enumerate() {
        let key = format!("auth.issuer[{index}]");
        let Issuer { issuer, jwks_file, trust_domain, kinds, roles, audience } = issuer;
        assertable(&format!("{key}.kinds"), kinds, problems);
        grantable(&format!("{key}.roles"), roles, problems);
        if issuer == development::ISSUER {
            let why = match config.profile {
                Profile::Production => "is the development issuer: production does not believe it",
                Profile::Development => "is the node's own: give this issuer another name",
            };
            problems.add(format!("{key}.issuer"), why);
        } else if !names.insert(issuer) {
            problems.add(format!("{key}.issuer"), "is taken: each issuer is named once");
        }
        let rules = IssuerRules {
            issuer: issuer.clone(),
            audience: audience.as_ref().unwrap_or(&auth.audience).clone(),
            domain: trust_domain.clone(),
            kinds: kinds.clone(),
            roles: roles.iter().copied().collect(),
        };
        reloader.add_issuer(format!("{key}.jwks_file"), jwks_file, rules);
    }
}

/// Believes what the node made for itself, for every role but that of nodes.
fn add_development(
    config: &Config,
    data_dir: &Path,
    reloader: &mut Reloader,
    problems: &mut Problems,
) {
    let auth = &config.auth;
    let dir = development::dir(data_dir);
    let roles: Roles = Role::ALL.into_iter().filter(|role| *role != Role::Node).collect();
    let kinds = vec![Kind::User, Kind::Service];
    let issuer = IssuerRules {
        issuer: development::ISSUER.into(),
        audience: auth.audience.clone(),
        domain: auth.trust_domain.clone(),
        kinds: kinds.clone(),
        roles,
    };
    reloader.add_issuer("dev/jwks.json".into(), &dir.join("jwks.json"), issuer);
    let patterns = problems.take("auth.ca", Patterns::new(&Default::default()));
    let Some(patterns) = patterns else { return };
    let bundle = BundleRules {
        domain: auth.trust_domain.clone(),
        kinds,
        roles,
        default_roles: development::DEFAULT_ROLES.into_iter().collect(),
        patterns,
    };
    reloader.add_bundle("dev/ca.pem".into(), &dir.join("ca.pem"), bundle);
}

/// In production somebody must be able to call.
fn demand_sources(config: &Config, problems: &mut Problems) {
    if config.auth.ca.is_empty() && config.auth.issuer.is_empty() {
        problems.add("auth", "nobody could call: production needs auth.ca or auth.issuer");
    }
    if config.auth.ca.is_empty() && config.tls.client_auth == ClientAuth::Required {
        problems.add("tls.client_auth", "required needs auth.ca, which says whose are believed");
    }
}
