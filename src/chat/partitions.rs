//! What the cluster tells chat.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::owner::{Command, Owner, not_owner};
use super::peers::{Delivery, Heads, Position, Released};
use super::{Job, Partitions, follower};
use crate::refusal::{Reason, Refusal};
use crate::store::chat::{PartitionState, RoomId};

#[async_trait]
impl Partitions for Owner {
    fn count(&self) -> u16 {
        self.shared().view.count()
    }

    async fn assign(&self, taken: &PartitionState, began: Duration) {
        let partition = taken.partition;
        if partition >= self.count() {
            return;
        }
        self.shared().follower.hand_over(self.shared(), taken, began);
        // Without the owner's task the node stops.
        let _ = self.ask(Command::Resume { partition }).await;
        self.shared().wake_halted();
    }

    async fn release(&self, partition: u16) -> Option<Released> {
        let (answer, released) = oneshot::channel();
        self.ask(Command::Release { partition, answer }).await?;
        released.await.ok()?
    }

    fn lose(&self, partition: u16) {
        self.shared().follower.take_over(self.shared(), partition, None, 0);
    }

    fn observed(&self, rows: &[PartitionState], began: Duration) {
        follower::observed(self.shared(), rows, began);
    }

    async fn order(&self, mut job: Job) {
        job.bring(self.shared().partition(&job.proposal().room));
        if job.deadline() <= Instant::now() {
            // Not the caller's deadline, which its own node looks after: a stream's
            // message has none. An earlier try may have been appended.
            let why = "it came too late to the room's owner; send it again under the same name";
            let why = Refusal::new(Reason::OutcomeUnknown, why);
            return job.answer(Err(why.retry_after(Duration::from_millis(500))));
        }
        if self.shared().view.epoch(job.partition).is_none() {
            return job.answer(Err(not_owner()));
        }
        self.enqueue(job).await;
    }

    async fn heads(&self, partition: u16, rooms: &[RoomId]) -> Option<Heads> {
        let shared = self.shared();
        let position = shared.view.position(partition)?;
        // Rooms that are not in memory, by their places.
        let mut absent = Vec::new();
        let mut heads = Vec::with_capacity(rooms.len());
        for (place, id) in rooms.iter().enumerate() {
            let room = shared.in_memory(id).filter(|room| room.partition() == partition);
            match room.filter(|room| !room.is_suspended()) {
                Some(room) => heads.push(room.head()),
                None => {
                    absent.push((place, id.clone()));
                    heads.push(0);
                }
            }
        }
        if !absent.is_empty() {
            let (places, ids): (Vec<_>, Vec<_>) = absent.into_iter().unzip();
            match shared.store.heads(partition, ids).await {
                Ok(read) => {
                    for (place, head) in places.into_iter().zip(read) {
                        if let Some(slot) = heads.get_mut(place) {
                            *slot = head.unwrap_or(0);
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, partition, "the heads of rooms could not be read");
                    return None;
                }
            }
        }
        (shared.view.epoch(partition) == Some(position.epoch)).then_some(Heads { position, heads })
    }

    fn followed(&self, position: &Position, heads: &[(RoomId, u64)]) {
        follower::followed(self.shared(), position, heads);
    }

    fn deliver(&self, delivery: Delivery) {
        follower::deliver(self.shared(), delivery);
    }

    fn reached(&self, position: &Position) {
        follower::reached(self.shared(), position);
    }

    fn unlinked(&self, partition: u16) {
        follower::unlinked(self.shared(), partition);
    }

    fn refollow(&self, partition: u16) {
        let Some(peers) = &self.shared().peers else { return };
        let rooms = self.shared().follower.rooms(partition);
        rooms.iter().for_each(|room| peers.follow(partition, room));
    }

    fn positions(&self) -> Vec<Position> {
        (0..self.count()).filter_map(|partition| self.shared().view.position(partition)).collect()
    }

    fn sessions(&self) -> usize {
        self.shared().sessions.count()
    }

    fn move_sessions(&self, count: usize, hints: &[String], jitter: Duration) -> usize {
        self.shared().sessions.tell_move(count, hints, jitter)
    }

    fn turn_away(&self, why: &Refusal) -> usize {
        self.shared().sessions.turn_away(why)
    }
}
