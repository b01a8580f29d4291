//! What every command is given: the flags and where results go.

use super::args::Global;
use super::failure::Failure;
use super::output::Output;
use super::target::Target;
use crate::client::Client;

/// The surroundings of one command.
#[derive(Debug, Clone)]
pub struct Env {
    /// The flags.
    pub global: Global,
    /// Where results go.
    pub output: Output,
}

impl Env {
    /// Connects to the node that the flags name.
    pub async fn connect(&self) -> Result<Client, Failure> {
        Target::resolve(&self.global)?.connect().await
    }
}
