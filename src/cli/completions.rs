//! `simpul completions`: a script for a shell.

use clap::Args;
use clap_complete::Shell;

use super::env::Env;
use super::exit::Exit;
use super::failure::Failure;

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  simpul completions bash > /etc/bash_completion.d/simpul")]
pub struct Completions {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

impl Completions {
    /// Prints it; the same in both formats.
    pub fn run(self, env: &Env) -> Result<Exit, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::command(), "simpul", &mut script);
        env.output.raw(String::from_utf8_lossy(&script).trim_end())?;
        Ok(Exit::Done)
    }
}
