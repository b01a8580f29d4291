//! One node of a cluster by its name, what it gives, and where that is written.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use clap::Args;
use tonic::Streaming;

use crate::cli::env::Env;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::target::Target;
use crate::client::Client;
use crate::proto::cluster::v1::{GetClusterRequest, Node, NodeState};

/// Which node.
#[derive(Debug, Args)]
pub(super) struct Chosen {
    /// Another node of the cluster by its name, at the address that the cluster
    /// knows of it; without, the one that answers. Needed where --server names
    /// several
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
}

impl Chosen {
    /// Connects to it.
    pub(super) async fn connect(&self, env: &Env) -> Result<Client, Failure> {
        if self.node.is_none() {
            Target::resolve(&env.global)?.only_one("--node")?;
        }
        let client = env.connect().await?;
        let Some(name) = &self.node else { return Ok(client) };
        let nodes = running(&client).await?;
        let missing = || Failure::new(Exit::Refused, "there is no such running node");
        let node = nodes.iter().find(|node| node.node_id == *name).ok_or_else(missing)?;
        reach(env, node).await
    }
}

/// The nodes that run, as the one that answers sees them.
pub(super) async fn running(client: &Client) -> Result<Vec<Node>, Failure> {
    let answer = client.cluster().get_cluster(client.unary(GetClusterRequest {})).await?;
    let nodes = answer.into_inner().cluster.unwrap_or_default().nodes;
    let runs = |node: &Node| matches!(node.state(), NodeState::Live | NodeState::Draining);
    Ok(nodes.into_iter().filter(runs).collect())
}

/// Connects to a node at the address that it gave.
pub(super) async fn reach(env: &Env, node: &Node) -> Result<Client, Failure> {
    if node.public_address.is_empty() {
        return Err(Failure::unavailable("the node does not say where it is reached")
            .hint("set node.advertise_public"));
    }
    let target = Target::resolve(&env.global)?;
    let address = crate::client::servers::parse(&node.public_address)?;
    let token = target.credential.token()?;
    target.connect_to(&address, token.as_ref()).await
}

/// All chunks that a node sends, when they are no more than the largest number of
/// bytes that the thing can have.
pub(super) async fn take<T>(
    mut stream: Streaming<T>,
    chunk: fn(T) -> Vec<u8>,
    largest: usize,
    thing: &str,
) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    while let Some(part) = stream.message().await? {
        bytes.extend(chunk(part));
        if bytes.len() > largest {
            let message = format!("the node sends more than a {thing} can be");
            return Err(Failure::unavailable(message));
        }
    }
    Ok(bytes)
}

/// Writes a new file that its owner alone may read, or standard output for `-`.
pub(super) fn write(out: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if out.as_os_str() == "-" {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(bytes)?;
        return Ok(stdout.flush()?);
    }
    let mut options = std::fs::OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(0o600).open(out);
    let written = opened.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    written.map_err(|error| Failure::usage(format!("{}: {error}", out.display())))
}
