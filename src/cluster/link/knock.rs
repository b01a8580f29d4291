//! Whether the other nodes and this one believe each other's certificates, found
//! out before this one takes part.
//!
//! Who proves to be of the cluster is decided in the handshake. A node that no
//! other one lets in could still read and write the store that they share: it
//! would be given partitions, and nobody could reach it but through the store.

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::network::{DialError, Dialed, Network};
use crate::cluster::driver::Distrust;
use crate::store::cluster::NodeInfo;

/// How long all of it may take. Who has not said anything by then proves
/// nothing.
const PATIENCE: Duration = Duration::from_secs(3);

/// What begins HTTP/2, and empty settings: the other side answers with its own,
/// once it has looked at this node's certificate.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// What a node said.
#[derive(Debug)]
enum Answer {
    /// It let this one in.
    In,
    /// One of the two does not believe the other, for this reason.
    Refused(String),
    /// Nothing that tells.
    Nothing,
}

/// The nodes that do not let this one in, or that this one does not believe; none
/// of them when at least one lets it in. Who cannot be reached says nothing. Cancel
/// safe.
pub(super) async fn distrust(network: &dyn Network, nodes: &[NodeInfo]) -> Vec<Distrust> {
    let asked: FuturesUnordered<_> =
        nodes.iter().map(async |node| (&node.id, knock(network, node).await)).collect();
    let mut asked = pin!(asked);
    let mut refused = Vec::new();
    let all = timeout(PATIENCE, async {
        while let Some((node, answer)) = asked.next().await {
            match answer {
                Answer::In => return true,
                Answer::Refused(why) => refused.push(Distrust { node: node.clone(), why }),
                Answer::Nothing => {}
            }
        }
        false
    });
    let believed = all.await.unwrap_or(false);
    if believed { Vec::new() } else { refused }
}

async fn knock(network: &dyn Network, node: &NodeInfo) -> Answer {
    let Dialed { mut stream, verdict, .. } = match network.dial(&node.id, &node.mesh_address).await
    {
        Ok(dialed) => dialed,
        Err(DialError::Identity(why)) => return Answer::Refused(why),
        Err(DialError::Refused(_) | DialError::Failed(_)) => return Answer::Nothing,
    };
    let mut first = [0];
    let answered = async {
        stream.write_all(PREFACE).await?;
        stream.flush().await?;
        stream.read_exact(&mut first).await
    };
    let answered = answered.await.is_ok();
    match verdict.refused() {
        Some(said) => Answer::Refused(format!("it refuses this node's certificate: {said}")),
        None if answered => Answer::In,
        None => Answer::Nothing,
    }
}
