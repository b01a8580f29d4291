//! The table of keys: what each one's value looks like. The schema gives their
//! meaning, docs/configuration.md the words for people; tests hold the three
//! together.

use super::kind::{Field, Kind};

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) path: &'static str,
    pub(super) kind: Kind,
}

const fn key(path: &'static str, kind: Kind) -> Key {
    Key { path, kind }
}

const fn required(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, required: true }
}

const fn optional(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, required: false }
}

const U16: Kind = Kind::Number(u16::MAX as u64);
const U32: Kind = Kind::Number(u32::MAX as u64);
/// Bytes and counts: what a TOML integer can hold.
const SIZE: Kind = Kind::Number(i64::MAX as u64);

static KIND: Kind = Kind::Choice(&["user", "service", "node"]);
static ROLE: Kind =
    Kind::Choice(&["customer", "merchant", "support", "auditor", "operator", "backend", "node"]);
static ROLES: Kind = Kind::List(&ROLE);
static TEXT: Kind = Kind::Text;
static TEXTS: Kind = Kind::List(&TEXT);

static CA: [Field; 6] = [
    required("file", Kind::Path),
    required("trust_domain", Kind::Domain),
    required("kinds", Kind::List(&KIND)),
    required("roles", Kind::List(&ROLE)),
    optional("default_roles", Kind::List(&ROLE)),
    optional("paths", Kind::Map(&KIND)),
];

static ISSUER: [Field; 6] = [
    required("issuer", Kind::Text),
    required("jwks_file", Kind::Path),
    required("trust_domain", Kind::Domain),
    required("kinds", Kind::List(&KIND)),
    required("roles", Kind::List(&ROLE)),
    optional("audience", Kind::Text),
];

/// Every key, in the order of the schema.
pub(super) static KEYS: &[Key] = &[
    key("profile", Kind::Choice(&["development", "production"])),
    key("data_dir", Kind::Path),
    key("node.id", Kind::Text),
    key("node.zone", Kind::Text),
    key("node.advertise_public", Kind::Text),
    key("node.advertise_mesh", Kind::Text),
    key("listen.public", Kind::Socket),
    key("listen.mesh", Kind::Socket),
    key("listen.admin", Kind::Socket),
    key("cluster.name", Kind::Text),
    key("cluster.shared_file", Kind::Bool),
    key("cluster.connections", Kind::Number(u8::MAX as u64)),
    key("cluster.backlog_bytes", SIZE),
    key("cluster.moves_per_second", U32),
    key("mesh.cert_file", Kind::Path),
    key("mesh.key_file", Kind::Path),
    key("mesh.ca_file", Kind::Path),
    key("mesh.trust_domain", Kind::Domain),
    key("tls.cert_file", Kind::Path),
    key("tls.key_file", Kind::Path),
    key("tls.client_auth", Kind::Choice(&["optional", "required"])),
    key("tls.reload_interval", Kind::Duration),
    key("auth.trust_domain", Kind::Domain),
    key("auth.audience", Kind::Text),
    key("auth.ca", Kind::Tables(&CA)),
    key("auth.issuer", Kind::Tables(&ISSUER)),
    key("auth.may_delegate", Kind::List(&TEXT)),
    key("auth.delegated_roles", Kind::List(&ROLE)),
    key("auth.bindings", Kind::Map(&ROLES)),
    key("auth.accounts", Kind::Map(&TEXTS)),
    key("traffic.default_deadline", Kind::Duration),
    key("traffic.max_deadline", Kind::Duration),
    key("traffic.max_concurrent_calls", SIZE),
    key("traffic.max_concurrent_streams", SIZE),
    key("traffic.max_streams_per_principal", SIZE),
    key("traffic.max_waiting_calls", SIZE),
    key("traffic.max_wait", Kind::Duration),
    key("traffic.rate_per_principal", U32),
    key("traffic.burst_per_principal", U32),
    key("traffic.frame_rate_per_principal", U32),
    key("traffic.frame_burst_per_principal", U32),
    key("traffic.failures_per_minute", U32),
    key("traffic.max_message_bytes", SIZE),
    key("traffic.max_header_bytes", U32),
    key("traffic.max_streams_per_connection", U32),
    key("traffic.max_connections", SIZE),
    key("traffic.max_handshakes", SIZE),
    key("traffic.handshake_timeout", Kind::Duration),
    key("traffic.max_connection_age", Kind::Duration),
    key("traffic.connection_age_grace", Kind::Duration),
    key("traffic.keepalive_interval", Kind::Duration),
    key("traffic.keepalive_timeout", Kind::Duration),
    key("store.url", Kind::Secret),
    key("store.readers", U32),
    key("store.connections", U32),
    key("store.connect_timeout", Kind::Duration),
    key("store.statement_timeout", Kind::Duration),
    key("chat.partitions", U16),
    key("chat.room_tail_bytes", SIZE),
    key("chat.total_tail_bytes", SIZE),
    key("chat.idle_room", Kind::Duration),
    key("chat.page_entries", U32),
    key("chat.max_joined_rooms", SIZE),
    key("chat.max_body_bytes", SIZE),
    key("chat.client_message_id_kept", Kind::Duration),
    key("payment.provider", Kind::Choice(&["sandbox"])),
    key("payment.sandbox", Kind::Bool),
    key("payment.give_up", Kind::Duration),
    key("payment.idempotency_kept", Kind::Duration),
    key("payment.provider_timeout", Kind::Duration),
    key("payment.workers", SIZE),
    key("payment.lease", Kind::Duration),
    key("payment.refund_below_zero", Kind::Bool),
    key("telemetry.log", Kind::Text),
    key("telemetry.log_format", Kind::Choice(&["auto", "human", "json"])),
    key("telemetry.audit_file", Kind::Text),
    key("shutdown.delay", Kind::Duration),
    key("shutdown.grace", Kind::Duration),
];

/// The key of exactly this path.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Whether keys lie below this path.
pub(super) fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// The secret that a `KEY_file` gives.
pub(super) fn secret_of_file(path: &str) -> Option<&'static Key> {
    find(path.strip_suffix("_file")?).filter(|key| matches!(key.kind, Kind::Secret))
}

/// What to say of an unknown key: the nearest known one, if one is near.
pub(super) fn unknown(path: &str) -> String {
    let near = KEYS
        .iter()
        .map(|key| (distance(path, key.path), key.path))
        .min()
        .filter(|(distance, _)| *distance <= 3);
    match near {
        Some((_, near)) => format!("is not a key; {near} is"),
        None => "is not a key".into(),
    }
}

/// Edits between two short texts.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut next = vec![i + 1];
        for (j, (b, pair)) in other.iter().zip(row.windows(2)).enumerate() {
            let (diagonal, above) = match pair {
                [diagonal, above] => (*diagonal, *above),
                _ => (0, 0),
            };
            let left = next.get(j).copied().unwrap_or_default();
            next.push((diagonal + usize::from(a != *b)).min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}
