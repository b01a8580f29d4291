//! What runs beside the owner's task: confirming the view, forgetting keys.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Shared, now};
use crate::clock;

/// How often the view is confirmed; a third of what it may be old.
const CONFIRM: Duration = Duration::from_millis(300);

/// How often old keys are looked for.
const FORGET: Duration = Duration::from_secs(600);

/// How many keys are forgotten in one write.
const KEYS: u32 = 1000;

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
    if shared.view.take_halted() {
        for room in shared.all_rooms() {
            room.readers().iter().for_each(|reader| reader.wake());
        }
    }
}

/// Forgets client message ids that are older than they are kept, for ever.
pub(crate) async fn forget_keys(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(FORGET);
    loop {
        tick.tick().await;
        let kept = shared.config.client_message_id_kept;
        let Some(before) = SystemTime::now().checked_sub(kept) else { continue };
        loop {
            match shared.store.forget_keys(clock::micros(before), KEYS).await {
                Ok(forgotten) if forgotten >= u64::from(KEYS) => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "old client message ids could not be forgotten");
                    break;
                }
            }
        }
    }
}
