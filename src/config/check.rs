//! What the schema's types cannot say: ranges, files that must exist, what
//! production refuses. Everything that is wrong is told at once.

mod access;
mod limits;
mod places;

use std::path::Path;

use secrecy::ExposeSecret;

use super::layer::unreadable;
use super::schema::{Config, Profile, Provider};
use crate::id;

/// Broken rules by key.
#[derive(Debug, Default)]
struct Broken(Vec<(String, String)>);

impl Broken {
    fn unless(&mut self, holds: bool, key: &str, rule: impl Into<String>) {
        if !holds {
            self.0.push((key.into(), rule.into()));
        }
    }

    /// The file must be there and readable.
    fn file(&mut self, key: &str, path: &Path) {
        let readable = std::fs::File::open(path).and_then(|file| file.metadata());
        match readable {
            Ok(metadata) => self.unless(metadata.is_file(), key, "is not a file"),
            Err(error) => self.unless(false, key, unreadable(&error)),
        }
    }
}

/// Every broken rule, as (key, rule); the rule never has the value.
pub fn check(config: &Config) -> Vec<(String, String)> {
    let mut broken = Broken::default();
    node(config, &mut broken);
    tls(config, &mut broken);
    access::check(&config.auth, &mut broken);
    limits::check(config, &mut broken);
    places::check(config, &mut broken);
    store(config, &mut broken);
    if config.profile == Profile::Production {
        production(config, &mut broken);
    }
    broken.0
}

fn node(config: &Config, broken: &mut Broken) {
    if let Some(name) = &config.node.id {
        broken.unless(id::is_short_name(name), "node.id", id::short_name_rule(name));
    }
    broken.unless(!config.data_dir.as_os_str().is_empty(), "data_dir", "must not be empty");
    let (public, admin) = (config.listen.public, config.listen.admin);
    let apart = public.port() == 0 || public != admin;
    broken.unless(apart, "listen.admin", "must be another address than listen.public");
    let filter = tracing_subscriber::EnvFilter::try_new(&config.telemetry.log);
    broken.unless(
        filter.is_ok(),
        "telemetry.log",
        "must be filter directives, as in info,simpul::chat=debug",
    );
    broken.unless(
        !config.telemetry.audit_file.is_empty(),
        "telemetry.audit_file",
        "must not be empty",
    );
}

fn tls(config: &Config, broken: &mut Broken) {
    let tls = &config.tls;
    for (key, file) in [("tls.cert_file", &tls.cert_file), ("tls.key_file", &tls.key_file)] {
        if let Some(path) = file {
            broken.file(key, path);
        }
    }
    match (&tls.cert_file, &tls.key_file) {
        (Some(_), None) => broken.unless(false, "tls.key_file", "must be given with tls.cert_file"),
        (None, Some(_)) => broken.unless(false, "tls.cert_file", "must be given with tls.key_file"),
        _ => {}
    }
}

fn store(config: &Config, broken: &mut Broken) {
    let postgres = config.store.is_postgres();
    let known = postgres || config.store.url.expose_secret().starts_with("sqlite:");
    broken.unless(known, "store.url", "must begin with sqlite:, postgres: or postgresql:");
    broken.unless(
        !postgres || places::are_of_postgres(config.store.url.expose_secret()),
        "store.url",
        "must have PostgreSQL URLs alone when one of them is: a node uses one store",
    );
    broken.unless(
        !(postgres && config.cluster.shared_file),
        "cluster.shared_file",
        "is for an SQLite file; nodes on PostgreSQL are a cluster without it",
    );
    if config.is_clustered() {
        cluster(config, broken);
    }
}

/// What only a cluster's node needs.
fn cluster(config: &Config, broken: &mut Broken) {
    let listen = &config.listen;
    let apart =
        listen.mesh.port() == 0 || (listen.mesh != listen.public && listen.mesh != listen.admin);
    broken.unless(
        apart,
        "listen.mesh",
        "must be another address than listen.public and listen.admin",
    );
    let reached = !listen.mesh.ip().is_unspecified() || config.node.advertise_mesh.is_some();
    broken.unless(
        reached,
        "node.advertise_mesh",
        "must say where other nodes reach this one, since listen.mesh is every address",
    );
}

/// What development makes easy and production refuses.
fn production(config: &Config, broken: &mut Broken) {
    if config.tls.cert_file.is_none() && config.tls.key_file.is_none() {
        broken.unless(false, "tls.cert_file", "must be given in production");
        broken.unless(false, "tls.key_file", "must be given in production");
    }
    let identified = !config.auth.ca.is_empty() || !config.auth.issuer.is_empty();
    broken.unless(identified, "auth.ca", "production needs an entry here or in auth.issuer");
    let allowed = config.payment.provider != Provider::Sandbox || config.payment.sandbox;
    broken.unless(
        allowed,
        "payment.provider",
        "the sandbox moves no money; production takes it only with payment.sandbox = true",
    );
}
