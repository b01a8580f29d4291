//! What the owner's task does beside groups: partitions that are taken again,
//! rooms that are brought back, and memory.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::{Committer, LOST};
use crate::chat::owner::load::open;
use crate::chat::owner::memory::keep_budget;
use crate::chat::owner::turn::refuse;
use crate::chat::owner::{Room, now};
use crate::{backoff, chance};

/// How many rooms are read at once when they are brought back.
const RESUMED: usize = 32;

impl Committer {
    /// Takes the partitions again, and reads what is read back. Until then the
    /// node is not ready, and whoever asks is refused.
    pub(super) async fn recover(&mut self) {
        let guard = Self::pending(&self.readiness);
        let mut attempt = 0;
        loop {
            match self.take().await {
                Ok(()) => break,
                Err(error) => tracing::warn!(%error, attempt, "the partitions are not taken yet"),
            }
            let (base, cap) = (Duration::from_millis(50), Duration::from_secs(2));
            let nap = backoff::full_jitter(base, cap, attempt, chance::unit());
            attempt = attempt.saturating_add(1);
            let wake_at = tokio::time::Instant::now() + nap;
            while let Ok(Some(command)) =
                tokio::time::timeout_at(wake_at, self.commands.recv()).await
            {
                refuse(command);
            }
        }
        tracing::info!("the partitions are taken again");
        drop(guard);
        self.resume().await;
    }

    /// Brings suspended rooms that somebody reads back. One that cannot be read
    /// stays suspended until the next time.
    pub(super) async fn resume(&mut self) {
        let suspended = self.suspended();
        self.resuming.extend(suspended);
        while !self.resuming.is_empty() {
            self.resume_some().await;
        }
    }

    fn suspended(&self) -> Vec<Arc<Room>> {
        let mut rooms = self.shared.all_rooms();
        rooms.retain(|room| room.is_suspended());
        rooms
    }

    /// Brings a few back.
    pub(super) async fn resume_some(&mut self) {
        let shared = &self.shared;
        let mut some = Vec::new();
        while let Some(room) = self.resuming.pop_front() {
            if room.is_suspended() && shared.view.epoch(room.partition()).is_some() {
                some.push(room);
            }
            if some.len() == RESUMED {
                break;
            }
        }
        join_all(some.iter().map(|room| async move {
            if let Err(refusal) = open(shared, room.id()).await {
                tracing::warn!(reason = refusal.reason.as_str(), "a room stays suspended");
            }
        }))
        .await;
    }

    /// A node that is alone takes nothing back: somebody else writes its rooms,
    /// and would be fenced in turn. But nobody is to be sent to it any more.
    fn look_for_loss(&mut self) {
        let lost = self.shared.view.has_lost();
        if lost && self.lost.is_none() {
            tracing::error!(
                "another node has taken partitions of this one, which should be alone on its \
                 store (store.url): stop one of them, then start this one again"
            );
            self.lost = Some(self.readiness.hold(LOST));
        } else if !lost {
            self.lost = None;
        }
    }

    /// Memory: suspended rooms come back, idle ones go, the budget is kept.
    pub(super) async fn care(&mut self) {
        if self.shared.peers.is_some() {
            let suspended = self.suspended();
            self.resuming.extend(suspended);
        } else {
            self.look_for_loss();
            self.resume().await;
        }
        let shared = &self.shared;
        if let Some(before) = now().checked_sub(shared.config.idle_room) {
            // Followed rooms are the follower's to let go of.
            let ours = |room: &Room| {
                shared.peers.is_none() || shared.view.epoch(room.partition()).is_some()
            };
            shared.rooms().retain(|_, room| !ours(room) || !room.retire(Some(before)));
        }
        keep_budget(shared);
    }
}
