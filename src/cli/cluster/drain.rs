//! `simpul cluster drain`: work away from a node, before it is stopped.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::cli::env::Env;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::complain;
use crate::cli::target::Target;
use crate::client::Client;
use crate::client::patience::Patience;
use crate::cluster::service::json::state;
use crate::proto::cluster::v1::{Cluster, DrainNodeRequest, GetClusterRequest, Node, NodeState};

/// How often it looks how far the node is.
const LOOK: Duration = Duration::from_millis(500);

/// Have a node hand over what it owns and send its clients away; for operators
#[derive(Debug, Args)]
#[command(after_help = "The node runs on, without work, until it is stopped; it takes part again \
    when it is started anew.\n\nExamples:\n  simpul cluster drain --as alice --role operator\n  \
    simpul cluster drain n2 --no-wait --as alice --role operator")]
pub(super) struct Drain {
    /// The node; the one that answers when left out, where --server names one
    #[arg(value_name = "NODE")]
    node: Option<String>,
    /// Do not wait until it has no partitions and no sessions
    #[arg(long)]
    no_wait: bool,
}

impl Drain {
    /// Tells the node, and waits until it is empty.
    pub(super) async fn run(self, env: &Env) -> Result<Exit, Failure> {
        if self.node.is_none() {
            Target::resolve(&env.global)?.only_one("NODE")?;
        }
        let mut client = env.connect().await?;
        let cluster = look(&client).await?;
        let name = self.node.unwrap_or_else(|| cluster.answered_by.clone());
        let request = DrainNodeRequest { node_id: name.clone() };
        client.cluster().drain_node(client.unary(request)).await?;
        if self.no_wait {
            return told(env, &name, "draining");
        }
        let mut patience = Patience::new(Duration::from_secs(30));
        let mut shown = (u32::MAX, u32::MAX);
        loop {
            match look(&client).await {
                Ok(cluster) => {
                    patience.reset();
                    let node = cluster.nodes.iter().find(|node| node.node_id == name);
                    if node.is_none_or(is_empty) {
                        return told(env, &name, "drained");
                    }
                    if let Some(node) = node {
                        shown = progress(env, node, shown);
                    }
                    tokio::time::sleep(LOOK).await;
                }
                // The node that answered may be the one that goes.
                Err(failure) if failure.exit() == Exit::Unavailable => {
                    if !patience.wait().await {
                        return Err(failure.with_exit(Exit::Unknown));
                    }
                    if let Ok(again) = env.connect().await {
                        client = again;
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
    }
}

async fn look(client: &Client) -> Result<Cluster, Failure> {
    let request = client.unary(GetClusterRequest {});
    let answer = client.cluster().get_cluster(request).await?;
    Ok(answer.into_inner().cluster.unwrap_or_default())
}

/// Whether nothing of it is left: by its own word, or because it is gone.
fn is_empty(node: &Node) -> bool {
    match node.state() {
        NodeState::Left | NodeState::Dead => node.partitions == 0,
        NodeState::Draining => node.partitions == 0 && node.sessions == 0,
        NodeState::Live | NodeState::Unspecified => false,
    }
}

/// Says how far it is, for people, when that has changed.
fn progress(env: &Env, node: &Node, shown: (u32, u32)) -> (u32, u32) {
    let now = (node.partitions, node.sessions);
    if now != shown && !env.output.is_json() {
        complain(&format!(
            "* {} is {}: {} partition(s), {} session(s) left",
            node.node_id,
            state(node).to_ascii_lowercase(),
            node.partitions,
            node.sessions
        ));
    }
    now
}

fn told(env: &Env, name: &str, done: &str) -> Result<Exit, Failure> {
    env.output.say(&json!({"node_id": name, "state": done}), || format!("{name} is {done}"))?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_empty_when_it_says_so_or_is_gone() {
        let node = |state: NodeState, partitions, sessions| Node {
            state: state.into(),
            partitions,
            sessions,
            ..Node::default()
        };
        assert!(!is_empty(&node(NodeState::Live, 0, 0)), "it was not told yet");
        assert!(!is_empty(&node(NodeState::Draining, 0, 1)));
        assert!(!is_empty(&node(NodeState::Draining, 1, 0)));
        assert!(is_empty(&node(NodeState::Draining, 0, 0)));
        assert!(is_empty(&node(NodeState::Left, 0, 9)), "its last word about sessions is old");
    }
}
