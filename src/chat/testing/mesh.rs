//! Several nodes over one store in memory, and links between them that are
//! calls. They can be cut, and can drop, double and delay what owners send.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::{Client, MemoryStore, config, permit, who};
use crate::chat::owner::now;
use crate::chat::peers::{Delivery, Partitions, Peers};
use crate::chat::{Chat, ChatMetrics, Content, Job, Proposal, Published};
use crate::config::schema;
use crate::readiness::Readiness;
use crate::refusal::{Reason, Refusal};
use crate::store::chat::{ChatStore, RoomId, RoomRole, partition_of};
use crate::{drain, task};

/// How often the nodes are told of the partitions' rows.
const TICK: Duration = Duration::from_millis(50);

/// What the links do with what owners send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    /// They pass it on.
    Fine,
    /// They are cut: nothing is sent, and the receivers know.
    Cut,
    /// Each third is left out, and the receivers are not told.
    Dropping,
    /// Each is sent twice, and the one before it again.
    Doubling,
    /// Each waits for a while, in order.
    Delaying,
}

#[derive(Debug)]
struct Wire {
    weather: Weather,
    /// Who owns each partition.
    owners: BTreeMap<u16, usize>,
    /// Which node follows which room.
    followed: BTreeSet<(u16, RoomId, usize)>,
    sent: usize,
    before: Option<Delivery>,
}

/// The network.
#[derive(Debug)]
pub(crate) struct Mesh {
    nodes: Mutex<Vec<Arc<dyn Partitions>>>,
    wire: Mutex<Wire>,
    pub(crate) store: Arc<MemoryStore>,
    /// The nodes are not told of the rows.
    pub(crate) frozen: AtomicBool,
    late: mpsc::Sender<(usize, Delivery)>,
}

impl Mesh {
    fn wire(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock().expect("no test panics in here")
    }

    fn node(&self, node: usize) -> Arc<dyn Partitions> {
        self.nodes.lock().expect("no test panics in here")[node].clone()
    }

    fn count(&self) -> usize {
        self.nodes.lock().expect("no test panics in here").len()
    }

    fn owner(&self, partition: u16) -> Option<usize> {
        self.wire().owners.get(&partition).copied()
    }

    /// One read of the rows, told to everybody; then what the owners pong.
    async fn tick(&self) {
        let began = now();
        let Ok(rows) = self.store.partition_states().await else { return };
        if self.frozen.load(Ordering::Relaxed) {
            return;
        }
        let count = self.count();
        for node in 0..count {
            self.node(node).observed(&rows, began);
        }
        for owner in 0..count {
            for position in self.node(owner).positions() {
                let wire = self.wire();
                // With delays a pong comes behind what it speaks of.
                if !matches!(wire.weather, Weather::Fine | Weather::Doubling) {
                    continue;
                }
                let of = |node: usize| {
                    let mut rooms = wire.followed.iter();
                    rooms.any(|(p, _, by)| (*p, *by) == (position.partition, node))
                };
                let told: Vec<_> = (0..count).filter(|node| of(*node)).collect();
                drop(wire);
                told.into_iter().for_each(|node| self.node(node).reached(&position));
            }
        }
    }

    fn send(&self, node: usize, delivery: Delivery) {
        let (weather, sent, before) = {
            let mut wire = self.wire();
            wire.sent += 1;
            let before = wire.before.replace(delivery.clone());
            (wire.weather, wire.sent, before)
        };
        match weather {
            Weather::Fine => self.node(node).deliver(delivery),
            Weather::Cut => {}
            Weather::Dropping if sent % 3 == 0 => {}
            Weather::Dropping => self.node(node).deliver(delivery),
            Weather::Doubling => {
                self.node(node).deliver(delivery.clone());
                before.into_iter().for_each(|before| self.node(node).deliver(before));
                self.node(node).deliver(delivery);
            }
            Weather::Delaying => self.late.try_send((node, delivery)).expect("room for it"),
        }
    }
}

/// One node's side of the network.
#[derive(Debug)]
pub(crate) struct Calls {
    me: usize,
    mesh: Weak<Mesh>,
    queues: Vec<(mpsc::Sender<Job>, Arc<AtomicUsize>)>,
    pub(crate) unfollowed: AtomicUsize,
    pub(crate) submitted: AtomicUsize,
}

impl Calls {
    fn new(me: usize, mesh: &Arc<Mesh>, partitions: u16) -> Arc<Self> {
        let queues = (0..partitions).map(|partition| {
            let (queue, mut jobs) = mpsc::channel::<Job>(4096);
            let waiting = Arc::new(AtomicUsize::new(0));
            let (mesh, left) = (Arc::downgrade(mesh), waiting.clone());
            task::spawn("test router", async move {
                while let Some(job) = jobs.recv().await {
                    let Some(mesh) = mesh.upgrade() else { return };
                    let outcome = route(&mesh, partition, &job).await;
                    left.fetch_sub(1, Ordering::AcqRel);
                    job.answer(outcome);
                }
            });
            (queue, waiting)
        });
        Arc::new(Self {
            me,
            mesh: Arc::downgrade(mesh),
            queues: queues.collect(),
            unfollowed: AtomicUsize::new(0),
            submitted: AtomicUsize::new(0),
        })
    }
}

/// Sends it to whoever owns the partition until it is answered.
async fn route(mesh: &Mesh, partition: u16, job: &Job) -> Result<Published, Refusal> {
    assert!(!job.proposal().client_message_id.is_empty(), "it cannot be sent again");
    loop {
        if let Some(owner) = mesh.owner(partition) {
            let (answer, answered) = oneshot::channel();
            let traceparent = job.traceparent();
            let copy = Job::from_peer(
                job.proposal().clone(),
                traceparent.as_deref(),
                job.deadline(),
                answer,
            );
            mesh.node(owner).order(copy).await;
            match answered.await {
                Ok(Err(refusal)) if refusal.reason == Reason::NotOwner => {}
                Ok(outcome) => return outcome,
                Err(_) => {}
            }
        }
        if job.remaining().is_zero() {
            return Err(Refusal::new(Reason::DeadlineExceeded, "nobody took it"));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

impl Peers for Calls {
    fn submit(&self, partition: u16, job: Job) {
        self.submitted.fetch_add(1, Ordering::Relaxed);
        let (queue, waiting) = &self.queues[usize::from(partition)];
        waiting.fetch_add(1, Ordering::AcqRel);
        queue.try_send(job).expect("room for it");
    }

    fn waits(&self, partition: u16) -> bool {
        self.queues[usize::from(partition)].1.load(Ordering::Acquire) > 0
    }

    fn follow(&self, partition: u16, room: &RoomId) {
        let Some(mesh) = self.mesh.upgrade() else { return };
        let Some(owner) = mesh.owner(partition) else { return };
        if mesh.wire().weather == Weather::Cut || owner == self.me {
            return;
        }
        mesh.wire().followed.insert((partition, room.clone(), self.me));
        let (me, room) = (self.me, room.clone());
        task::spawn("test subscription", async move {
            let heads = mesh.node(owner).heads(partition, std::slice::from_ref(&room)).await;
            if let Some(heads) = heads
                && mesh.wire().weather != Weather::Cut
            {
                mesh.node(me).followed(&heads.position, &[(room, heads.heads[0])]);
            }
        });
    }

    fn unfollow(&self, partition: u16, room: &RoomId) {
        self.unfollowed.fetch_add(1, Ordering::Relaxed);
        if let Some(mesh) = self.mesh.upgrade() {
            mesh.wire().followed.remove(&(partition, room.clone(), self.me));
        }
    }

    fn is_followed(&self) -> bool {
        self.mesh.upgrade().is_some_and(|mesh| !mesh.wire().followed.is_empty())
    }

    fn appended(&self, delivery: &Delivery) {
        let Some(mesh) = self.mesh.upgrade() else { return };
        for node in (0..mesh.count()).filter(|node| *node != self.me) {
            let followed = mesh.wire().followed.clone();
            let mut delivery = delivery.clone();
            delivery
                .rooms
                .retain(|room| followed.contains(&(delivery.partition, room.room.clone(), node)));
            if !delivery.rooms.is_empty() {
                mesh.send(node, delivery);
            }
        }
    }

    fn lost(&self, partition: u16, _: u64) {
        // The driver takes it again for whoever owned it.
        let Some(mesh) = self.mesh.upgrade() else { return };
        let me = self.me;
        task::spawn("test take", async move {
            if mesh.owner(partition) == Some(me) {
                take(&mesh, partition, me).await;
            }
        });
    }
}

/// Takes a partition for a node, as its driver does.
async fn take(mesh: &Mesh, partition: u16, node: usize) {
    let began = now();
    let taken = mesh.store.take(partition, &format!("n{node}"));
    mesh.wire().owners.insert(partition, node);
    mesh.wire().followed.retain(|(followed, _, _)| *followed != partition);
    for other in (0..mesh.count()).filter(|other| *other != node) {
        mesh.node(other).unlinked(partition);
    }
    mesh.node(node).assign(&taken, began).await;
    for other in (0..mesh.count()).filter(|other| *other != node) {
        mesh.node(other).refollow(partition);
    }
}

/// The nodes.
pub(crate) struct Cluster {
    pub(crate) chats: Vec<Chat>,
    pub(crate) peers: Vec<Arc<Calls>>,
    pub(crate) mesh: Arc<Mesh>,
    pub(crate) store: Arc<MemoryStore>,
    _drains: Vec<drain::Drain>,
    tasks: Vec<AbortHandle>,
}

impl Cluster {
    /// So many nodes; the first one owns everything.
    pub(crate) async fn new(nodes: usize) -> Self {
        Self::with(nodes, config()).await
    }

    pub(crate) async fn with(nodes: usize, config: schema::Chat) -> Self {
        let store = Arc::new(MemoryStore::default());
        store.ensure(config.partitions);
        let (late, mut waiting) = mpsc::channel::<(usize, Delivery)>(65536);
        let wire = Wire {
            weather: Weather::Fine,
            owners: BTreeMap::new(),
            followed: BTreeSet::new(),
            sent: 0,
            before: None,
        };
        let mesh = Arc::new(Mesh {
            nodes: Mutex::default(),
            wire: Mutex::new(wire),
            store: store.clone(),
            frozen: AtomicBool::new(false),
            late,
        });
        let (mut chats, mut peers, mut drains) = (Vec::new(), Vec::new(), Vec::new());
        for node in 0..nodes {
            let (drain, watch) = drain::channel();
            let calls = Calls::new(node, &mesh, config.partitions);
            let (id, metrics) = (format!("n{node}"), ChatMetrics::unregistered());
            let (readiness, given) = (Readiness::new(), Some(calls.clone() as Arc<dyn Peers>));
            let started = Chat::start(
                store.clone(),
                &config,
                65536,
                &id,
                metrics,
                watch,
                &readiness,
                None,
                given,
            );
            let chat = started.await.expect("nothing is taken");
            mesh.nodes.lock().expect("no test panics in here").push(chat.partitions());
            chats.push(chat);
            peers.push(calls);
            drains.push(drain);
        }
        for partition in 0..config.partitions {
            take(&mesh, partition, 0).await;
        }
        let (ticking, delaying) = (mesh.clone(), mesh.clone());
        let tick = task::spawn("test driver", async move {
            let mut tick = tokio::time::interval(TICK);
            loop {
                tick.tick().await;
                ticking.tick().await;
            }
        });
        let delay = task::spawn("test delays", async move {
            while let Some((node, delivery)) = waiting.recv().await {
                tokio::time::sleep(Duration::from_millis(7)).await;
                delaying.node(node).deliver(delivery);
            }
        });
        let tasks = vec![tick.abort_handle(), delay.abort_handle()];
        Self { chats, peers, mesh, store, _drains: drains, tasks }
    }

    pub(crate) fn partition(&self, room: &str) -> u16 {
        partition_of(room, config().partitions)
    }

    pub(crate) fn weather(&self, weather: Weather) {
        let partitions: Vec<u16> = {
            let mut wire = self.mesh.wire();
            wire.weather = weather;
            if weather == Weather::Cut {
                wire.followed.clear();
            }
            wire.owners.keys().copied().collect()
        };
        for partition in partitions {
            for node in (0..self.chats.len()).map(|node| self.mesh.node(node)) {
                match weather {
                    Weather::Cut => node.unlinked(partition),
                    _ => node.refollow(partition),
                }
            }
        }
    }

    /// A planned move.
    pub(crate) async fn hand_over(&self, room: &str, to: usize) {
        let partition = self.partition(room);
        let from = self.mesh.owner(partition).expect("an owner");
        self.mesh.node(from).release(partition).await.expect("it owned it");
        take(&self.mesh, partition, to).await;
    }

    /// A take-over of which the owner learns by its fence.
    pub(crate) async fn seize(&self, room: &str, by: usize) {
        take(&self.mesh, self.partition(room), by).await;
    }

    /// A room of `alice`, with `bob` as a member.
    pub(crate) async fn room(&self, room: &str) {
        let created = Content::CreateRoom { title: "t".into() };
        self.propose(0, room, "alice", "", created).await.expect("a new room");
        let bob = Content::AddMember { member: who("bob"), role: RoomRole::Member };
        self.propose(0, room, "alice", "", bob).await.expect("bob");
    }

    pub(crate) async fn propose(
        &self,
        node: usize,
        room: &str,
        sender: &str,
        id: &str,
        content: Content,
    ) -> Result<Published, Refusal> {
        let (sender, client_message_id, room) = (who(sender), id.into(), room.into());
        let proposal = Proposal { room, sender, client_message_id, after: None, content };
        self.chats[node].router().publish(proposal).await
    }

    pub(crate) async fn text(&self, node: usize, room: &str, id: &str) -> Published {
        let text = Content::Text { body: format!("body of {id}"), reply_to: 0 };
        self.propose(node, room, "alice", id, text).await.expect("durable")
    }

    pub(crate) fn client(&self, node: usize, name: &str) -> Client {
        Client::open(&self.chats[node], permit(name))
    }

    pub(crate) fn node(&self, node: usize) -> Arc<dyn Partitions> {
        self.mesh.node(node)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}
