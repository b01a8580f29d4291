//! Every key that the node understands, with its unit and meaning. Unknown keys
//! are errors. The defaults stand in `config/default.toml` and the profiles'
//! files, which the binary embeds: this file has none.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use crate::principal::{Kind, Role, TrustDomain};

/// Everything.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Which embedded file the values began with.
    pub profile: Profile,
    /// Where the node keeps its files.
    pub data_dir: PathBuf,
    /// The node itself.
    pub node: Node,
    /// Where it listens.
    pub listen: Listen,
    /// The other nodes.
    pub cluster: Cluster,
    /// How nodes prove themselves to each other.
    pub mesh: Mesh,
    /// Its own certificate and whether clients need one.
    pub tls: Tls,
    /// Who is believed.
    pub auth: Auth,
    /// What is too much.
    pub traffic: Traffic,
    /// The database.
    pub store: Store,
    /// Rooms and sessions.
    pub chat: Chat,
    /// Providers and their worker.
    pub payment: Payment,
    /// Logs, traces, metrics.
    pub telemetry: Telemetry,
    /// How the node stops.
    pub shutdown: Shutdown,
}

impl Config {
    /// Whether other nodes may share the store.
    pub fn is_clustered(&self) -> bool {
        self.cluster.shared_file || self.store.is_postgres()
    }
}

impl Store {
    /// Whether the store is PostgreSQL.
    pub fn is_postgres(&self) -> bool {
        let url = self.url.expose_secret().trim_start();
        url.starts_with("postgres:") || url.starts_with("postgresql:")
    }
}

/// What the defaults are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// One machine, nothing installed; makes its own certificates and keys.
    Development,
    /// Refuses everything that development makes easy.
    Production,
}

/// `[node]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// A short name, stable over restarts; made and kept in the data directory
    /// when absent.
    pub id: Option<String>,
    /// Where it stands, shown to operators. Example: `ap-southeast-3a`.
    pub zone: String,
    /// Where clients reach it, `HOST:PORT`, when that is not where it listens;
    /// other nodes' clients are sent there.
    pub advertise_public: Option<String>,
    /// Where other nodes reach it, `HOST:PORT`, when that is not where it
    /// listens.
    pub advertise_mesh: Option<String>,
}

/// `[listen]`: port 0 binds any free port.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// gRPC for clients, over TLS.
    pub public: SocketAddr,
    /// Links of the cluster's nodes, over TLS; not opened by a node alone.
    pub mesh: SocketAddr,
    /// Probes and metrics, plaintext; loopback unless fenced otherwise.
    pub admin: SocketAddr,
}

/// `[cluster]`: in force when the store is shared, by PostgreSQL or by
/// `cluster.shared_file`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// The cluster's name; its nodes have the same. The first one writes it and
    /// the nodes' trust domain into the store.
    pub name: String,
    /// Several nodes of this machine share the SQLite file.
    pub shared_file: bool,
    /// HTTP/2 connections that this node opens to each other node: a pair has
    /// twice as many.
    pub connections: u8,
    /// Bytes that may wait to be sent to another node; beyond it, that node
    /// reads what it misses from the store.
    pub backlog_bytes: usize,
    /// Partitions handed over a second when nodes joined.
    pub moves_per_second: u32,
}

/// `[mesh]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mesh {
    /// The node's certificate chain for other nodes, PEM; its SPIFFE id has the
    /// path `/node` or `/node/<node.id>`. Absent in development: one is made.
    pub cert_file: Option<PathBuf>,
    /// Its private key, PEM.
    pub key_file: Option<PathBuf>,
    /// The certificates of the authority of nodes, PEM.
    pub ca_file: Option<PathBuf>,
    /// The trust domain of nodes; `auth.trust_domain` when absent.
    pub trust_domain: Option<TrustDomain>,
}

/// `[tls]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The node's certificate chain, PEM. Absent in development: one is made.
    pub cert_file: Option<PathBuf>,
    /// Its private key, PEM.
    pub key_file: Option<PathBuf>,
    /// Whether clients must prove themselves with a certificate.
    pub client_auth: ClientAuth,
    /// How often the files are looked at for changes.
    #[serde(with = "humantime_serde")]
    pub reload_interval: Duration,
}

/// `tls.client_auth`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// Verified when given.
    Optional,
    /// No handshake without one.
    Required,
}

/// `[auth]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// The trust domain of the development certificate authority and token key.
    pub trust_domain: TrustDomain,
    /// What a token must name as its audience.
    pub audience: String,
    /// The bundles of certificate authorities whose clients are believed.
    pub ca: Vec<CaBundle>,
    /// The token issuers that are believed.
    pub issuer: Vec<Issuer>,
    /// Services that may act for users, in the form `service/id@trust-domain`.
    pub may_delegate: Vec<String>,
    /// The roles that a user has for whom a service acts by metadata.
    pub delegated_roles: Vec<Role>,
    /// Roles of single principals (`kind/id@trust-domain`), within what their
    /// source may grant. Whoever is not named has all that its source grants
    /// by default (`default_roles`).
    pub bindings: BTreeMap<String, Vec<Role>>,
    /// Accounts shared by several principals: the account's own principal form
    /// to those who share it.
    pub accounts: BTreeMap<String, Vec<String>>,
}

/// `[[auth.ca]]`: one bundle of certificate authorities.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaBundle {
    /// The certificates, PEM.
    pub file: PathBuf,
    /// The trust domain that its certificates' SPIFFE ids must have.
    pub trust_domain: TrustDomain,
    /// The kinds of principal that it may assert: user, service.
    pub kinds: Vec<Kind>,
    /// The roles that it may grant.
    pub roles: Vec<Role>,
    /// The roles of a principal that no binding names.
    #[serde(default)]
    pub default_roles: Vec<Role>,
    /// SPIFFE path patterns with one `<id>`, mapped to a kind; the defaults are
    /// `/user/<id>` and `/service/<id>`.
    #[serde(default)]
    pub paths: BTreeMap<String, Kind>,
}

/// `[[auth.issuer]]`: one issuer of bearer tokens.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// The `iss` claim.
    pub issuer: String,
    /// The keys, a JSON Web Key Set.
    pub jwks_file: PathBuf,
    /// The trust domain of its subjects.
    pub trust_domain: TrustDomain,
    /// The kinds of principal that it may assert.
    pub kinds: Vec<Kind>,
    /// The roles that it may grant; a token's other roles are dropped.
    pub roles: Vec<Role>,
    /// The audience, when it is not `auth.audience`.
    pub audience: Option<String>,
}

/// `[traffic]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// The deadline of a unary call that brings none.
    #[serde(with = "humantime_serde")]
    pub default_deadline: Duration,
    /// The longest deadline that a unary call may bring; a longer one is cut.
    #[serde(with = "humantime_serde")]
    pub max_deadline: Duration,
    /// Calls handled at once by the node, open streams not counted.
    pub max_concurrent_calls: usize,
    /// Streams open at once on the node.
    pub max_concurrent_streams: usize,
    /// Streams open at once for one principal.
    pub max_streams_per_principal: usize,
    /// Calls that may wait for a place before the node sheds them.
    pub max_waiting_calls: usize,
    /// How long one may wait for a place.
    #[serde(with = "humantime_serde")]
    pub max_wait: Duration,
    /// Calls a second of one principal, in the long run.
    pub rate_per_principal: u32,
    /// Calls of one principal at once, beyond the rate.
    pub burst_per_principal: u32,
    /// Frames a second inside one principal's streams, in the long run.
    pub frame_rate_per_principal: u32,
    /// Frames at once, beyond the rate.
    pub frame_burst_per_principal: u32,
    /// Failed proofs a minute from one address before it must wait.
    pub failures_per_minute: u32,
    /// The largest request message, bytes.
    pub max_message_bytes: usize,
    /// The largest list of request headers, bytes.
    pub max_header_bytes: u32,
    /// HTTP/2 streams on one connection.
    pub max_streams_per_connection: u32,
    /// Connections open at once on the public listener.
    pub max_connections: usize,
    /// TLS handshakes under way at once.
    pub max_handshakes: usize,
    /// How long a handshake may take.
    #[serde(with = "humantime_serde")]
    pub handshake_timeout: Duration,
    /// The age at which a connection gets GOAWAY, ±10 %.
    #[serde(with = "humantime_serde")]
    pub max_connection_age: Duration,
    /// How long its streams may then go on.
    #[serde(with = "humantime_serde")]
    pub connection_age_grace: Duration,
    /// How often an idle connection is pinged.
    #[serde(with = "humantime_serde")]
    pub keepalive_interval: Duration,
    /// How long a ping may stay unanswered.
    #[serde(with = "humantime_serde")]
    pub keepalive_timeout: Duration,
}

/// `[store]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// `sqlite:` for `simpul.db` in the data directory, or `sqlite:PATH`; or
    /// PostgreSQL, one or several `postgres://USER:PASSWORD@HOST/DATABASE`.
    pub url: SecretString,
    /// Connections for reading, of the SQLite engine.
    pub readers: u32,
    /// Connections of the PostgreSQL engine: two for beats, of the others half
    /// append. At least 6.
    pub connections: u32,
    /// How long connecting to the database, or waiting for a free connection,
    /// may take.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// How long one statement may take on PostgreSQL.
    #[serde(with = "humantime_serde")]
    pub statement_timeout: Duration,
}

/// `[chat]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chat {
    /// Hash slots of rooms; never changed once a store has data.
    pub partitions: u16,
    /// Bytes of one room's newest entries kept in memory.
    pub room_tail_bytes: usize,
    /// Bytes of all rooms' entries kept in memory, those that HTTP/2 still
    /// holds included.
    pub total_tail_bytes: usize,
    /// A room that nobody reads or writes leaves memory after this time.
    #[serde(with = "humantime_serde")]
    pub idle_room: Duration,
    /// Entries in one page that a lagging reader gets from the store.
    pub page_entries: u32,
    /// Rooms that one stream may join.
    pub max_joined_rooms: usize,
    /// The largest body, bytes.
    pub max_body_bytes: usize,
    /// How long client message ids are remembered.
    #[serde(with = "humantime_serde")]
    pub client_message_id_kept: Duration,
}

/// `[payment]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payment {
    /// Which provider handles payments.
    pub provider: Provider,
    /// Allows the sandbox in production.
    pub sandbox: bool,
    /// What was never sent fails after this time.
    #[serde(with = "humantime_serde")]
    pub give_up: Duration,
    /// How long idempotency keys are remembered.
    #[serde(with = "humantime_serde")]
    pub idempotency_kept: Duration,
    /// How long one call to the provider may take.
    #[serde(with = "humantime_serde")]
    pub provider_timeout: Duration,
    /// Operations driven at once.
    pub workers: usize,
    /// How long a worker's lease on an operation lasts.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
    /// Lets a payee be refunded from below zero.
    pub refund_below_zero: bool,
}

/// `payment.provider`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// The embedded one, without real money.
    Sandbox,
}

/// `[telemetry]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// Filter directives, as in `RUST_LOG`. Example: `info,simpul::chat=debug`.
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Where audit lines go; `-` for the log stream, else a file path; in the
    /// data directory when relative.
    pub audit_file: String,
}

/// `telemetry.log_format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Human on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Human,
    /// One object a line.
    Json,
}

/// `[shutdown]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    /// How long the node goes on serving after readiness went down.
    #[serde(with = "humantime_serde")]
    pub delay: Duration,
    /// How long streams and calls have to end, after that.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
}
