//! One source of values: what of it is sound, under the name that problems and
//! `simpul config show` give it.

use std::path::Path;

use figment::value::{Dict, Map, Value};
use figment::{Metadata, Provider};

use super::keys;
use super::problem::Problems;

/// The largest file that is read as a configuration or secret, bytes.
const MAX_FILE: u64 = 1 << 20;

/// The sound values of one source.
#[derive(Debug)]
pub(super) struct Layer {
    name: String,
    values: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<figment::Profile, Dict>, figment::Error> {
        Ok(figment::Profile::Default.collect(self.values.clone()))
    }
}

impl Layer {
    /// The values of a TOML text.
    pub(super) fn toml(name: &str, text: &str, problems: &mut Problems) -> Self {
        let mut layer = Self { name: name.into(), values: Dict::new() };
        match toml::from_str::<Dict>(text) {
            Ok(values) => layer.walk("", values, problems),
            // The error's own text would quote the line, and so the value.
            Err(error) => {
                let before = error.span().and_then(|span| text.get(..span.start));
                let line = before.map_or(1, |before| before.matches('\n').count() + 1);
                problems.add("(file)", name, format!("line {line} is not TOML"));
            }
        }
        layer
    }

    /// The values of a TOML file.
    pub(super) fn file(path: &Path, problems: &mut Problems) -> Self {
        let name = path.display().to_string();
        match read(path) {
            Ok(text) => Self::toml(&name, &text, problems),
            Err(rule) => {
                problems.add("(file)", &name, rule);
                Self { name, values: Dict::new() }
            }
        }
    }

    /// One value, as a text.
    pub(super) fn text(name: &str, key: &str, text: &str, problems: &mut Problems) -> Self {
        let mut layer = Self { name: name.into(), values: Dict::new() };
        if let Some(known) = keys::find(key) {
            let mut note = |key: &str, rule: String| problems.add(key, name, rule);
            if let Some(value) = known.kind.parse(key, text, &mut note) {
                layer.insert(key, value);
            }
        } else if let Some(secret) = keys::secret_of_file(key) {
            layer.secret_file(key, secret.path, text, problems);
        } else {
            problems.add(key, name, keys::unknown(key));
        }
        layer
    }

    /// Takes the sound values of a table and notes the rest.
    fn walk(&mut self, prefix: &str, table: Dict, problems: &mut Problems) {
        for (name, value) in table {
            let path = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
            if let Some(known) = keys::find(&path) {
                let source = self.name.clone();
                let mut note = |key: &str, rule: String| problems.add(key, &source, rule);
                if let Some(value) = known.kind.accept(&path, value, &mut note) {
                    self.insert(&path, value);
                }
            } else if keys::is_section(&path) {
                match value {
                    Value::Dict(_, table) => {
                        // A section without keys is a section all the same.
                        self.insert(&path, Value::from(Dict::new()));
                        self.walk(&path, table, problems);
                    }
                    _ => problems.add(&path, &self.name, "must be a table"),
                }
            } else if let Some(secret) = keys::secret_of_file(&path) {
                match value {
                    Value::String(_, file) => {
                        self.secret_file(&path, secret.path, &file, problems);
                    }
                    _ => problems.add(&path, &self.name, "must be a text"),
                }
            } else {
                problems.add(&path, &self.name, keys::unknown(&path));
            }
        }
    }

    /// Takes a secret from the file that a key names.
    fn secret_file(&mut self, key: &str, secret: &str, file: &str, problems: &mut Problems) {
        if Value::from(self.values.clone()).find(secret).is_some() {
            problems.add(key, &self.name, format!("cannot stand beside {secret}"));
            return;
        }
        match read(Path::new(file)) {
            Ok(text) => self.insert(secret, Value::from(text.trim_end_matches(['\r', '\n']))),
            Err(rule) => problems.add(key, &self.name, rule),
        }
    }

    fn insert(&mut self, path: &str, value: Value) {
        let nested = figment::util::nest(path, value);
        if let Value::Dict(_, dict) = nested {
            for (name, value) in dict {
                merge(&mut self.values, name, value);
            }
        }
    }
}

/// Puts a value into a table, joining tables.
fn merge(into: &mut Dict, name: String, value: Value) {
    match (into.get_mut(&name), value) {
        (Some(Value::Dict(_, old)), Value::Dict(_, new)) => {
            for (name, value) in new {
                merge(old, name, value);
            }
        }
        (_, value) => {
            into.insert(name, value);
        }
    }
}

/// A file's text, or why there is none.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let too_large = || format!("the file must have at most {MAX_FILE} bytes");
    let size = std::fs::metadata(path).map_err(|error| unreadable(&error))?.len();
    if size > MAX_FILE {
        return Err(too_large());
    }
    std::fs::read_to_string(path).map_err(|error| unreadable(&error))
}

/// Why a file cannot be read, without its content.
pub(super) fn unreadable(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "the file does not exist".into(),
        std::io::ErrorKind::PermissionDenied => "the file may not be read".into(),
        std::io::ErrorKind::InvalidData => "the file is not UTF-8".into(),
        std::io::ErrorKind::IsADirectory => "is a directory, not a file".into(),
        kind => format!("the file cannot be read: {kind}"),
    }
}
