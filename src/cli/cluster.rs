//! `simpul cluster`: many nodes, looked at and moved about.

mod drain;
mod local;
mod status;
mod view;
mod watch;

use clap::{Args, Subcommand};

use super::env::Env;
use super::exit::Exit;
use super::failure::Failure;

/// Look at a cluster, empty a node, or try three nodes on this machine
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  simpul cluster local --nodes 3\n  \
    simpul cluster status --as alice --role operator\n  \
    simpul cluster status --watch --server a:7443,b:7443 --token-file token\n  \
    simpul cluster drain n2 --as alice --role operator")]
pub struct ClusterCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Status(status::StatusCommand),
    Drain(drain::Drain),
    Local(local::Local),
}

impl ClusterCommand {
    /// Whether it shows changes as they come.
    pub fn watches(&self) -> bool {
        matches!(&self.command, Command::Status(status) if status.watch)
    }

    /// Runs the chosen one.
    pub async fn run(self, env: &Env) -> Result<Exit, Failure> {
        match self.command {
            Command::Status(command) => command.run(env).await,
            Command::Drain(command) => command.run(env).await,
            Command::Local(command) => command.run(env).await,
        }
    }
}
