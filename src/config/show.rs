//! The effective configuration for people: each key with its value and source,
//! secrets masked.

use figment::value::Value;

use super::kind::Kind;
use super::{Loaded, keys, source_of};

/// What stands for a secret.
const MASK: &str = "********";

/// One line of `simpul config show`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The key, or the variable's name.
    pub key: String,
    /// The value as text; masked when it is a secret, empty when not set.
    pub value: String,
    /// Where it came from.
    pub source: String,
}

/// The variables of OpenTelemetry that the node honours (docs/telemetry.md).
pub(super) const OTEL_VARIABLES: &[&str] = &[
    "OTEL_SDK_DISABLED",
    "OTEL_SERVICE_NAME",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_PROPAGATORS",
    "OTEL_TRACES_EXPORTER",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_BSP_EXPORT_TIMEOUT",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_EVENT_COUNT_LIMIT",
    "OTEL_SPAN_LINK_COUNT_LIMIT",
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    "OTEL_EXPORTER_OTLP_COMPRESSION",
    "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
    "OTEL_EXPORTER_OTLP_INSECURE",
    "OTEL_EXPORTER_OTLP_TRACES_INSECURE",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
];

impl Loaded {
    /// Every key with its value and source, then the variables of
    /// OpenTelemetry that are set and honoured.
    pub fn effective(&self) -> Vec<Setting> {
        let settings = keys::KEYS.iter().map(|key| {
            let value = self.figment.find_value(key.path).ok();
            let value = match (&key.kind, value) {
                (_, None) => String::new(),
                (Kind::Secret, Some(_)) => MASK.into(),
                (_, Some(value)) => text(&value),
            };
            Setting { key: key.path.into(), value, source: source_of(&self.figment, key.path) }
        });
        settings.chain(otel_settings(&self.env)).collect()
    }

    /// Where the value of a key came from.
    pub fn source(&self, key: &str) -> String {
        source_of(&self.figment, key)
    }
}

/// The variables of OpenTelemetry that are set and honoured. Headers carry
/// tokens, and an address may carry a password: both are masked.
pub fn otel_settings(env: &[(String, String)]) -> Vec<Setting> {
    let shown = |name: &str, value: &str| {
        let headers = name.ends_with("_HEADERS");
        let password = name.ends_with("_ENDPOINT") && value.contains('@');
        if headers || password { MASK.to_owned() } else { value.to_owned() }
    };
    let set = |name: &&str| {
        let found = env.iter().rev().find(|(known, value)| known == name && !value.is_empty())?;
        Some(Setting {
            key: (*name).to_owned(),
            value: shown(name, &found.1),
            source: format!("environment variable {name}"),
        })
    };
    OTEL_VARIABLES.iter().filter_map(set).collect()
}

/// A value as text: what the key would be given as, JSON for lists and tables.
fn text(value: &Value) -> String {
    match value {
        Value::String(_, text) => text.clone(),
        value => value
            .deserialize::<serde_json::Value>()
            .map_or_else(|_| String::new(), |json| json.to_string()),
    }
}
