//! Gathers the facts. Each part fails for itself: what cannot be had is absent.

use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::process::{getegid, getgroups};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::ExposeSecret;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::database;
use super::facts::{CertificateFacts, DirFacts, Facts, SecretFacts};
use crate::cli::configuration;
use crate::cli::credentials::SignAs;
use crate::cli::env::Env;
use crate::cli::target::{NoNode, Target, data_dir, find_node};
use crate::client::dial;
use crate::config::Config;
use crate::config::schema::Profile;
use crate::store::location::{self, Location};
use crate::store::postgres::{self, PgSettings};
use crate::store::{datadir, sqlite};

/// The mark inside certificates that development made.
const DEVELOPMENT_MARK: &str = "2.25.1238249607";

/// Everything that can be known from here.
pub(super) async fn all(env: &Env) -> Facts {
    let global = &env.global;
    let loaded = configuration::load(global, &[]);
    let mut facts = Facts {
        now: SystemTime::now(),
        production: global.profile.as_deref() == Some("production"),
        config_problems: Vec::new(),
        data_dir: None,
        node: None,
        ports_in_use: Vec::new(),
        dial: None,
        certificate: None,
        mesh_certificate: None,
        certificate_problem: None,
        data_dir_problem: None,
        unfit: Vec::new(),
        partitions: None,
        sandbox_books: false,
        secrets: Vec::new(),
        token_problem: None,
        clock_offset: None,
        serving: None,
        file_limit: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
        free_bytes: None,
        audit_problem: None,
        database: None,
        server: None,
    };
    let config = match loaded {
        Ok(loaded) => Some(loaded.config),
        Err(problems) => {
            facts.config_problems = problems.iter().map(ToString::to_string).collect();
            None
        }
    };
    let target = Target::resolve(global);
    let remote = global.server.is_some() || global.context.is_some();
    if !remote {
        let dir = data_dir(global);
        local(&mut facts, &dir, config.as_ref(), env).await;
    }
    if let Ok(target) = target {
        node(&mut facts, &target).await;
    }
    facts
}

/// What lies on this machine.
async fn local(facts: &mut Facts, dir: &Path, config: Option<&Config>, env: &Env) {
    let found = find_node(dir).map(|_| ());
    if matches!(found, Err(NoNode::Absent | NoNode::Stale(_)))
        && let Some(config) = config
    {
        let mesh = config.is_clustered().then_some(config.listen.mesh);
        let own = [config.listen.public, config.listen.admin].into_iter().chain(mesh);
        facts.ports_in_use = ports_in_use(own);
    }
    facts.node = Some(found);
    facts.data_dir = Some(directory(dir));
    facts.data_dir_problem = datadir::look(dir).err().map(|error| error.to_string());
    facts.free_bytes = free_bytes(dir);
    facts.sandbox_books = dir.join("sandbox.db").is_file();
    let development = dir.join("dev");
    let (mut secrets, mut certificate) = (Vec::new(), None);
    if development.is_dir() {
        secrets
            .extend(["ca-key.pem", "server-key.pem", "token-key.pem"].map(|f| development.join(f)));
        certificate = Some(development.join("server.pem"));
        let signer = SignAs::new(&env.global, "doctor", dir.to_owned());
        let signed = signer.and_then(|signer| signer.sign(std::time::Duration::from_secs(1)));
        facts.token_problem = signed.err().map(|failure| failure.message().to_owned());
    }
    if let Some(config) = config {
        facts.production = config.profile == Profile::Production;
        if let Some(file) = &config.tls.cert_file {
            certificate = Some(file.clone());
        }
        if let Some(key) = &config.tls.key_file {
            secrets.retain(|file| !file.ends_with("server-key.pem"));
            secrets.push(key.clone());
        }
        facts.partitions = Some(config.chat.partitions.into());
        let checked = Config { data_dir: dir.to_owned(), ..config.clone() };
        let unfit = configuration::unfit(&checked);
        facts.unfit = unfit.into_iter().map(|problem| problem.to_string()).collect();
        facts.audit_problem = audit_problem(dir, &config.telemetry.audit_file);
        if config.is_clustered() {
            let made = [development.join("node.pem"), development.join("node-key.pem")];
            let named = config.mesh.cert_file.clone().zip(config.mesh.key_file.clone());
            let [cert, key] = named.map_or(made, |(cert, key)| [cert, key]);
            // What is missing or torn, the start's own check tells.
            facts.mesh_certificate = certificate_of(&cert).ok();
            secrets.extend(key.exists().then_some(key));
        }
        look_at_store(facts, dir, config).await;
    }
    if let Some(file) = certificate {
        match certificate_of(&file) {
            Ok(found) => facts.certificate = Some(found),
            Err(why) => facts.certificate_problem = Some(format!("{}: {why}", file.display())),
        }
    }
    facts.secrets = secrets.into_iter().map(secret).collect();
}

/// The database that the configuration names.
async fn look_at_store(facts: &mut Facts, dir: &Path, config: &Config) {
    match location::of(config.store.url.expose_secret(), dir) {
        Ok(Location::Sqlite(path)) => {
            if config.cluster.shared_file {
                facts.sandbox_books = path.with_file_name("sandbox.db").is_file();
            }
            facts.database = database::look(&path, sqlite::newest(), facts.now).await;
        }
        Ok(Location::Postgres) => {
            let settings = PgSettings::of(&config.store, "doctor", "doctor");
            match database::ask(&settings, postgres::newest(), facts.now).await {
                Ok(database) => facts.database = Some(database),
                Err(problem) => facts.server = Some(problem),
            }
        }
        // The configuration's own check tells.
        Err(_) => {}
    }
}

/// What the node itself shows.
async fn node(facts: &mut Facts, target: &Target) {
    let Ok(tls) = target.tls() else { return };
    let Some(server) = target.servers.first() else { return };
    let name = target.server_name.as_deref();
    match dial::dial(server, name, tls).await {
        Err(error) => facts.dial = Some(Err(error)),
        Ok(stream) => {
            facts.dial = Some(Ok(()));
            let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            if let Some(shown) = shown.and_then(certificate_facts) {
                let development = facts.certificate.as_ref().is_some_and(|c| c.development);
                facts.certificate = Some(CertificateFacts {
                    development: shown.development || development,
                    ..shown
                });
            }
        }
    }
    // Health is public: it needs no proof.
    let Ok(client) = target.connect().await else { return };
    let request = client.unary(HealthCheckRequest { service: String::new() });
    if let Ok(answer) = client.health().check(request).await {
        facts.clock_offset = answer
            .metadata()
            .get("date")
            .and_then(|date| date.to_str().ok())
            .and_then(|date| offset(date, SystemTime::now()));
        facts.serving = Some(answer.into_inner().status() == ServingStatus::Serving);
    }
}

/// The clock of an HTTP date less ours, in seconds.
fn offset(date: &str, now: SystemTime) -> Option<i64> {
    let theirs = jiff::fmt::rfc2822::parse(date).ok()?.timestamp().as_second();
    let ours = jiff::Timestamp::try_from(now).ok()?.as_second();
    Some(theirs - ours)
}

fn directory(path: &Path) -> DirFacts {
    let meta = std::fs::metadata(path).ok();
    let writable = rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
    DirFacts {
        path: path.to_owned(),
        exists: meta.as_ref().is_some_and(std::fs::Metadata::is_dir),
        mode: meta.map_or(0, |meta| meta.permissions().mode()),
        writable,
    }
}

/// Of the directory, or of the one in which it would be made.
fn free_bytes(path: &Path) -> Option<u64> {
    let path = std::path::absolute(path).ok()?;
    let there = path.ancestors().find(|path| path.exists())?;
    let stat = rustix::fs::statvfs(there).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The addresses that cannot be bound because somebody else has them.
fn ports_in_use(addresses: impl Iterator<Item = SocketAddr>) -> Vec<String> {
    addresses
        .filter(|address| address.port() != 0)
        .filter(|address| {
            std::net::TcpListener::bind(address)
                .is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
        })
        .map(|address| address.to_string())
        .collect()
}

fn secret(path: PathBuf) -> SecretFacts {
    match std::fs::File::open(&path).and_then(|file| file.metadata()) {
        Ok(meta) => {
            let (mode, in_our_group) = (meta.permissions().mode(), is_our_group(meta.gid()));
            SecretFacts { path, problem: None, mode, in_our_group }
        }
        Err(error) => {
            let problem = Some(error.to_string());
            SecretFacts { path, problem, mode: 0, in_our_group: false }
        }
    }
}

/// Whether this process is of a group, by its main one or by the others.
fn is_our_group(group: u32) -> bool {
    getegid().as_raw() == group
        || getgroups().is_ok_and(|all| all.iter().any(|one| one.as_raw() == group))
}

fn audit_problem(dir: &Path, file: &str) -> Option<String> {
    if file == "-" || !dir.exists() {
        return None;
    }
    let path = dir.join(file);
    let looked_at = if path.exists() { path.as_path() } else { path.parent()? };
    rustix::fs::access(looked_at, rustix::fs::Access::WRITE_OK)
        .err()
        .map(|error| format!("{}: {error}", looked_at.display()))
}

fn certificate_of(file: &Path) -> Result<CertificateFacts, String> {
    let pem = std::fs::read(file).map_err(|error| error.to_string())?;
    let der = CertificateDer::from_pem_slice(&pem).map_err(|error| error.to_string())?;
    certificate_facts(&der).ok_or_else(|| "it is no certificate".to_owned())
}

fn certificate_facts(der: &CertificateDer<'_>) -> Option<CertificateFacts> {
    let (_, certificate) = X509Certificate::from_der(der.as_ref()).ok()?;
    let time = |seconds: i64| {
        SystemTime::UNIX_EPOCH
            .checked_add(std::time::Duration::from_secs(u64::try_from(seconds).ok()?))
    };
    Some(CertificateFacts {
        not_before: time(certificate.validity().not_before.timestamp())?,
        not_after: time(certificate.validity().not_after.timestamp())?,
        development: certificate
            .extensions()
            .iter()
            .any(|extension| extension.oid.to_id_string() == DEVELOPMENT_MARK),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::args::Global;
    use crate::cli::doctor::checks;
    use crate::cli::output::{Format, Output};

    #[test]
    fn an_http_date_gives_the_offset() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(offset("Tue, 14 Nov 2023 22:13:30 GMT", now), Some(10));
        assert_eq!(offset("soon", now), None);
    }

    /// The findings of a real data directory.
    async fn ids(dir: &Path) -> Vec<&'static str> {
        let mut global = Global { data_dir: Some(dir.to_owned()), ..Global::default() };
        // Ports of other nodes on this machine are not what is looked at.
        for key in ["listen.public", "listen.admin"] {
            global.set.push((key.to_owned(), "127.0.0.1:0".to_owned()));
        }
        let env = Env { global, output: Output::new(Format::Text) };
        checks::all(&all(&env).await).into_iter().map(|finding| finding.id).collect()
    }

    fn private(dir: &Path, mode: u32) {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(dir, permissions).expect("changed");
    }

    #[tokio::test]
    async fn an_absent_directory_is_found() {
        let dir = tempfile::tempdir().expect("a directory");
        let found = ids(&dir.path().join("none")).await;
        assert!(found.contains(&"data-dir-missing"), "{found:?}");
    }

    #[tokio::test]
    async fn an_open_directory_with_a_dead_node_and_a_torn_database_is_found() {
        let dir = tempfile::tempdir().expect("a directory");
        private(dir.path(), 0o755);
        let node = serde_json::json!({
            "pid": 4_194_305, "node_id": "n", "incarnation": 1, "public": "127.0.0.1:1",
            "mesh": null, "admin": "127.0.0.1:2", "ca_file": null,
        });
        std::fs::write(dir.path().join("node.json"), node.to_string()).expect("written");
        std::fs::write(dir.path().join("simpul.db"), vec![7_u8; 8192]).expect("written");
        let found = ids(dir.path()).await;
        for id in ["data-dir-open", "node-gone", "database-unreadable"] {
            assert!(found.contains(&id), "{id} in {found:?}");
        }
    }

    #[tokio::test]
    async fn open_and_missing_keys_are_found() {
        let dir = tempfile::tempdir().expect("a directory");
        private(dir.path(), 0o700);
        let dev = dir.path().join("dev");
        std::fs::create_dir(&dev).expect("made");
        std::fs::write(dev.join("ca-key.pem"), "x").expect("written");
        private(&dev.join("ca-key.pem"), 0o644);
        let found = ids(dir.path()).await;
        for id in ["key-open", "key-unreadable", "token-key-missing"] {
            assert!(found.contains(&id), "{id} in {found:?}");
        }
        assert!(!found.contains(&"data-dir-open"));
    }

    #[tokio::test]
    async fn a_port_that_somebody_has_is_found() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = taken.local_addr().expect("bound");
        let free: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        assert_eq!(ports_in_use([address, free].into_iter()), [address.to_string()]);
    }
}
