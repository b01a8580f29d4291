//! `simpul serve`: the node itself.

use std::net::SocketAddr;

use clap::Args;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use super::configuration;
use super::env::Env;
use super::exit::Exit;
use super::failure::Failure;
use crate::node::{Node, StartError};

/// Run the node (what `simpul` alone does too)
#[derive(Debug, Default, Args)]
#[command(after_help = "Examples:\n  simpul serve\n  \
    simpul serve --profile production --config /etc/simpul.toml\n  \
    simpul serve --data-dir /tmp/a --listen-public 127.0.0.1:0 --listen-admin 127.0.0.1:0")]
pub struct Serve {
    /// Where clients connect; port 0 takes any free one (listen.public)
    #[arg(long, value_name = "ADDRESS")]
    listen_public: Option<SocketAddr>,
    /// Where probes connect (listen.admin)
    #[arg(long, value_name = "ADDRESS")]
    listen_admin: Option<SocketAddr>,
    /// The process that started it: the node ends when that is gone
    #[arg(long, value_name = "PID", hide = true)]
    child_of: Option<i32>,
}

impl Serve {
    /// Loads the configuration, binds, runs until it is told to stop. Everything
    /// that is wrong is said before anything is bound.
    pub async fn run(self, env: &Env) -> Result<Exit, Failure> {
        if let Some(parent) = self.child_of {
            end_with(parent)?;
        }
        let mut flags = Vec::new();
        for (key, address) in
            [("listen.public", self.listen_public), ("listen.admin", self.listen_admin)]
        {
            flags.extend(address.map(|address| (key, address.to_string())));
        }
        let loaded = configuration::load(&env.global, &flags)
            .map_err(|problems| configuration::refuse(&problems))?;
        let bound = Node::bind(loaded).await.map_err(refuse)?;
        bound.run().await.map_err(refuse)?;
        Ok(Exit::Done)
    }
}

/// Has the system tell this process to end when its parent does, however that
/// happens. It belongs to the thread that asks for it, which runs to the end of
/// the process.
fn end_with(parent: i32) -> Result<(), Failure> {
    let failed = |why: String| Failure::unavailable(format!("cannot end with its parent: {why}"));
    set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|error| failed(error.to_string()))?;
    // It may have ended before that.
    match getppid().map(Pid::as_raw_pid) {
        Some(present) if present == parent => Ok(()),
        _ => Err(failed(format!("process {parent} is gone"))),
    }
}

fn refuse(error: StartError) -> Failure {
    let exit =
        if error.exit_code() == Exit::Usage.code() { Exit::Usage } else { Exit::Unavailable };
    Failure::new(exit, error.to_string())
}
