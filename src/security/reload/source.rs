//! One source: the files that are taken over together, and how that went.

use std::io::Read;
use std::path::PathBuf;
use std::time::SystemTime;

use aws_lc_rs::digest;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use zeroize::Zeroizing;

/// Larger files are no certificates.
const MAX_FILE: u64 = 1024 * 1024;

/// A file's content; may be a key.
pub(super) type Bytes = Zeroizing<Vec<u8>>;

/// What a source holds, with its place among those of its sort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::security) enum What {
    Server,
    Bundle(usize),
    Issuer(usize),
}

/// Files that belong together.
#[derive(Debug)]
pub(in crate::security) struct Source {
    pub(super) key: String,
    pub(super) what: What,
    files: Vec<PathBuf>,
    /// Of the content that was taken over.
    current: Option<[u8; 32]>,
    failing: Option<String>,
}

impl Source {
    /// Under a configuration key.
    pub(in crate::security) fn new(key: String, what: What, files: Vec<PathBuf>) -> Self {
        Self { key, what, files, current: None, failing: None }
    }

    pub(super) fn read(&self) -> Result<Vec<Bytes>, String> {
        self.files
            .iter()
            .map(|path| {
                let shown = path.display();
                let mut content = Zeroizing::new(Vec::new());
                std::fs::File::open(path)
                    .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut content))
                    .map_err(|error| format!("{shown} cannot be read: {error}"))?;
                if content.len() as u64 > MAX_FILE {
                    return Err(format!("{shown} is larger than 1 MiB"));
                }
                Ok(content)
            })
            .collect()
    }

    pub(super) fn is_current(&self, digest: &[u8; 32]) -> bool {
        self.current.as_ref() == Some(digest)
    }

    /// Its content was taken over.
    pub(super) fn taken(&mut self, digest: [u8; 32], metrics: &Metrics) {
        if self.current.replace(digest).is_some() {
            tracing::info!(source = %self.key, "reloaded");
        }
        self.failing = None;
        metrics.failing(&self.key).set(0);
    }

    /// Its content is again what was taken over.
    pub(super) fn recovered(&mut self, metrics: &Metrics) {
        if self.failing.take().is_some() {
            tracing::info!(source = %self.key, "is again as it was taken over");
            metrics.failing(&self.key).set(0);
        }
    }

    /// Its content is refused.
    pub(super) fn failed(&mut self, error: &str, metrics: &Metrics) {
        if self.failing.as_deref() == Some(error) {
            return;
        }
        tracing::error!(source = %self.key, error, "refused; the last good one stays in use");
        self.failing = Some(error.to_owned());
        metrics.failing(&self.key).set(1);
        metrics.failures.get_or_create(&labels(&self.key)).inc();
    }
}

/// SHA-256 of the contents with their lengths, so that moving a byte from one
/// file to the next is a change.
pub(super) fn digest(files: &[Bytes]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for file in files {
        context.update(&(file.len() as u64).to_be_bytes());
        context.update(file);
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    bytes
}

type Labels = Vec<(&'static str, String)>;

fn labels(key: &str) -> Labels {
    vec![("source", key.to_owned())]
}

/// How the sources are.
#[derive(Debug, Clone, Default)]
pub(in crate::security) struct Metrics {
    failing: Family<Labels, Gauge>,
    failures: Family<Labels, Counter>,
    lifetime: Family<Labels, Gauge>,
}

impl Metrics {
    pub(in crate::security) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "reload_failing",
            "1 while a source's files are refused and the last good ones stay in use",
            metrics.failing.clone(),
        );
        registry.register(
            "reload_failures",
            "How often a source's files were refused, counted once per content",
            metrics.failures.clone(),
        );
        registry.register(
            "certificate_lifetime_seconds",
            "Until the first certificate of the source in use ends; negative when over",
            metrics.lifetime.clone(),
        );
        metrics
    }

    pub(super) fn failing(&self, key: &str) -> Gauge {
        self.failing.get_or_create_owned(&labels(key))
    }

    pub(super) fn lifetime(&self, key: &str, end: SystemTime, now: SystemTime) {
        let seconds = |span: std::time::Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
        let left = match end.duration_since(now) {
            Ok(left) => seconds(left),
            Err(over) => -seconds(over.duration()),
        };
        self.lifetime.get_or_create(&labels(key)).set(left);
    }
}
