//! Which node a command talks to, and as whom: flags, then the data directory
//! that was named, then a context, then what the environment names, then the
//! local node.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;
use tonic::Code;
use tonic::metadata::{Ascii, MetadataValue};
use tonic_health::pb::HealthCheckRequest;

use super::args::Global;
use super::contexts::{self, Context};
use super::credentials::Credential;
use super::exit::Exit;
use super::failure::Failure;
use crate::client::Client;
use crate::client::dial::{self, Address, DialError};
use crate::client::servers::{self, Servers};

/// What a running node writes into its data directory once it is ready.
#[derive(Debug, Clone, Deserialize)]
pub struct NodeFile {
    /// Its process.
    pub pid: u32,
    /// Its stable name.
    pub node_id: String,
    /// This run of it.
    pub incarnation: u64,
    /// The address of the public listener, as bound.
    pub public: String,
    /// The address of the admin listener, as bound.
    pub admin: String,
    /// Who vouches for its certificate, when the node made it itself.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

/// Why a data directory has no usable `node.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoNode {
    /// There is none.
    Absent,
    /// It is there, but its process is gone.
    Stale(u32),
    /// It cannot be read or is not what a node writes.
    Unreadable(String),
}

/// Reads `node.json` and looks whether its process lives.
pub fn find_node(data_dir: &Path) -> Result<NodeFile, NoNode> {
    let text = match std::fs::read_to_string(data_dir.join("node.json")) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(NoNode::Absent),
        Err(error) => return Err(NoNode::Unreadable(error.to_string())),
    };
    let node: NodeFile =
        serde_json::from_str(&text).map_err(|error| NoNode::Unreadable(error.to_string()))?;
    if is_alive(node.pid) { Ok(node) } else { Err(NoNode::Stale(node.pid)) }
}

/// Whether a process with the number exists; one of another user counts.
pub fn is_alive(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else {
        return false;
    };
    !matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH))
}

/// Where to connect and what to show there.
#[derive(Debug)]
pub struct Target {
    /// The public listeners of the node, or of several nodes of one cluster.
    pub servers: Vec<Address>,
    /// The name that its certificate must have, when it is not the host.
    pub server_name: Option<String>,
    /// Who vouches for it, PEM.
    pub ca: PathBuf,
    /// The client's certificate chain and key, PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The token.
    pub credential: Credential,
    /// The user for whom the caller acts.
    pub on_behalf_of: Option<MetadataValue<Ascii>>,
    /// How long a unary call may take.
    pub timeout: Duration,
}

impl Target {
    /// Refuses what is meant for one node where any of several may answer, and
    /// names what says which.
    pub fn only_one(&self, which: &str) -> Result<(), Failure> {
        if self.servers.len() < 2 {
            return Ok(());
        }
        let message = format!("{which} is needed: any of {} nodes may answer", self.servers.len());
        Err(Failure::usage(message))
    }

    /// Finds the node and the caller from the flags.
    pub fn resolve(global: &Global) -> Result<Self, Failure> {
        let context = chosen_context(global)?;
        let data_dir = match &context.data_dir {
            Some(dir) if global.data_dir.is_none() => dir.clone(),
            _ => data_dir(global),
        };
        let nowhere = global.data_dir.is_none() && global.context.is_none();
        let variable = || env_server().filter(|_| nowhere);
        let server = global.server.clone().or(context.server).or_else(variable);
        let ca = global.ca.clone().or(context.ca);
        let server_name = global.server_name.clone().or(context.server_name);
        let (servers, ca) = match server {
            Some(server) => (servers::parse(&server)?, ca.map_or_else(system_roots, Ok)?),
            None => {
                let (address, ca) = local(&data_dir, ca)?;
                (vec![address], ca)
            }
        };
        let cert = global.cert.clone().or(context.cert);
        let key = global.cert_key.clone().or(context.key);
        let identity = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => {
                return Err(Failure::usage(
                    "a client certificate needs both --cert and --cert-key",
                ));
            }
        };
        // What a flag says of the caller stands above everything in a context.
        let said = global.token_file.is_some() || global.as_principal.is_some();
        let (token_file, as_principal) = if said {
            (global.token_file.clone(), global.as_principal.clone())
        } else {
            (context.token_file, context.as_principal)
        };
        let credential = Credential::choose(global, token_file, as_principal, data_dir)?;
        let on_behalf_of = match &global.on_behalf_of {
            None => None,
            Some(who) => {
                Some(who.parse().map_err(|_| Failure::usage("--on-behalf-of is not a principal"))?)
            }
        };
        let timeout = global.timeout;
        Ok(Self { servers, server_name, ca, identity, credential, on_behalf_of, timeout })
    }

    /// The TLS side of it, read from its files.
    pub fn tls(&self) -> Result<Arc<rustls::ClientConfig>, Failure> {
        let ca = read(&self.ca)?;
        let identity = match &self.identity {
            None => None,
            Some((cert, key)) => Some((read(cert)?, read(key)?)),
        };
        let identity = identity.as_ref().map(|(cert, key)| (cert.as_slice(), key.as_slice()));
        Ok(Arc::new(dial::client_config(&ca, identity)?))
    }

    /// Connects.
    pub async fn connect(&self) -> Result<Client, Failure> {
        self.connect_with(self.credential.token()?.as_ref()).await
    }

    /// Connects with a token that the caller has in hand.
    pub async fn connect_with(&self, token: Option<&SecretString>) -> Result<Client, Failure> {
        self.connect_to(&self.servers, token).await
    }

    /// Connects to one of these nodes.
    pub async fn connect_to(
        &self,
        servers: &[Address],
        token: Option<&SecretString>,
    ) -> Result<Client, Failure> {
        let bearer = token.map(Credential::header).transpose()?;
        let tls = self.tls()?;
        let name = self.server_name.as_deref();
        let nodes = Servers::connect(servers.to_vec(), name, tls.clone()).await?;
        let client = Client::new(nodes, bearer, self.on_behalf_of.clone(), self.timeout);
        if self.identity.is_some() && !is_admitted(&client).await {
            // A node that has just gone refuses nobody: then this says so.
            for server in servers {
                dial::dial(server, name, tls.clone()).await?;
            }
            return Err(not_admitted());
        }
        Ok(client)
    }
}

/// Whether the node goes on with a client that showed a certificate. It judges
/// the certificate when the handshake is done as far as the client knows; any
/// call after that would only see a connection that breaks, and a payment could
/// not know whether it had begun. Health asks for no proof.
async fn is_admitted(client: &Client) -> bool {
    let request = client.unary(HealthCheckRequest { service: String::new() });
    let Err(status) = client.health().check(request).await else { return true };
    // A status of the node has no cause of this side.
    let broken = std::error::Error::source(&status).is_some();
    !(broken && matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Internal))
}

fn not_admitted() -> Failure {
    Failure::new(
        Exit::Permission,
        "the node refused the connection, perhaps because of the client certificate",
    )
    .hint("its authority and trust domain must be in the node's auth.ca; the node's log says why")
}

/// The data directory: the flag, the environment, the configuration, and the
/// default when the configuration is not usable (its own commands say why).
pub fn data_dir(global: &Global) -> PathBuf {
    if let Some(dir) = &global.data_dir {
        return dir.clone();
    }
    if let Some(dir) = std::env::var_os("SIMPUL_DATA_DIR").filter(|dir| !dir.is_empty()) {
        return PathBuf::from(dir);
    }
    super::configuration::load(global, &[])
        .map_or_else(|_| PathBuf::from("simpul-data"), |loaded| loaded.config.data_dir)
}

/// The context to begin with: the one that was named; the current one unless a
/// server or data directory was named.
fn chosen_context(global: &Global) -> Result<Context, Failure> {
    if let Some(name) = &global.context {
        let file = contexts::File::read()?;
        return file.context.get(name).cloned().ok_or_else(|| {
            Failure::usage(format!("no context {name}")).hint("simpul context list")
        });
    }
    let named = global.server.is_some()
        || global.data_dir.is_some()
        || std::env::var_os("SIMPUL_DATA_DIR").is_some()
        || env_server().is_some();
    if named {
        return Ok(Context::default());
    }
    Ok(contexts::File::read()?.take_current().unwrap_or_default())
}

/// The servers that the environment names.
fn env_server() -> Option<String> {
    std::env::var("SIMPUL_SERVER").ok().filter(|server| !server.is_empty())
}

fn local(data_dir: &Path, ca: Option<PathBuf>) -> Result<(Address, PathBuf), Failure> {
    let shown = data_dir.display();
    let hint = "start one: simpul serve; or name one: --server HOST:PORT, --data-dir DIR";
    let node = find_node(data_dir).map_err(|why| match why {
        NoNode::Absent => Failure::unavailable(format!("no node runs in {shown}")).hint(hint),
        NoNode::Stale(pid) => {
            Failure::unavailable(format!("the node of {shown} (process {pid}) is gone")).hint(hint)
        }
        NoNode::Unreadable(why) => {
            Failure::unavailable(format!("cannot read {shown}/node.json: {why}"))
        }
    })?;
    let address = reachable(node.public.parse()?);
    // A relative path was relative to where the node runs: its data directory.
    let ca_file = node.ca_file.map(|file| {
        let there = file.file_name().map(|name| data_dir.join("dev").join(name));
        if file.exists() { file } else { there.filter(|f| f.exists()).unwrap_or(file) }
    });
    match ca.or(ca_file) {
        Some(ca) => Ok((address, ca)),
        None => Ok((address, system_roots()?)),
    }
}

/// A node that listens on every address is reached by loopback.
fn reachable(address: Address) -> Address {
    let host = match address.host.as_str() {
        "0.0.0.0" => "127.0.0.1".to_owned(),
        "::" => "::1".to_owned(),
        _ => address.host,
    };
    Address { host, port: address.port }
}

/// The machine's own bundle of certificate authorities.
fn system_roots() -> Result<PathBuf, Failure> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let known = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ];
    named
        .into_iter()
        .chain(known.map(PathBuf::from))
        .find(|file| file.is_file())
        .ok_or_else(|| Failure::usage("nobody vouches for the node").hint("--ca FILE"))
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", file.display())))
}

/// What a node says that does not believe the client's certificate.
fn is_about_certificates(alert: rustls::AlertDescription) -> bool {
    use rustls::AlertDescription as Alert;
    matches!(
        alert,
        Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnknownCA
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::AccessDenied
    )
}

impl From<DialError> for Failure {
    fn from(error: DialError) -> Self {
        match &error {
            DialError::Address(_) | DialError::Material(_) => Failure::usage(error.to_string()),
            DialError::Tls { error: rustls::Error::AlertReceived(alert), .. }
                if is_about_certificates(*alert) =>
            {
                not_admitted()
            }
            DialError::Tls { .. } => Failure::unavailable(error.to_string())
                .hint("does --ca fit the node? `simpul doctor` looks closer"),
            DialError::Connect { .. } | DialError::Timeout(_) | DialError::NotHttp2(_) => {
                Failure::unavailable(error.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_node_the_hint_is_to_start_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let global = Global { data_dir: Some(dir.path().to_owned()), ..Global::default() };
        let failure = Target::resolve(&global).expect_err("no node");
        assert_eq!(failure.exit(), Exit::Unavailable);
        let text = failure.render(false).expect("said");
        assert!(text.contains("no node runs in") && text.contains("simpul serve"), "{text}");
    }

    #[test]
    fn a_node_file_of_a_dead_process_is_stale() {
        let dir = tempfile::tempdir().expect("a directory");
        let node = |pid: u32| {
            let json = serde_json::json!({
                "pid": pid, "node_id": "n", "incarnation": 3, "public": "0.0.0.0:7443",
                "mesh": null, "admin": "127.0.0.1:7445", "ca_file": dir.path().join("ca.pem"),
            });
            std::fs::write(dir.path().join("node.json"), json.to_string()).expect("written");
        };
        // Beyond the largest process number that Linux gives.
        node(4_194_305);
        assert_eq!(find_node(dir.path()).expect_err("gone"), NoNode::Stale(4_194_305));
        node(std::process::id());
        assert!(find_node(dir.path()).is_ok());
        let global = Global { data_dir: Some(dir.path().to_owned()), ..Global::default() };
        let target = Target::resolve(&global).expect("found");
        assert_eq!(target.servers[0].to_string(), "127.0.0.1:7443");
        std::fs::write(dir.path().join("node.json"), "{").expect("written");
        assert!(matches!(find_node(dir.path()), Err(NoNode::Unreadable(_))));
    }

    #[test]
    fn half_an_identity_is_refused() {
        let global = Global {
            server: Some("localhost:1".into()),
            ca: Some("ca.pem".into()),
            cert: Some("cert.pem".into()),
            ..Global::default()
        };
        let failure = Target::resolve(&global).expect_err("no key");
        assert_eq!(failure.exit(), Exit::Usage);
    }
}
