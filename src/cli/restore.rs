//! `simpul restore`: a backup becomes an empty data directory's store.

use std::path::PathBuf;

use clap::Args;

use super::backup::{refuse, show};
use super::env::Env;
use super::exit::Exit;
use super::failure::Failure;
use super::target::data_dir;
use crate::store::backup::restore;

/// Make an empty data directory from a backup
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  simpul restore /backup/2026-01-31 --data-dir new-data")]
pub struct Restore {
    /// The backup
    #[arg(value_name = "DIR")]
    from: PathBuf,
}

impl Restore {
    /// Checks, copies, says what.
    pub async fn run(self, env: &Env) -> Result<Exit, Failure> {
        let report = restore(&self.from, &data_dir(&env.global)).await.map_err(refuse)?;
        show(env, "restored to", &report)
    }
}
