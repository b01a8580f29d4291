//! `simpul payment`: payments that exist.

mod act;
mod change;
mod read;

use clap::{Args, Subcommand};

use super::env::Env;
use super::exit::Exit;
use super::failure::Failure;

/// Look at payments, capture, cancel and refund them
#[derive(Debug, Args)]
pub struct Payment {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Get(read::Get),
    List(read::List),
    Watch(read::Watch),
    Act(act::Act),
    Capture(change::Capture),
    Cancel(change::Cancel),
    Refund(change::Refund),
}

impl Payment {
    /// Whether it shows a payment's changes as they come.
    pub fn watches(&self) -> bool {
        matches!(self.command, Command::Watch(_))
    }

    /// Runs the chosen one.
    pub async fn run(self, env: &Env) -> Result<Exit, Failure> {
        match self.command {
            Command::Get(command) => command.run(env).await,
            Command::List(command) => command.run(env).await,
            Command::Watch(command) => command.run(env).await,
            Command::Act(command) => command.run(env).await,
            Command::Capture(command) => command.run(env).await,
            Command::Cancel(command) => command.run(env).await,
            Command::Refund(command) => command.run(env).await,
        }
    }
}
