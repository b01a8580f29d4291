//! What runs beside the owner's task: confirming the view, forgetting keys,
//! erasing what deleted rooms left.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Shared, now};
use crate::clock::{self, Clock, System};
use crate::store::StoreError;

/// How often the view is confirmed; a third of what it may be old.
const CONFIRM: Duration = Duration::from_millis(300);

/// How often old keys, and deleted rooms that were not erased, are looked for.
const FORGET: Duration = Duration::from_secs(600);

/// How many keys are forgotten in one write.
const KEYS: u32 = 1000;

/// How many rows of a deleted room are erased in one write: other commits wait
/// for it, and each row may be a body of the largest size.
const ROWS: u32 = 256;

/// Confirms the view of the partitions for ever.
pub(crate) async fn refresh(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(CONFIRM);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        confirm(&shared).await;
    }
}

/// Confirms it once, and wakes readers who had to stop.
pub(crate) async fn confirm(shared: &Shared) {
    let began = now();
    match shared.store.partition_states().await {
        Ok(states) => shared.view.confirm(&states, began),
        // Readers stop when the view is too old; they are woken when it is not.
        Err(error) => {
            tracing::warn!(%error, "the ownership of rooms could not be confirmed");
            return;
        }
    }
    shared.wake_halted();
}

/// Forgets what is not kept any longer, for ever.
pub(crate) async fn forget(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(FORGET);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if let Err(error) = forget_keys(&shared, System.now()).await {
            tracing::warn!(%error, "old client message ids could not be forgotten");
        }
        if let Err(error) = erase(&shared).await {
            tracing::warn!(%error, "deleted rooms could not be erased");
        }
    }
}

/// Forgets client message ids that are older than they are kept.
pub(crate) async fn forget_keys(shared: &Shared, now: SystemTime) -> Result<(), StoreError> {
    let kept = shared.config.client_message_id_kept;
    let Some(before) = now.checked_sub(kept) else { return Ok(()) };
    while shared.store.forget_keys(clock::micros(before), KEYS).await? >= u64::from(KEYS) {}
    Ok(())
}

/// Erases what deleted rooms left. Between two slices others commit.
pub(crate) async fn erase(shared: &Shared) -> Result<(), StoreError> {
    while shared.store.erase_deleted(ROWS).await? > 0 {}
    Ok(())
}
