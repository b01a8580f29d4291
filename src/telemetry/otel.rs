//! The `OTEL_*` variables, read once into settings. The SDK would read some of
//! them from the process's environment itself; they are read here all the same,
//! so that `.env` counts and tests need not change the process. A wrong value
//! is a warning, by name alone, and the default holds.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_sdk::trace::{Sampler, SpanLimits};

/// What the variables ask for.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) endpoint: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) timeout: Duration,
    pub(super) gzip: bool,
    pub(super) ca_file: Option<String>,
    pub(super) client_key: Option<String>,
    pub(super) client_certificate: Option<String>,
    pub(super) service_name: Option<String>,
    pub(super) resource: Vec<KeyValue>,
    pub(super) sampler: Sampler,
    pub(super) limits: SpanLimits,
    pub(super) value_length: Option<usize>,
    pub(super) queue: usize,
    pub(super) batch: usize,
    pub(super) delay: Duration,
}

/// Whether a caller's traceparent is taken, exporter or not.
pub(super) fn propagates(env: &[(String, String)], warnings: &mut Vec<String>) -> bool {
    let mut reader = Reader { env, warnings: Vec::new() };
    let propagates = reader.propagate();
    warnings.append(&mut reader.warnings);
    propagates
}

/// The variables and what is wrong with them.
struct Reader<'a> {
    env: &'a [(String, String)],
    warnings: Vec<String>,
}

impl Settings {
    /// Settings when traces are to be exported, and what is wrong with the
    /// variables.
    pub(super) fn of(env: &[(String, String)]) -> (Option<Self>, Vec<String>) {
        let mut reader = Reader { env, warnings: Vec::new() };
        let settings = reader.wanted().then(|| reader.settings());
        (settings, reader.warnings)
    }
}

impl Reader<'_> {
    /// A variable that is set and not empty.
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.env.iter().rev().find(|(known, _)| known == name)?;
        Some(found.1.trim()).filter(|value| !value.is_empty())
    }

    /// A variable of the exporter: the traces' own, or the general one, with
    /// its name.
    fn otlp(&self, suffix: &str) -> Option<(String, &str)> {
        ["OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_"].iter().find_map(|prefix| {
            let name = format!("{prefix}{suffix}");
            self.get(&name).map(|value| (name.clone(), value))
        })
    }

    fn warn(&mut self, name: &str, rule: &str) {
        self.warnings.push(format!("{name} {rule}"));
    }

    fn truth(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    fn number<T: std::str::FromStr>(&mut self, name: &str) -> Option<T> {
        let parsed = self.get(name)?.parse().ok();
        if parsed.is_none() {
            self.warn(name, "is not a whole number and is ignored");
        }
        parsed
    }

    /// Whether traces are to be exported at all.
    fn wanted(&mut self) -> bool {
        if self.truth("OTEL_SDK_DISABLED") {
            return false;
        }
        let wanted = match self.get("OTEL_TRACES_EXPORTER") {
            None => self.otlp("ENDPOINT").is_some(),
            Some("otlp") => true,
            Some("none") => false,
            Some(_) => {
                self.warn("OTEL_TRACES_EXPORTER", "must be otlp or none: no traces are exported");
                false
            }
        };
        if !wanted {
            return false;
        }
        let other = self.otlp("PROTOCOL").filter(|(_, value)| *value != "grpc");
        if let Some((name, _)) = other {
            self.warn(&name, "must be grpc, the only protocol here: no traces are exported");
            return false;
        }
        true
    }

    fn settings(&mut self) -> Settings {
        let file = |reader: &Self, suffix| reader.otlp(suffix).map(|(_, path)| path.to_owned());
        let batch_timeout: u64 = self.number("OTEL_BSP_EXPORT_TIMEOUT").unwrap_or(30_000);
        let timeout_name = self.otlp("TIMEOUT").map(|(name, _)| name);
        let timeout = timeout_name.and_then(|name| self.number::<u64>(&name)).unwrap_or(10_000);
        let queue = self.number("OTEL_BSP_MAX_QUEUE_SIZE").filter(|n| *n > 0).unwrap_or(2048);
        let batch = self.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE").filter(|n| *n > 0);
        let delay: u64 = self.number("OTEL_BSP_SCHEDULE_DELAY").unwrap_or(5000);
        let value_length = self
            .number("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT")
            .or_else(|| self.number("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"));
        Settings {
            endpoint: self.endpoint(),
            headers: self.headers(),
            timeout: Duration::from_millis(timeout.min(batch_timeout)),
            gzip: self.gzip(),
            ca_file: file(self, "CERTIFICATE"),
            client_key: file(self, "CLIENT_KEY"),
            client_certificate: file(self, "CLIENT_CERTIFICATE"),
            service_name: self.get("OTEL_SERVICE_NAME").map(str::to_owned),
            resource: self.resource(),
            sampler: self.sampler(),
            limits: self.limits(),
            value_length,
            queue,
            batch: batch.unwrap_or(512).min(queue),
            delay: Duration::from_millis(delay),
        }
    }

    fn endpoint(&self) -> String {
        let insecure =
            self.otlp("INSECURE").is_some_and(|(_, value)| value.eq_ignore_ascii_case("true"));
        match self.otlp("ENDPOINT") {
            None => "http://localhost:4317".into(),
            Some((_, endpoint)) if endpoint.contains("://") => endpoint.into(),
            Some((_, endpoint)) if insecure => format!("http://{endpoint}"),
            Some((_, endpoint)) => format!("https://{endpoint}"),
        }
    }

    fn gzip(&mut self) -> bool {
        let Some((name, value)) = self.otlp("COMPRESSION") else { return false };
        match value.to_ascii_lowercase().as_str() {
            "gzip" => true,
            "none" => false,
            _ => {
                self.warn(&name, "must be gzip or none: nothing is compressed");
                false
            }
        }
    }

    fn headers(&mut self) -> Vec<(String, String)> {
        let Some((name, value)) = self.otlp("HEADERS") else { return Vec::new() };
        let (pairs, sound) = pairs(value);
        if !sound {
            self.warn(&name, "must be key=value pairs; those that are not are ignored");
        }
        pairs
    }

    fn resource(&mut self) -> Vec<KeyValue> {
        let name = "OTEL_RESOURCE_ATTRIBUTES";
        let (pairs, sound) = pairs(self.get(name).unwrap_or_default());
        if !sound {
            self.warn(name, "must be key=value pairs; those that are not are ignored");
        }
        pairs.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect()
    }

    fn sampler(&mut self) -> Sampler {
        let (name, argument) = ("OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG");
        let ratio = match self.get(argument).map(str::parse::<f64>) {
            None => 1.0,
            Some(Ok(ratio)) if (0.0..=1.0).contains(&ratio) => ratio,
            Some(_) => {
                self.warn(argument, "must be a number from 0 to 1: everything is sampled");
                1.0
            }
        };
        let by_parent = |root| Sampler::ParentBased(Box::new(root));
        match self.get(name) {
            Some("always_on") => Sampler::AlwaysOn,
            Some("always_off") => Sampler::AlwaysOff,
            Some("traceidratio") => Sampler::TraceIdRatioBased(ratio),
            Some("parentbased_always_off") => by_parent(Sampler::AlwaysOff),
            Some("parentbased_traceidratio") => by_parent(Sampler::TraceIdRatioBased(ratio)),
            None | Some("parentbased_always_on") => by_parent(Sampler::AlwaysOn),
            Some(_) => {
                self.warn(name, "names no sampler known here: parentbased_always_on holds");
                by_parent(Sampler::AlwaysOn)
            }
        }
    }

    fn limits(&mut self) -> SpanLimits {
        let mut limits = SpanLimits::default();
        if let Some(count) = self.number("OTEL_ATTRIBUTE_COUNT_LIMIT") {
            limits.max_attributes_per_span = count;
            limits.max_attributes_per_event = count;
            limits.max_attributes_per_link = count;
        }
        for (name, limit) in [
            ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", &mut limits.max_attributes_per_span),
            ("OTEL_SPAN_EVENT_COUNT_LIMIT", &mut limits.max_events_per_span),
            ("OTEL_SPAN_LINK_COUNT_LIMIT", &mut limits.max_links_per_span),
            ("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", &mut limits.max_attributes_per_event),
            ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", &mut limits.max_attributes_per_link),
        ] {
            *limit = self.number(name).unwrap_or(*limit);
        }
        limits
    }

    /// Whether a caller's traceparent is taken.
    fn propagate(&mut self) -> bool {
        let name = "OTEL_PROPAGATORS";
        let Some(value) = self.get(name) else { return true };
        let listed: Vec<_> = value.split(',').map(|word| word.trim().to_owned()).collect();
        if listed.iter().any(|word| !matches!(word.as_str(), "tracecontext" | "baggage" | "none")) {
            self.warn(
                name,
                "names propagators unknown here; tracecontext, baggage and none are known",
            );
        }
        listed.iter().any(|word| word == "tracecontext")
    }
}

/// `key=value,…`, percent-encoded values, and whether every part was one.
fn pairs(text: &str) -> (Vec<(String, String)>, bool) {
    let parts: Vec<_> =
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(pair).collect();
    let sound = parts.iter().all(Option::is_some);
    (parts.into_iter().flatten().collect(), sound)
}

fn pair(part: &str) -> Option<(String, String)> {
    let (key, value) = part.split_once('=')?;
    let key = key.trim();
    (!key.is_empty()).then_some((key.to_owned(), decoded(value.trim())?))
}

/// A percent-encoded text.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let value = digit(rest.next()?)? * 16 + digit(rest.next()?)?;
        bytes.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(bytes).ok()
}
