//! Saying that this node lives: a task of its own, so that nothing slow delays
//! a beat.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::chat::Partitions;
use crate::clock;
use crate::store::ClusterStore;
use crate::store::cluster::NodeState;

/// How often.
pub(super) const EVERY: Duration = Duration::from_millis(500);

/// How long one may take; the next is tried then.
const DEADLINE: Duration = Duration::from_secs(1);

/// What the beats have shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pulse {
    /// The row's state; `None` once the incarnation was declared dead.
    pub(super) state: Option<NodeState>,
    /// When the newest beat that reached the store began, boot clock.
    pub(super) good: Duration,
}

/// Beats until the incarnation is dead.
pub(super) async fn beat(
    store: Arc<dyn ClusterStore>,
    partitions: Arc<dyn Partitions>,
    id: String,
    incarnation: String,
    tell: watch::Sender<Pulse>,
) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let began = clock::since_boot();
        let sessions = u32::try_from(partitions.sessions()).unwrap_or(u32::MAX);
        match timeout(DEADLINE, store.beat(&id, &incarnation, sessions)).await {
            Ok(Ok(state)) => {
                tell.send_replace(Pulse { state, good: began });
                if state.is_none() {
                    return;
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "a beat did not reach the store"),
            Err(_) => tracing::warn!("a beat did not reach the store in time"),
        }
    }
}
