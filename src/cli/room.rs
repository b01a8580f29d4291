//! `simpul room`: rooms and who is in them.

mod manage;
mod members;

use clap::{Args, Subcommand};

use super::env::Env;
use super::exit::Exit;
use super::failure::Failure;

/// Rooms and their members
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  simpul room create lobby --as alice\n  \
    simpul room add lobby bob --as alice\n  simpul room add lobby toko reader --as alice")]
pub struct Room {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(manage::Create),
    Get(manage::Get),
    List(manage::List),
    Update(manage::Update),
    Delete(manage::Delete),
    Members(members::Members),
    Add(members::Add),
    Remove(members::Remove),
    Leave(members::Leave),
    Role(members::Role),
}

impl Room {
    /// Runs the chosen one.
    pub async fn run(self, env: &Env) -> Result<Exit, Failure> {
        match self.command {
            Command::Create(command) => command.run(env).await,
            Command::Get(command) => command.run(env).await,
            Command::List(command) => command.run(env).await,
            Command::Update(command) => command.run(env).await,
            Command::Delete(command) => command.run(env).await,
            Command::Members(command) => command.run(env).await,
            Command::Add(command) => command.run(env).await,
            Command::Remove(command) => command.run(env).await,
            Command::Leave(command) => command.run(env).await,
            Command::Role(command) => command.run(env).await,
        }
    }
}
