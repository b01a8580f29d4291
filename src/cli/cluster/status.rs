//! `simpul cluster status`: nodes, links and partitions as one node sees them.

use std::time::Duration;

use clap::Args;
use tonic::{Code, Request};

use super::view::cluster_text;
use super::watch::{Changes, Paper, problems, screen};
use crate::cli::env::Env;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::client::patience::Patience;
use crate::cluster::service::json;
use crate::proto::cluster::v1::{Cluster, GetClusterRequest, WatchClusterRequest};

/// Show the nodes, their links and who owns what; for operators
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  simpul cluster status --as alice --role operator\n  \
    simpul cluster status --watch --as alice --role operator")]
pub(super) struct StatusCommand {
    /// Go on: a screen that is redrawn in a terminal; otherwise an object a line,
    /// or with `-o text` the tables again and again
    #[arg(long, short)]
    pub(super) watch: bool,
}

impl StatusCommand {
    /// Asks and prints.
    pub(super) async fn run(self, env: &Env) -> Result<Exit, Failure> {
        if self.watch {
            return watch(env).await;
        }
        let client = env.connect().await?;
        let answer = client.cluster().get_cluster(client.unary(GetClusterRequest {})).await?;
        let cluster = answer.into_inner().cluster.unwrap_or_default();
        let wrong = problems(&cluster, &Changes::default());
        env.output.say(&json::cluster(&cluster), || cluster_text(&cluster, &wrong))?;
        Ok(Exit::Done)
    }
}

/// Shows each state of the cluster, over lost connections.
async fn watch(env: &Env) -> Result<Exit, Failure> {
    let mut patience = Patience::new(Duration::from_secs(30));
    let mut met = false;
    let mut changes = Changes::default();
    loop {
        let before = met;
        met = false;
        let Err(failure) = pass(env, &mut met, &mut changes).await else { return Ok(Exit::Done) };
        if met {
            patience.reset();
        }
        met |= before;
        let lost = failure.exit() == Exit::Unavailable && !failure.is_ours()
            || failure.code() == Some(Code::Cancelled)
            || failure.reason() == Some("TOKEN_EXPIRED");
        // A node that was never there is not waited for.
        if !met || !lost {
            return Err(failure);
        }
        if !env.output.is_json() && env.output.is_terminal() {
            env.output
                .raw("\u{1b}[33mthe connection is lost; trying again\u{1b}[0m\u{1b}[K\u{1b}[A")?;
        }
        if !patience.wait().await {
            return Err(failure);
        }
    }
}

async fn pass(env: &Env, met: &mut bool, changes: &mut Changes) -> Result<(), Failure> {
    let client = env.connect().await?;
    let watched = client.cluster().watch_cluster(Request::new(WatchClusterRequest {})).await?;
    let mut stream = watched.into_inner();
    while let Some(answer) = stream.message().await? {
        *met = true;
        show(env, &answer.cluster.unwrap_or_default(), changes)?;
    }
    // A node that stops ends it: another one goes on.
    Err(Failure::unavailable("the node ended the stream"))
}

fn show(env: &Env, cluster: &Cluster, changes: &mut Changes) -> Result<(), Failure> {
    if !env.output.is_json() && !env.output.is_terminal() && env.output.is_chosen() {
        changes.see(cluster);
        let wrong = problems(cluster, changes);
        return env.output.raw(&format!("{}\n", cluster_text(cluster, &wrong)));
    }
    if env.output.is_json() || !env.output.is_terminal() {
        return env.output.raw(&json::cluster(cluster).to_string());
    }
    let first = changes.is_new();
    changes.see(cluster);
    let drawn = screen(cluster, changes, Paper::of_terminal());
    // What stood there before the first one is pushed up, not written over.
    env.output.raw(&if first { format!("\u{1b}[2J{drawn}") } else { drawn })
}
