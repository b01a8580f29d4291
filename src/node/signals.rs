//! The signals that end a node, and the one that has it look at its files.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT, listened for from the start on: from then on somebody must
/// read them, for the system does nothing by itself any more.
#[derive(Debug)]
pub(super) struct Signals {
    ends: Ends,
    /// Only under a supervisor: else it means that the terminal is gone, and ends
    /// the process.
    hangup: Option<Signal>,
}

#[derive(Debug)]
struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// An end.
    End,
    /// A look at the files.
    Look,
}

impl Signals {
    pub(super) fn listen(supervised: bool) -> io::Result<Self> {
        let ends = Ends {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        };
        let hangup = supervised.then(|| signal(SignalKind::hangup())).transpose()?;
        Ok(Self { ends, hangup })
    }

    /// Waits for the next one. Cancel safe.
    pub(super) async fn first(&mut self) -> Asked {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => drop(hangup.recv().await),
                None => std::future::pending().await,
            }
        };
        let name = tokio::select! {
            name = self.ends.next() => name,
            () = hangup => return Asked::Look,
        };
        tell(name);
        Asked::End
    }

    /// Waits for the one that asks for an end; others wait for
    /// [`first`](Self::first). Cancel safe.
    pub(super) async fn end(&mut self) {
        tell(self.ends.next().await);
    }

    /// Waits for the one that does not want to wait. Cancel safe.
    pub(super) async fn second(&mut self) {
        self.ends.next().await;
        tracing::warn!("another signal: ending at once");
    }
}

impl Ends {
    /// Its name. Cancel safe.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

fn tell(name: &str) {
    tracing::info!(signal = name, "ending: readiness goes down, sessions are told");
}
