//! Environment variables and `.env`: `SIMPUL_LISTEN__PUBLIC` is `listen.public`.
//!
//! Left alone are SIMPUL_PROFILE, SIMPUL_SERVER (the client commands' own), SIMPUL_TEST_* and what Kubernetes sets for a
//! Service whose name begins with this one (`SIMPUL_PORT`,
//! `SIMPUL_SERVICE_HOST`, `SIMPUL_ADMIN_PORT_7445_TCP_ADDR`). Any other is
//! meant as a key: one that is none must not pass in silence.

use std::path::Path;

use super::layer;
use super::layer::{Layer, read};
use super::problem::Problems;

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
    if matches!(rest, "PROFILE" | "SERVER") || rest.starts_with("TEST_") {
        return None;
    }
    if !rest.contains("__") && is_service_link(rest) {
        return None;
    }
    Some(rest.to_ascii_lowercase().replace("__", "."))
}

/// Whether the rest of a name is what Kubernetes calls the parts of a Service:
/// an address for every pod to find it by.
fn is_service_link(rest: &str) -> bool {
    let words: Vec<&str> = rest.split('_').collect();
    // The Service's own name may go on: `simpul-admin` is SIMPUL_ADMIN_….
    (0..words.len()).any(|at| match words.get(at..).unwrap_or_default() {
        ["PORT"] | ["SERVICE", "HOST"] | ["SERVICE", "PORT", ..] => true,
        ["PORT", number, "TCP" | "UDP" | "SCTP", part @ ..] => {
            number.parse::<u16>().is_ok() && matches!(part, [] | ["PROTO" | "PORT" | "ADDR"])
        }
        _ => false,
    })
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
