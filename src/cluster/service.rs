//! `simpul.cluster.v1.ClusterService`: the cluster as its operators see it, and
//! the wish to drain a node.
//!
//! A wish is written into the node's row, so any node takes it for any other;
//! the node sees it with its next beat. A node alone answers with itself.

mod alone;
pub mod json;
mod shown;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::Stream;
use futures_util::stream::unfold;
use tonic::{Request, Response, Status};

use crate::drain;
use crate::id;
use crate::proto::cluster::v1 as pb;
use crate::proto::cluster::v1::cluster_service_server::{ClusterService, ClusterServiceServer};
use crate::refusal::{Refusal, Violations};
use crate::security::audit::AuditSubject;

pub use alone::Alone;
pub use shown::Together;

/// How often a watcher is told.
const EVERY: Duration = Duration::from_secs(1);

/// A node id is all that a request holds.
const MAX_REQUEST: usize = 1024;

/// The cluster, for operators.
#[async_trait]
pub trait ClusterView: Send + Sync + std::fmt::Debug {
    /// As this node sees it.
    async fn cluster(&self) -> Result<pb::Cluster, Refusal>;

    /// Asks a node to drain.
    async fn drain(&self, node: &str) -> Result<(), Refusal>;
}

/// Answers operators.
#[derive(Debug, Clone)]
pub struct ClusterApi {
    view: Arc<dyn ClusterView>,
    drain: drain::Watch,
}

impl ClusterApi {
    /// Over a view; streams end with the drain.
    pub fn new(view: Arc<dyn ClusterView>, drain: drain::Watch) -> Self {
        Self { view, drain }
    }

    /// To be put on the listener.
    pub fn service(self) -> ClusterServiceServer<Self> {
        ClusterServiceServer::new(self).max_decoding_message_size(MAX_REQUEST)
    }
}

type Watched = Pin<Box<dyn Stream<Item = Result<pb::WatchClusterResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ClusterService for ClusterApi {
    async fn get_cluster(
        &self,
        _: Request<pb::GetClusterRequest>,
    ) -> Result<Response<pb::GetClusterResponse>, Status> {
        let cluster = self.view.cluster().await?;
        Ok(Response::new(pb::GetClusterResponse { cluster: Some(cluster) }))
    }

    type WatchClusterStream = Watched;

    async fn watch_cluster(
        &self,
        _: Request<pb::WatchClusterRequest>,
    ) -> Result<Response<Watched>, Status> {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let guard = self.drain.guard();
        let state = Some((self.view.clone(), self.drain.clone(), tick, guard));
        let watched = unfold(state, async |state| {
            let (view, mut drain, mut tick, guard) = state?;
            tokio::select! {
                biased;
                () = drain.graceful() => return None,
                _ = tick.tick() => {}
            }
            match view.cluster().await {
                Ok(cluster) => {
                    let shown = pb::WatchClusterResponse { cluster: Some(cluster) };
                    Some((Ok(shown), Some((view, drain, tick, guard))))
                }
                Err(refusal) => Some((Err(refusal.into()), None)),
            }
        });
        Ok(Response::new(Box::pin(watched)))
    }

    async fn drain_node(
        &self,
        request: Request<pb::DrainNodeRequest>,
    ) -> Result<Response<pb::DrainNodeResponse>, Status> {
        AuditSubject::note(&request, |request| format!("node {}", request.node_id));
        let node = request.into_inner().node_id;
        let mut violations = Violations::new();
        violations.check(id::is_short_name(&node), "node_id", || id::short_name_rule(&node));
        violations.finish()?;
        self.view.drain(&node).await?;
        Ok(Response::new(pb::DrainNodeResponse {}))
    }
}
