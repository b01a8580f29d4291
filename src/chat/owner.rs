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
//! *Fenced:* somebody else owns the partition. Nothing of its part was kept.
//! Alone, its senders are told NOT_OWNER and its rooms halt. With peers, jobs
//! of this node go on to whoever owns it, and the rooms are followed
//! ([`super::follower`]).
//!
//! *Unknown outcome:* the store failed during an append, and the entries may be
//! there or not. A seq is never used twice, because whoever takes the partition
//! anew, under a higher epoch, fences a write that is still on its way and reads
//! the heads after that. Alone, the senders are told to try again (the client
//! message id makes that safe), everything in memory is forgotten, and all
//! partitions are taken anew. With peers, only the partitions of that append are
//! given up, and what has a name is sent again by this node.
//!
//! *Order:* a sender's jobs for one room are appended in the order in which they
//! were handed in, wherever the partition is meanwhile. Jobs that wait here go
//! before those that come later ([`Shared::queued`]), and those that wait with
//! the peers too ([`super::Peers::waits`]).

mod batch;
mod committer;
mod finish;
mod load;
mod memory;
mod prepare;
mod recent;
mod refresh;
mod room;
mod turn;
mod view;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use super::follower::{self, Follower};
use super::log::Budget;
use super::metrics::ChatMetrics;
use super::peers::Released;
use super::sessions::Sessions;
use super::{Content, Job, Peers, Proposal, Published, RoomAccess, RoomsView, Router};
use crate::config::schema;
use crate::principal::Principal;
use crate::refusal::{Reason, Refusal};
use crate::store::ChatStore;
use crate::store::chat::{RoomId, partition_of};

pub(crate) use committer::Committer;
pub(crate) use load::{Loaded, load};
pub(crate) use memory::keep_budget;
pub(crate) use refresh::{forget, refresh};
pub(crate) use room::{HOLD, Pull, Room};
pub(crate) use view::{View, is_fresh, micros, now};

/// How many commands may wait for the owner's task; more callers wait.
const WAITING: usize = 2048;

/// What is asked of the owner's task.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // Almost all are jobs: no allocation for each.
pub(crate) enum Command {
    /// Append.
    Publish(Job),
    /// Bring a room into memory.
    Open { room: RoomId, answer: oneshot::Sender<Result<Option<Arc<Room>>, Refusal>> },
    /// Stop ordering a partition.
    Release { partition: u16, answer: oneshot::Sender<Option<Released>> },
    /// Bring back what waits in a partition that has just become ours.
    Resume { partition: u16 },
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
    /// The other nodes; `None` when the node is alone.
    pub(crate) peers: Option<Arc<dyn Peers>>,
    /// Rooms of other nodes.
    pub(crate) follower: Follower,
    pub(crate) sessions: Sessions,
    /// Rooms in memory. Changed under the lock of their partition's cell
    /// ([`Follower`]): by the owner's task where it is ours, else by the
    /// follower.
    rooms: Mutex<BTreeMap<RoomId, Arc<Room>>>,
    commands: mpsc::Sender<Command>,
    /// What each sender appended last.
    recent: recent::Recent,
    /// With peers: how many jobs of each partition the owner's task has not
    /// done with. Those that come later go behind them.
    queued: Vec<AtomicU32>,
}

impl Shared {
    pub(crate) fn rooms(&self) -> MutexGuard<'_, BTreeMap<RoomId, Arc<Room>>> {
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

    /// Whether what is in memory of the room may be relied on now.
    pub(crate) fn is_fresh(&self, room: &Room, now: Duration) -> bool {
        self.view.fresh(room.partition(), now)
            || (self.peers.is_some() && self.follower.is_fresh(room, now))
    }

    /// Wakes readers who had to stop, to look again.
    pub(crate) fn wake_halted(&self) {
        if self.view.take_halted() {
            for room in self.all_rooms() {
                room.readers().iter().for_each(|reader| reader.wake());
            }
        }
    }

    /// Whether the owner's task is gone: the node stops.
    pub(crate) fn stops(&self) -> bool {
        self.commands.is_closed()
    }

    fn queued(&self, partition: u16) -> Option<&AtomicU32> {
        self.queued.get(usize::from(partition))
    }

    /// Whether jobs of the partition wait for the owner's task.
    fn is_queued(&self, partition: u16) -> bool {
        self.queued(partition).is_some_and(|count| count.load(Ordering::Acquire) > 0)
    }

    /// The owner's task is done with a job of the partition.
    fn dequeue(&self, partition: u16) {
        if let Some(count) = self.queued(partition) {
            count.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Owner {
    /// The owner and its task's end of the channel.
    pub(crate) fn new(
        store: Arc<dyn ChatStore>,
        config: &schema::Chat,
        node_id: &str,
        metrics: ChatMetrics,
        peers: Option<Arc<dyn Peers>>,
    ) -> (Self, mpsc::Receiver<Command>) {
        let (commands, waiting) = mpsc::channel(WAITING);
        let view = View::new(node_id, config.partitions);
        let queued = if peers.is_some() { view.count() } else { 0 };
        let sessions = Sessions::default();
        metrics.shows(&sessions);
        let shared = Arc::new(Shared {
            store,
            follower: Follower::new(view.count()),
            view,
            budget: Budget::new(config.total_tail_bytes),
            config: config.clone(),
            metrics,
            peers,
            sessions,
            rooms: Mutex::new(BTreeMap::new()),
            commands,
            recent: recent::Recent::default(),
            queued: (0..queued).map(|_| AtomicU32::new(0)).collect(),
        });
        (Self { shared }, waiting)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Hands a job over; waits for a place. Whatever comes of it is the job's
    /// answer, also when this future is dropped.
    pub(crate) async fn submit(&self, mut job: Job) {
        let shared = &self.shared;
        let partition = job.partition;
        if let Some(peers) = &shared.peers {
            let ours = shared.view.epoch(partition).is_some() && !peers.waits(partition);
            if !ours && !shared.is_queued(partition) {
                job.name();
                return peers.submit(partition, job);
            }
        }
        self.enqueue(job).await;
    }

    /// Hands a job to the owner's task; waits for a place.
    pub(crate) async fn enqueue(&self, job: Job) {
        let shared = &self.shared;
        // Else the job is dropped, which answers it: the node stops.
        let Ok(place) = shared.commands.reserve().await else { return };
        if let Some(count) = shared.queued(job.partition) {
            count.fetch_add(1, Ordering::AcqRel);
        }
        place.send(Command::Publish(job));
    }

    /// Asks the owner's task; `None` when the node stops.
    pub(crate) async fn ask(&self, command: Command) -> Option<()> {
        self.shared.commands.send(command).await.ok()
    }

    /// The room, brought into memory; `None` when there is none. Refused while
    /// the node can neither own nor follow it.
    pub(crate) async fn open(&self, room: &RoomId) -> Result<Option<Arc<Room>>, Refusal> {
        let shared = &self.shared;
        for _ in 0..OPEN_TRIES {
            let found = shared.in_memory(room).filter(|room| !room.is_suspended());
            let Some(_) = &shared.peers else {
                return if found.is_some() { Ok(found) } else { self.open_owned(room).await };
            };
            let partition =
                found.as_ref().map_or_else(|| shared.partition(room), |r| r.partition());
            if shared.view.epoch(partition).is_none() {
                return follower::open(shared, partition, room).await;
            }
            if found.is_some() {
                return Ok(found);
            }
            match self.open_owned(room).await {
                // It was given away meanwhile: it is followed then.
                Err(refusal) if refusal.reason == Reason::NotOwner => {}
                opened => return opened,
            }
        }
        Err(not_owner())
    }

    async fn open_owned(&self, room: &RoomId) -> Result<Option<Arc<Room>>, Refusal> {
        let (answer, opened) = oneshot::channel();
        let command = Command::Open { room: room.clone(), answer };
        self.ask(command).await.ok_or_else(stopped)?;
        opened.await.map_err(|_| stopped())?
    }

    /// Refuses unless memberships of the room may be relied on now.
    pub(crate) fn check_fresh(&self, room: &Room) -> Result<(), Refusal> {
        if self.shared.is_fresh(room, now()) {
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
        let partition = self.shared.partition(&proposal.room);
        let room = self.shared.peers.is_some().then(|| proposal.room.clone());
        self.submit(Job::of_call(proposal, partition, answer)).await;
        let published = published.await.map_err(|_| stopped())??;
        if let Some(room) = room {
            // The caller's next call is to see what this one did.
            follower::see(&self.shared, partition, &room, published.seq).await;
        }
        Ok(published)
    }

    async fn delete_room(&self, room: RoomId, sender: Principal) -> Result<(), Refusal> {
        let (client_message_id, content) = (Arc::from(""), Content::DeleteRoom);
        self.publish(Proposal { room, sender, client_message_id, after: None, content }).await?;
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
pub(crate) fn stopped() -> Refusal {
    Refusal::new(Reason::Draining, "the node is stopping")
}

pub(crate) fn not_owner() -> Refusal {
    Refusal::new(Reason::NotOwner, "this node does not order the room now")
        .retry_after(Duration::from_millis(500))
}

/// Seconds since a time, for a histogram.
fn seconds_since(began: Instant) -> f64 {
    began.elapsed().as_secs_f64()
}
