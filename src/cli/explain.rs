//! `simpul explain`: the life of one message or one payment.

mod message;
mod payment;

use clap::{Args, Subcommand};

use super::env::Env;
use super::exit::Exit;
use super::failure::Failure;

/// Tell the life of one message or payment; for support, auditors and operators
#[derive(Debug, Args)]
#[command(
    after_help = "What was written is not shown, only how long it is. Each call is recorded \
    in the node's audit log.\n\nExamples:\n  simpul explain message lobby 3 --as ana --role support\n  \
    simpul explain message lobby m-17 --sender alice --as ana --role support\n  \
    simpul explain payment 0199aa00-5c1b-7e33-8a56-0d5c5b8f4a01 --as ana --role auditor\n  \
    simpul explain payment order-77 --account alice --as ana --role operator"
)]
pub struct Explain {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Message(message::Message),
    Payment(payment::Payment),
}

impl Explain {
    /// Runs the chosen one.
    pub async fn run(self, env: &Env) -> Result<Exit, Failure> {
        match self.command {
            Command::Message(command) => command.run(env).await,
            Command::Payment(command) => command.run(env).await,
        }
    }
}
