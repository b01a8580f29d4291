//! A node among others: what its driver has read, and how its links are.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::ClusterView;
use crate::clock;
use crate::cluster::driver::{LinkState, Mesh, Seen};
use crate::proto::cluster::v1 as pb;
use crate::refusal::{Reason, Refusal};
use crate::store::ClusterStore;
use crate::store::chat::PartitionState;
use crate::store::cluster::{NodeRecord, NodeState};

/// How often a drain order is tried against a row that changes.
const TRIES: u32 = 4;

/// The cluster of a node that has others.
#[derive(Debug)]
pub struct Together {
    /// The cluster's name.
    pub name: String,
    /// This node's id.
    pub me: String,
    /// What the driver has read.
    pub seen: Arc<Seen>,
    /// The links.
    pub mesh: Arc<dyn Mesh>,
    /// The shared tables.
    pub store: Arc<dyn ClusterStore>,
}

#[async_trait]
impl ClusterView for Together {
    async fn cluster(&self) -> Result<pb::Cluster, Refusal> {
        let picture = self.seen.picture();
        let now = clock::since_boot();
        let nodes = picture.nodes.iter().map(|(record, changed)| {
            node(record, now.saturating_sub(*changed), &picture.partitions)
        });
        Ok(pb::Cluster {
            name: self.name.clone(),
            answered_by: self.me.clone(),
            observed_at: Some(clock::timestamp(picture.observed_at)),
            nodes: nodes.collect(),
            links: self.mesh.links().into_iter().map(link).collect(),
            partitions: picture.partitions.iter().map(partition).collect(),
        })
    }

    async fn drain(&self, node: &str) -> Result<(), Refusal> {
        for _ in 0..TRIES {
            let nodes = self.store.observe().await?.nodes;
            let Some(row) = nodes.iter().find(|row| row.info.id == node && row.state.is_alive())
            else {
                return Err(Refusal::new(Reason::NotFound, "there is no such live node"));
            };
            if row.state == NodeState::Draining {
                return Ok(());
            }
            let other = |row: &NodeRecord| row.info.id != node && row.state == NodeState::Live;
            if !nodes.iter().any(other) {
                return Err(Refusal::new(
                    Reason::NoOtherNode,
                    "no other node is live: there is none to which its work could go",
                ));
            }
            let incarnation = &row.info.incarnation;
            if self.store.set_state(node, incarnation, NodeState::Draining).await? {
                return Ok(());
            }
        }
        Err(Refusal::new(Reason::StoreUnavailable, "the node's row changes all the time")
            .retry_after(Duration::from_secs(1)))
    }
}

pub(super) fn node(
    record: &NodeRecord,
    last_beat: Duration,
    partitions: &[PartitionState],
) -> pb::Node {
    let owned = partitions.iter().filter(|row| row.owner == record.info.id).count();
    let state = match record.state {
        NodeState::Live => pb::NodeState::Live,
        NodeState::Draining => pb::NodeState::Draining,
        NodeState::Left => pb::NodeState::Left,
        NodeState::Dead => pb::NodeState::Dead,
    };
    let info = &record.info;
    pb::Node {
        node_id: info.id.clone(),
        incarnation: info.incarnation.clone(),
        state: state.into(),
        public_address: info.public_address.clone(),
        mesh_address: info.mesh_address.clone(),
        zone: info.zone.clone(),
        release: info.release.clone(),
        beat: record.beat,
        // Of one that is gone the answering node knows only since when it looks.
        last_beat: Some(last_beat)
            .filter(|_| record.state.is_alive())
            .and_then(|age| prost_types::Duration::try_from(age).ok()),
        sessions: record.sessions,
        partitions: u32::try_from(owned).unwrap_or(u32::MAX),
        started_at: Some(clock::timestamp(info.started_at)),
    }
}

pub(super) fn partition(row: &PartitionState) -> pb::Partition {
    pb::Partition {
        partition: u32::from(row.partition),
        owner: row.owner.clone(),
        epoch: row.epoch,
        commit_no: row.commit_no,
    }
}

fn link(state: LinkState) -> pb::Link {
    pb::Link {
        node_id: state.node,
        connections: state.connections,
        round_trip: state.round_trip.and_then(|time| prost_types::Duration::try_from(time).ok()),
        backlog_bytes: state.backlog_bytes,
        problem: state.problem,
    }
}
