//! `simpul debug`: a look into running nodes, for operators.

mod bundle;
mod log_level;
mod nodes;
mod profile;

use clap::{Args, Subcommand};

use super::env::Env;
use super::exit::Exit;
use super::failure::Failure;

/// Look into running nodes: bundles, log levels, profiles; for operators
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  simpul debug bundle --as ana --role operator\n  \
    simpul debug bundle --all --out incident.tar.gz --as ana --role operator\n  \
    simpul debug log-level info,simpul::chat=debug --for 10m --as ana --role operator\n  \
    simpul debug profile --seconds 10 --out profile.pb.gz --as ana --role operator")]
pub struct Debug {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bundle(bundle::Bundle),
    LogLevel(log_level::LogLevel),
    Profile(profile::Profile),
}

impl Debug {
    /// Runs the chosen one.
    pub async fn run(self, env: &Env) -> Result<Exit, Failure> {
        match self.command {
            Command::Bundle(command) => command.run(env).await,
            Command::LogLevel(command) => command.run(env).await,
            Command::Profile(command) => command.run(env).await,
        }
    }
}
