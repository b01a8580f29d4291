//! Environment variables and `.env`: `SIMPUL_LISTEN__PUBLIC` is `listen.public`.
//!
//! A variable without `__` that is no top-level key is left alone: Kubernetes
//! sets such ones (`SIMPUL_PORT`, `SIMPUL_SERVICE_HOST`,
//! `SIMPUL_PORT_7443_TCP`) for a Service of this name, and the command line
//! has some of its own.

use std::path::Path;

use super::layer::{Layer, read};
use super::problem::Problems;
use super::{keys, layer};

/// A variable and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) value: String,
    source: String,
}

impl Variable {
    /// One of the process's environment.
    pub(super) fn of_process(name: &str, value: &str) -> Self {
        let source = format!("environment variable {name}");
        Self { name: name.into(), value: value.into(), source }
    }
}

/// The value that a variable gives, when it names a key.
pub(super) fn layer(variable: &Variable, problems: &mut Problems) -> Option<layer::Layer> {
    let key = key_of(&variable.name)?;
    Some(Layer::text(&variable.source, &key, &variable.value, problems))
}

/// The key that a variable's name stands for.
fn key_of(name: &str) -> Option<String> {
    let rest = name.strip_prefix("SIMPUL_")?;
    if rest == "PROFILE" || rest.starts_with("TEST_") {
        return None;
    }
    let key = rest.to_ascii_lowercase().replace("__", ".");
    (rest.contains("__") || keys::find(&key).is_some()).then_some(key)
}

/// The variables of a `.env` file: `NAME=value` a line, `#` comments, an
/// optional `export`, single or double quotes around the whole value.
pub(super) fn dotenv(path: &Path, problems: &mut Problems) -> Vec<Variable> {
    let file = path.display().to_string();
    let text = match read(path) {
        Ok(text) => text,
        Err(rule) => {
            problems.add("(file)", &file, rule);
            return Vec::new();
        }
    };
    let mut variables = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = line.split_once('=') else {
            problems.add("(file)", &file, format!("line {number} is not NAME=value"));
            continue;
        };
        let (name, value) = (name.trim(), unquoted(value.trim()));
        if name == "SIMPUL_PROFILE" {
            problems.add(
                "profile",
                &format!("{file}, SIMPUL_PROFILE"),
                "cannot be chosen here: by then it is known",
            );
        }
        variables.push(Variable {
            name: name.into(),
            value: value.into(),
            source: format!("{file}, {name}"),
        });
    }
    variables
}

/// A value without the quotes around it, or without its comment.
fn unquoted(value: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(inner) = value.strip_prefix(quote)
            && let Some((inner, _)) = inner.split_once(quote)
        {
            return inner;
        }
    }
    value.split_once(" #").map_or(value, |(value, _)| value.trim_end())
}
