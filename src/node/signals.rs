//! The signals that end a node, and the one that has it look at its files.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT, listened for from the start on.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Only under a supervisor: else it means that the terminal is gone, and ends
    /// the process.
    hangup: Option<Signal>,
}

impl Signals {
    pub(super) fn listen(supervised: bool) -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: supervised.then(|| signal(SignalKind::hangup())).transpose()?,
        })
    }

    /// Waits for the one that asks for an end (true), or for files to be looked
    /// at (false). Cancel safe.
    pub(super) async fn first(&mut self) -> bool {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => drop(hangup.recv().await),
                None => std::future::pending().await,
            }
        };
        let name = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            () = hangup => return false,
        };
        tracing::info!(signal = name, "ending: readiness goes down, sessions are told");
        true
    }

    /// Waits for the one that does not want to wait.
    pub(super) async fn second(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
