//! Puts the chat service together and starts its tasks.

use std::sync::Arc;

use tokio::task::{AbortHandle, JoinHandle};

use super::inspect::Inspector;
use super::metrics::ChatMetrics;
use super::owner::{Committer, Owner, forget, refresh};
use super::stream::{ChatRoute, Streams};
use super::{FrameLimit, Partitions, Peers, RoomsView, Router, follower};
use crate::config::schema;
use crate::readiness::Readiness;
use crate::store::{ChatStore, StoreError};
use crate::{drain, task};

/// The running chat service. Dropping it ends its tasks: what waits for the
/// owner then fails, so it is dropped after the sessions have ended.
#[derive(Debug)]
pub struct Chat {
    owner: Owner,
    streams: Arc<Streams>,
    ordering: JoinHandle<()>,
    /// The others.
    tasks: Vec<AbortHandle>,
}

impl Chat {
    /// Starts. Without `peers` the node is alone: it takes every partition, and
    /// is not ready (`partitions taken`) until that is done, and again while it
    /// has to be repeated. With `peers` it owns nothing until it is told through
    /// [`Chat::partitions`].
    #[allow(clippy::too_many_arguments)] // Called once, by the node, which has them all.
    pub async fn start(
        store: Arc<dyn ChatStore>,
        config: &schema::Chat,
        max_message_bytes: usize,
        node_id: &str,
        metrics: ChatMetrics,
        drain: drain::Watch,
        readiness: &Readiness,
        frame_limit: Option<Arc<dyn FrameLimit>>,
        peers: Option<Arc<dyn Peers>>,
    ) -> Result<Self, StoreError> {
        let alone = peers.is_none();
        let pending = alone.then(|| Committer::pending(readiness));
        let (owner, commands) = Owner::new(store, config, node_id, metrics, peers);
        let shared = owner.shared();
        let committer = Committer::new(shared.clone(), commands, readiness.clone(), node_id);
        let beside = if alone {
            committer.take().await?;
            task::spawn("partition view", refresh(shared.clone()))
        } else {
            task::spawn("followed rooms", follower::care(shared.clone()))
        };
        drop(pending);
        let ordering = task::spawn("room owner", committer.run());
        let tasks = vec![
            beside.abort_handle(),
            task::spawn("old message ids", forget(shared.clone())).abort_handle(),
        ];
        let streams =
            Arc::new(Streams { owner: owner.clone(), max_message_bytes, drain, frame_limit });
        Ok(Self { owner, streams, ordering, tasks })
    }

    /// Waits for the room owner's end, which comes by a panic alone: then nothing
    /// is ordered here any more. Cancel safe; not to be called again afterwards.
    pub async fn failed(&mut self) {
        // It has said why.
        let _ = (&mut self.ordering).await;
    }

    /// What the cluster tells chat. Of use only with peers.
    pub fn partitions(&self) -> Arc<dyn Partitions> {
        Arc::new(self.owner.clone())
    }

    /// Brings proposals to the rooms' owner.
    pub fn router(&self) -> Arc<dyn Router> {
        Arc::new(self.owner.clone())
    }

    /// Looks at what is in memory.
    pub fn inspector(&self) -> Inspector {
        Inspector::new(self.owner.clone())
    }

    /// Reads memberships as they are committed.
    pub fn view(&self) -> Arc<dyn RoomsView> {
        Arc::new(self.owner.clone())
    }

    /// Serves `Chat` and passes everything else to `inner`.
    pub fn route<S>(&self, inner: S) -> ChatRoute<S> {
        ChatRoute::new(inner, self.streams.clone())
    }

    #[cfg(test)]
    pub(crate) fn streams(&self) -> &Streams {
        &self.streams
    }

    #[cfg(test)]
    pub(crate) fn owner(&self) -> &Owner {
        &self.owner
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        self.ordering.abort();
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}
