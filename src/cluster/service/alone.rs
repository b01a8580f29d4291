//! A node without others.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{ClusterView, shown};
use crate::chat::Partitions;
use crate::clock;
use crate::proto::cluster::v1 as pb;
use crate::refusal::{Reason, Refusal};
use crate::store::ChatStore;
use crate::store::cluster::{NodeInfo, NodeRecord, NodeState};

/// The cluster of a node that shares its store with nobody.
#[derive(Debug)]
pub struct Alone {
    /// The cluster's name.
    pub name: String,
    /// The node.
    pub info: NodeInfo,
    /// Its store.
    pub store: Arc<dyn ChatStore>,
    /// Chat's side of the partitions.
    pub partitions: Arc<dyn Partitions>,
}

#[async_trait]
impl ClusterView for Alone {
    async fn cluster(&self) -> Result<pb::Cluster, Refusal> {
        let partitions = self.store.partition_states().await?;
        let sessions = u32::try_from(self.partitions.sessions()).unwrap_or(u32::MAX);
        let record = NodeRecord {
            info: self.info.clone(),
            state: NodeState::Live,
            beat: 0,
            sessions,
            locked: None,
        };
        let now = clock::micros(clock::Clock::now(&clock::System));
        Ok(pb::Cluster {
            name: self.name.clone(),
            answered_by: self.info.id.clone(),
            observed_at: Some(clock::timestamp(now)),
            nodes: vec![shown::node(&record, Duration::ZERO, &partitions)],
            links: Vec::new(),
            partitions: partitions.iter().map(shown::partition).collect(),
        })
    }

    async fn drain(&self, node: &str) -> Result<(), Refusal> {
        match node == self.info.id {
            true => Err(Refusal::new(
                Reason::NoOtherNode,
                "the node is alone: there is none to which its work could go",
            )),
            false => Err(Refusal::new(Reason::NotFound, "there is no such node")),
        }
    }
}
