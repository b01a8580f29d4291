//! Named nodes in a file: `$XDG_CONFIG_HOME/simpul/contexts.toml`. It names
//! files with secrets, never the secrets.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::failure::Failure;

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The context of commands that name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// Every context by its name.
    #[serde(default)]
    pub context: BTreeMap<String, Context>,
}

/// One node and how to call it. What is absent is as without a context.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// `HOST:PORT`, or several of one cluster with commas between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// The name that the node's certificate must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Who vouches for the node, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The client's certificate chain, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// A file with a bearer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// The data directory of a local node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// The principal of `--as`.
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    pub as_principal: Option<String>,
}

impl File {
    /// Reads it; one that is not there is empty.
    pub fn read() -> Result<Self, Failure> {
        let Some(path) = path() else { return Ok(Self::default()) };
        match std::fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text).map_err(|error| {
                Failure::usage(format!("{}: {}", path.display(), error.message()))
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Failure::usage(format!("cannot read {}: {error}", path.display()))),
        }
    }

    /// Writes it whole, by a rename, so that no reader sees half of it.
    pub fn write(&self) -> Result<(), Failure> {
        let path =
            path().ok_or_else(|| Failure::usage("neither XDG_CONFIG_HOME nor HOME is set"))?;
        let text = toml::to_string_pretty(self)
            .map_err(|error| Failure::usage(format!("cannot write the contexts: {error}")))?;
        let wrong = |error| Failure::usage(format!("cannot write {}: {error}", path.display()));
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(wrong)?;
        }
        let beside = path.with_extension(format!("toml.{}", std::process::id()));
        std::fs::write(&beside, text).map_err(wrong)?;
        std::fs::rename(&beside, &path).map_err(wrong)
    }

    /// The current context, if there is one.
    pub fn take_current(mut self) -> Option<Context> {
        self.context.remove(self.current.as_ref()?)
    }
}

/// Where the file is; nowhere without a home.
pub fn path() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
    Some(base.join("simpul").join("contexts.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_reads_back_what_it_wrote() {
        let context = Context {
            server: Some("a.example:7443".into()),
            as_principal: Some("alice".into()),
            ..Context::default()
        };
        let file = File {
            current: Some("a".into()),
            context: BTreeMap::from([("a".to_owned(), context.clone())]),
        };
        let text = toml::to_string_pretty(&file).expect("written");
        assert_eq!(
            text,
            "current = \"a\"\n\n[context.a]\nserver = \"a.example:7443\"\nas = \"alice\"\n"
        );
        let back: File = toml::from_str(&text).expect("read");
        assert_eq!(back, file);
        assert_eq!(back.take_current(), Some(context));
    }

    #[test]
    fn a_secret_has_no_place_in_it() {
        assert!(toml::from_str::<File>("[context.a]\ntoken = \"x\"").is_err());
    }
}
