//! `simpul backup`: a consistent copy of the store, while the node runs.

use std::path::PathBuf;

use clap::Args;
use secrecy::ExposeSecret;
use serde_json::json;

use super::configuration;
use super::env::Env;
use super::exit::Exit;
use super::failure::Failure;
use super::target::data_dir;
use crate::store::backup::{BackupError, Report, backup, backup_store};
use crate::store::location::{self, Location};

/// Copy the store, also while the node runs
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  simpul backup /backup/2026-01-31\n\n\
    The copy has payments, ledger and rooms; not certificates, keys and tokens.")]
pub struct Backup {
    /// Where to; must not exist
    #[arg(value_name = "DIR")]
    to: PathBuf,
}

impl Backup {
    /// Copies and says what.
    pub async fn run(self, env: &Env) -> Result<Exit, Failure> {
        let dir = data_dir(&env.global);
        let store = configuration::load(&env.global, &[])
            .ok()
            .and_then(|loaded| location::of(loaded.config.store.url.expose_secret(), &dir).ok());
        let report = match store {
            Some(Location::Postgres) => {
                return Err(Failure::usage(
                    "the store is a database server's, and so are its copies (pg_basebackup)",
                ));
            }
            Some(Location::Sqlite(store)) => backup_store(&store, &dir, &self.to).await,
            None => backup(&dir, &self.to).await,
        };
        show(env, "backed up to", &report.map_err(refuse)?)
    }
}

/// Prints what was copied.
pub fn show(env: &Env, done: &str, report: &Report) -> Result<Exit, Failure> {
    let json = serde_json::to_value(report).unwrap_or_else(|_| json!({}));
    env.output.say(&json, || text_of(done, report))?;
    Ok(Exit::Done)
}

fn text_of(done: &str, report: &Report) -> String {
    let files: Vec<String> = report
        .files
        .iter()
        .map(|file| format!("  {}  {} bytes  sha256 {}", file.name, file.bytes, file.sha256))
        .collect();
    format!("{done} {}\n{}", report.path.display(), files.join("\n"))
}

/// The class of each way in which it fails: wrong places are usage, a backup
/// that is not sound is refused, what the machine does not let us do is
/// unavailable.
pub fn refuse(error: BackupError) -> Failure {
    let exit = match &error {
        BackupError::Exists(_) | BackupError::NoStore(_) | BackupError::NotEmpty(_) => Exit::Usage,
        BackupError::Running(_) => Exit::Unavailable,
        BackupError::NotABackup { .. } | BackupError::Damaged { .. } | BackupError::Unsound(_) => {
            Exit::Refused
        }
        BackupError::Store(_) | BackupError::DataDir(_) | BackupError::Io { .. } => {
            Exit::Unavailable
        }
    };
    Failure::new(exit, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_class() {
        for (error, exit) in [
            (BackupError::Exists("a".into()), Exit::Usage),
            (BackupError::Running("a".into()), Exit::Unavailable),
            (BackupError::Unsound(vec!["x".into()]), Exit::Refused),
        ] {
            assert_eq!(refuse(error).exit(), exit);
        }
    }

    #[test]
    fn the_report_is_one_object() {
        let report = Report { path: "b".into(), made_at: "t".into(), files: Vec::new() };
        let json: serde_json::Value = serde_json::to_value(&report).expect("an object");
        assert_eq!(json, json!({"path": "b", "made_at": "t", "files": []}));
    }
}
