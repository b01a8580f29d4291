//! The owner of the node's partitions: it orders what is sent to their rooms.
//!
//! One task takes proposals from every room. While one commit runs, what comes
//! in waits and goes into the next: the slower the disk, the larger the groups,
//! and no timer delays a lone message. A group is decided by the rooms' rules in
//! the order in which it came, gets its seqs, and is appended in one call, each
//! partition's part under the partition's epoch. Only when that has returned
//! does anybody learn of it: first memory, then the acknowledgements and the
//! readers.
//!
//! *Fenced:* somebody else owns the partition. Nothing of its part was kept;
//! its senders are told NOT_OWNER, and its rooms halt.
//!
//! *Unknown outcome:* the store failed during an append, and the entries may be
//! there or not. The senders are told to try again (the client message id makes
//! that safe), everything in memory is forgotten, and the partitions are taken
//! anew, which fences a write that is still on its way. A seq is never used
//! twice, because heads are read after that.

mod batch;
mod committer;
mod load;
mod memory;
mod prepare;
mod refresh;
mod room;
mod view;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use super::log::Budget;
use super::metrics::ChatMetrics;
use super::session::Session;
use super::{Proposal, Published, RoomAccess, RoomsView, Router};
use crate::config::schema;
use crate::principal::Principal;
use crate::refusal::{Reason, Refusal};
use crate::store::ChatStore;
use crate::store::chat::{RoomId, partition_of};

pub(crate) use committer::Committer;
pub(crate) use refresh::{forget, refresh};
pub(crate) use room::{HOLD, Pull, Room};
pub(crate) use view::{View, now};

/// How many commands may wait for the owner's task; more callers wait.
const WAITING: usize = 2048;

/// What is asked of the owner's task.
#[derive(Debug)]
pub(crate) enum Command {
    /// Append.
    Publish(Job),
    /// Bring a room into memory.
    Open { room: RoomId, answer: oneshot::Sender<Result<Option<Arc<Room>>, Refusal>> },
    /// Delete a room.
    Delete { room: RoomId, sender: Principal, answer: oneshot::Sender<Result<(), Refusal>> },
}

/// A proposal on its way.
#[derive(Debug)]
pub struct Job {
    pub(crate) proposal: Proposal,
    pub(crate) answer: Answer,
    /// The sender's span; disabled when nobody traces it.
    pub(crate) span: tracing::Span,
}

/// Who waits for a proposal.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A unary call.
    Call(oneshot::Sender<Result<Published, Refusal>>),
    /// A session: an acknowledgement frame.
    Session(Arc<Session>),
}

/// The owner. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    shared: Arc<Shared>,
}

/// What the owner's task, sessions and helpers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn ChatStore>,
    pub(crate) config: schema::Chat,
    pub(crate) view: View,
    pub(crate) budget: Arc<Budget>,
    pub(crate) metrics: ChatMetrics,
    /// Rooms in memory. The owner's task alone adds and removes.
    rooms: Mutex<HashMap<RoomId, Arc<Room>>>,
    commands: mpsc::Sender<Command>,
}

impl Shared {
    fn rooms(&self) -> MutexGuard<'_, HashMap<RoomId, Arc<Room>>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every room in memory.
    pub(crate) fn all_rooms(&self) -> Vec<Arc<Room>> {
        self.rooms().values().cloned().collect()
    }

    /// The room, if it is in memory.
    pub(crate) fn in_memory(&self, room: &RoomId) -> Option<Arc<Room>> {
        self.rooms().get(room).cloned()
    }

    /// The room's partition.
    pub(crate) fn partition(&self, room: &str) -> u16 {
        partition_of(room, self.view.count())
    }
}

impl Owner {
    /// The owner and its task's end of the channel.
    pub(crate) fn new(
        store: Arc<dyn ChatStore>,
        config: &schema::Chat,
        node_id: &str,
        metrics: ChatMetrics,
    ) -> (Self, mpsc::Receiver<Command>) {
        let (commands, waiting) = mpsc::channel(WAITING);
        let shared = Arc::new(Shared {
            store,
            view: View::new(node_id, config.partitions),
            budget: Budget::new(config.total_tail_bytes),
            config: config.clone(),
            metrics,
            rooms: Mutex::new(HashMap::new()),
            commands,
        });
        (Self { shared }, waiting)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Hands a proposal over; waits for a place. Cancel safe: a future that is
    /// dropped has handed nothing over.
    pub(crate) async fn submit(&self, job: Job) -> Result<(), Refusal> {
        self.shared.commands.send(Command::Publish(job)).await.map_err(|_| stopped())
    }

    /// The room, brought into memory; `None` when there is none. Refused while
    /// the node does not own it.
    pub(crate) async fn open(&self, room: &RoomId) -> Result<Option<Arc<Room>>, Refusal> {
        if let Some(room) = self.shared.in_memory(room).filter(|room| !room.is_suspended()) {
            return Ok(Some(room));
        }
        let (answer, opened) = oneshot::channel();
        let command = Command::Open { room: room.clone(), answer };
        self.shared.commands.send(command).await.map_err(|_| stopped())?;
        opened.await.map_err(|_| stopped())?
    }

    /// Refuses unless memberships of the room may be relied on now.
    pub(crate) fn check_fresh(&self, room: &Room) -> Result<(), Refusal> {
        if self.shared.view.fresh(room.partition(), now()) {
            return Ok(());
        }
        self.shared.metrics.stale_views.inc();
        Err(not_owner())
    }
}

#[async_trait]
impl Router for Owner {
    async fn publish(&self, proposal: Proposal) -> Result<Published, Refusal> {
        let (answer, published) = oneshot::channel();
        let span = tracing::Span::current();
        self.submit(Job { proposal, answer: Answer::Call(answer), span }).await?;
        published.await.map_err(|_| stopped())?
    }

    async fn delete_room(&self, room: RoomId, sender: Principal) -> Result<(), Refusal> {
        let (answer, deleted) = oneshot::channel();
        let command = Command::Delete { room, sender, answer };
        self.shared.commands.send(command).await.map_err(|_| stopped())?;
        deleted.await.map_err(|_| stopped())??;
        // The room is gone whatever comes of this; what a caller that gives up
        // or a failing store leaves is erased later.
        if let Err(error) = refresh::erase(&self.shared).await {
            tracing::warn!(%error, "a deleted room could not be erased yet");
        }
        Ok(())
    }
}

/// How often a room that left memory between two steps is asked for again.
pub(crate) const OPEN_TRIES: usize = 8;

#[async_trait]
impl RoomsView for Owner {
    async fn access(
        &self,
        room: &RoomId,
        principal: &Principal,
    ) -> Result<Option<RoomAccess>, Refusal> {
        for _ in 0..OPEN_TRIES {
            let Some(room) = self.open(room).await? else { return Ok(None) };
            self.check_fresh(&room)?;
            if let Ok(access) = room.access(principal) {
                return Ok(access);
            }
        }
        Err(not_owner())
    }
}

/// The owner's task is gone: the node stops.
fn stopped() -> Refusal {
    Refusal::new(Reason::Draining, "the node is stopping")
}

pub(crate) fn not_owner() -> Refusal {
    Refusal::new(Reason::NotOwner, "this node does not order the room now")
        .retry_after(std::time::Duration::from_millis(500))
}

/// Seconds since a time, for a histogram.
fn seconds_since(began: Instant) -> f64 {
    began.elapsed().as_secs_f64()
}
