//! `simpul cluster local`: a cluster on this machine with nothing installed.
//!
//! Each node is a process of this very binary with a data directory of its own;
//! they share one SQLite file and one development authority. A conversation
//! goes on across them, each speaker on another node, and shows that killing
//! any of them loses nothing. It is a demonstration: one machine, one disk.

mod child;
mod demo;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::env::Env;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::target::data_dir;
use crate::security::development;
use child::Child;
use demo::Demo;

/// Run a few nodes over one SQLite file, with a chat across them
#[derive(Debug, Args)]
#[command(after_help = "Kill any of its nodes and see that nothing is lost; ctrl-c ends them \
    all.\n\nExamples:\n  simpul cluster local --nodes 3\n  \
    simpul cluster local --nodes 3 --quiet --data-dir /tmp/three")]
pub(super) struct Local {
    /// How many nodes
    #[arg(long, short, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u8).range(2..=9))]
    nodes: u8,
    /// Do not chat: only run the nodes
    #[arg(long, short)]
    quiet: bool,
}

impl Local {
    /// Starts the nodes, talks across them, ends with ctrl-c.
    pub(super) async fn run(self, env: &Env) -> Result<Exit, Failure> {
        let home = prepare(&data_dir(&env.global), self.nodes)?;
        let mut ends = Ends::listen()?;
        let mut children = Vec::new();
        let ended = tokio::select! {
            biased;
            () = ends.told() => Ok(()),
            ended = self.serve(env, &home, &mut children) => ended,
        };
        let told = child::end_all(env, &mut children, &mut ends).await;
        ended.and(told).map(|()| Exit::Done)
    }

    /// Starts the nodes, then keeps them and the conversation going.
    async fn serve(
        &self,
        env: &Env,
        home: &Path,
        children: &mut Vec<Child>,
    ) -> Result<(), Failure> {
        // The first one alone: it makes what all share.
        children.push(Child::start(env, home, 1)?);
        for number in 2..=self.nodes {
            ready(env, children).await?;
            children.push(Child::start(env, home, number)?);
        }
        ready(env, children).await?;
        converse(env, children, self.quiet).await
    }
}

/// Waits for the nodes that are not known to be ready.
async fn ready(env: &Env, children: &mut [Child]) -> Result<(), Failure> {
    for child in children.iter_mut().filter(|child| child.address().is_none()) {
        child.wait_ready().await?;
        child.tell(env, "ready")?;
    }
    Ok(())
}

/// Talks across the nodes, and starts again whichever ends.
async fn converse(env: &Env, children: &mut [Child], quiet: bool) -> Result<(), Failure> {
    let mut demo = Demo::start(env, children).await?;
    introduce(env, children)?;
    let mut looks = tokio::time::interval(Duration::from_millis(100));
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut says = tokio::time::interval(Duration::from_secs(1));
    says.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            event = demo.next() => demo.event(env, event).await?,
            _ = looks.tick() => {
                for child in children.iter_mut() {
                    if child.revive(env)? {
                        demo.moved(child).await;
                    }
                }
                demo.report(env)?;
            }
            _ = says.tick(), if !quiet => demo.say().await,
        }
    }
}

/// The folder of the nodes, with the authority that they share.
fn prepare(data_dir: &Path, nodes: u8) -> Result<PathBuf, Failure> {
    let home = data_dir.join("local");
    let absolute = std::path::absolute(&home).map_err(|error| unusable(&home, &error))?;
    development::ensure(&absolute, None, SystemTime::now())
        .map_err(|error| Failure::usage(error.to_string()))?;
    for number in 1..=nodes {
        let dir = absolute.join(format!("n{number}"));
        development::share(&absolute, &dir).map_err(|error| Failure::usage(error.to_string()))?;
    }
    Ok(absolute)
}

fn unusable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::usage(format!("cannot use {}: {error}", path.display()))
}

/// How to take part.
fn introduce(env: &Env, children: &[Child]) -> Result<(), Failure> {
    let (Some(first), Some(last)) = (children.first(), children.last()) else { return Ok(()) };
    let dir = first.dir().display();
    env.output.note(&format!(
        "\nTake part, in another terminal:\n  simpul chat lobby --as alice --data-dir {dir}\n  \
         simpul cluster status --watch --as alice --role operator --data-dir {dir}\n\
         Kill a node:\n  kill -9 {}\nctrl-c ends them all.\n",
        last.pid()
    ))
}

/// What ends the command: ctrl-c, SIGTERM, or a terminal that is closed.
#[derive(Debug)]
struct Ends {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

impl Ends {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::unavailable(format!("no signals: {error}")))
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one. Cancel safe.
    async fn told(&mut self) {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

/// A line about the nodes: for people on stdout, an object for scripts.
fn say(env: &Env, kind: &str, node: &str, text: &str) -> Result<(), Failure> {
    let json = json!({"type": kind, "node": node, "text": text});
    env.output.say(&json, || format!("* {node} {text}"))
}
