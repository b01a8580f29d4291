//! The flags that every command takes: where the node is, who calls, how
//! results look.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::output::Format;
use crate::principal::Role;

const NODE: &str = "Which node";
const CALLER: &str = "Who calls";
const CONFIGURATION: &str = "Configuration";

/// Flags before or after the command's name.
#[derive(Debug, Clone, Default, Args)]
pub struct Global {
    /// How results look [default: text]
    #[arg(long, short, global = true, value_enum)]
    pub output: Option<Format>,

    /// The data directory of the local node [env: SIMPUL_DATA_DIR]
    #[arg(long, global = true, value_name = "DIR", help_heading = NODE)]
    pub data_dir: Option<PathBuf>,
    /// A remote node instead of the local one, or several of one cluster with
    /// commas between: the first that answers is taken, another when it goes
    /// [env: SIMPUL_SERVER]
    #[arg(long, global = true, value_name = "HOST:PORT", help_heading = NODE)]
    pub server: Option<String>,
    /// A context of the contexts file (see `simpul context`)
    #[arg(long, global = true, value_name = "NAME", help_heading = NODE)]
    pub context: Option<String>,
    /// The certificate authorities that may vouch for the node, PEM
    #[arg(long, global = true, value_name = "FILE", help_heading = NODE)]
    pub ca: Option<PathBuf>,
    /// The name that the node's certificate must have, when it is not HOST
    #[arg(long, global = true, value_name = "NAME", help_heading = NODE)]
    pub server_name: Option<String>,
    /// How long a call may take; streams that follow have no end
    #[arg(long, global = true, value_name = "TIME", help_heading = NODE,
          value_parser = humantime::parse_duration, default_value = "30s")]
    pub timeout: Duration,

    /// Call as this principal with a token signed by the development key in the
    /// data directory: `[kind/]id`. Example: alice
    #[arg(long = "as", global = true, value_name = "WHO", help_heading = CALLER,
          conflicts_with_all = ["token", "token_file"])]
    pub as_principal: Option<String>,
    /// One more role for `--as`, beside customer and merchant; may be repeated
    #[arg(long = "role", global = true, value_name = "ROLE", help_heading = CALLER)]
    pub roles: Vec<Role>,
    /// A bearer token; other users of the machine can see it: rather use a file
    #[arg(long, global = true, value_name = "JWT", help_heading = CALLER)]
    pub token: Option<String>,
    /// A file that holds a bearer token; read again at each connection
    #[arg(long, global = true, value_name = "FILE", help_heading = CALLER,
          conflicts_with = "token")]
    pub token_file: Option<PathBuf>,
    /// A client certificate chain, PEM
    #[arg(long, global = true, value_name = "FILE", help_heading = CALLER)]
    pub cert: Option<PathBuf>,
    /// The certificate's private key, PEM
    #[arg(long = "cert-key", visible_alias = "key", id = "cert_key", global = true,
          value_name = "FILE", help_heading = CALLER)]
    pub cert_key: Option<PathBuf>,
    /// The user for whom this service acts (it needs the right to delegate)
    #[arg(long, global = true, value_name = "WHO", help_heading = CALLER)]
    pub on_behalf_of: Option<String>,

    /// A configuration file; of several, later ones win
    #[arg(long, global = true, value_name = "FILE", help_heading = CONFIGURATION)]
    pub config: Vec<PathBuf>,
    /// development or production
    #[arg(long, global = true, value_name = "NAME", help_heading = CONFIGURATION)]
    pub profile: Option<String>,
    /// A file of environment variables; development reads .env without it
    #[arg(long, global = true, value_name = "FILE", help_heading = CONFIGURATION)]
    pub env_file: Option<PathBuf>,
    /// One key of the configuration. Example: --set traffic.max_wait=1s
    #[arg(long, global = true, value_name = "KEY=VALUE", help_heading = CONFIGURATION,
          value_parser = key_value)]
    pub set: Vec<(String, String)>,
}

/// Reads `key=value`.
pub fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_needs_a_key_and_may_have_any_value() {
        assert_eq!(key_value("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(key_value("a="), Ok(("a".to_owned(), String::new())));
        assert!(key_value("=b").is_err());
        assert!(key_value("a").is_err());
    }
}
