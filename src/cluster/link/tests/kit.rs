//! Nodes in one process: fake owners, streams in memory, letters in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{oneshot, watch};

use super::super::network::{DialError, Dialed, Verdict};
use super::super::*;
use crate::chat::peers::{Delivery, Heads, Released, RoomDelivery, Run};
use crate::chat::{Content, Job, Proposal, Published};
use crate::refusal::{Reason, Refusal};
use crate::security::mesh::NodeName;
use crate::store::StoreError;
use crate::store::chat::RoomId;
use crate::store::cluster::{Agreement, Joined, Letter, NodeState, Observation, StoreIdentity};

/// The one partition that the tests move about.
pub(super) const P: u16 = 3;

/// What a fake owner has seen and done.
#[derive(Debug, Default, Clone)]
pub(super) struct Seen {
    /// Under which epoch it owns the partition.
    pub(super) epoch: Option<u64>,
    pub(super) commit_no: u64,
    /// The names of what it appended, in order.
    pub(super) log: Vec<String>,
    /// What it was asked to append, again ones included.
    pub(super) asked: usize,
    /// Never answers while set.
    pub(super) mute: bool,
    /// The sequence of what the links told it.
    pub(super) told: Vec<String>,
    /// The room that is read here.
    pub(super) follows: Option<RoomId>,
}

#[derive(Debug)]
pub(super) struct Owner {
    pub(super) seen: watch::Sender<Seen>,
    kept: Mutex<Vec<Job>>,
    links: OnceLock<std::sync::Weak<Links>>,
}

impl Owner {
    fn tell(&self, what: String) {
        self.seen.send_modify(|seen| seen.told.push(what));
    }

    /// Waits until this holds.
    pub(super) async fn until(&self, holds: impl FnMut(&Seen) -> bool) -> Seen {
        let mut seen = self.seen.subscribe();
        let waited = tokio::time::timeout(Duration::from_secs(20), seen.wait_for(holds)).await;
        match waited {
            Ok(seen) => seen.expect("it is there").clone(),
            Err(_) => panic!("it did not come to be: {:?}", self.seen.borrow()),
        }
    }
}

#[async_trait]
impl Partitions for Owner {
    fn count(&self) -> u16 {
        8
    }
    async fn assign(&self, _: &PartitionState, _: Duration) {}
    async fn release(&self, _: u16) -> Option<Released> {
        None
    }
    fn lose(&self, _: u16) {}
    fn observed(&self, _: &[PartitionState], _: Duration) {}
    async fn order(&self, job: Job) {
        let name = job.proposal().client_message_id.to_string();
        let mut owned = true;
        self.seen.send_modify(|seen| {
            owned = seen.epoch.is_some();
            seen.asked += 1;
            if owned && !seen.log.contains(&name) {
                seen.log.push(name.clone());
                seen.commit_no += 1;
            }
        });
        if self.seen.borrow().mute {
            self.kept.lock().expect("not poisoned").push(job);
        } else if owned {
            let seq = self.seen.borrow().log.iter().position(|other| *other == name);
            let seq = seq.map_or(0, |place| place as u64 + 1);
            job.answer(Ok(Published { seq, committed_at: 1, redactions: 0 }));
        } else {
            job.answer(Err(Refusal::new(Reason::NotOwner, "not here")));
        }
    }
    async fn heads(&self, partition: u16, rooms: &[RoomId]) -> Option<Heads> {
        let seen = self.seen.borrow().clone();
        let position = Position { partition, epoch: seen.epoch?, commit_no: seen.commit_no };
        Some(Heads { position, heads: rooms.iter().map(|_| seen.log.len() as u64).collect() })
    }
    fn followed(&self, position: &Position, heads: &[(RoomId, u64)]) {
        self.tell(format!("followed {} at {}", heads[0].0, position.epoch));
    }
    fn deliver(&self, delivery: Delivery) {
        self.tell(format!("append {}", delivery.commit_no));
    }
    fn reached(&self, position: &Position) {
        let reached = format!("reached {}", position.commit_no);
        let again = self.seen.borrow().told.last() == Some(&reached);
        if !again {
            self.tell(reached);
        }
    }
    fn unlinked(&self, _: u16) {
        self.tell("unlinked".into());
    }
    fn refollow(&self, partition: u16) {
        let room = self.seen.borrow().follows.clone().filter(|_| partition == P);
        if let (Some(room), Some(links)) = (room, self.links.get().and_then(|l| l.upgrade())) {
            crate::chat::Peers::follow(links.as_ref(), partition, &room);
        }
    }
    fn positions(&self) -> Vec<Position> {
        let seen = self.seen.borrow();
        let position = |epoch| Position { partition: P, epoch, commit_no: seen.commit_no };
        seen.epoch.map(position).into_iter().collect()
    }
    fn sessions(&self) -> usize {
        0
    }
    fn move_sessions(&self, _: usize, _: &[String], _: Duration) -> usize {
        0
    }
}

/// A letter, and its answer once there is one.
type Answered = (Letter, Option<Vec<u8>>);

/// Letters in memory; nothing else of the store is asked for.
#[derive(Debug, Default)]
pub(super) struct Letters {
    all: Mutex<BTreeMap<i64, Answered>>,
    /// How many were ever left.
    left: AtomicI64,
}

fn none<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable("the links ask for letters alone".into()))
}

#[async_trait]
impl ClusterStore for Letters {
    async fn identity(&self) -> Result<StoreIdentity, StoreError> {
        none()
    }
    async fn ensure_partitions(&self, _: u16) -> Result<(), StoreError> {
        none()
    }
    async fn agree(&self, _: &Agreement) -> Result<Agreement, StoreError> {
        none()
    }
    async fn join(&self, _: &NodeInfo) -> Result<Joined, StoreError> {
        none()
    }
    async fn beat(&self, _: &str, _: &str, _: u32) -> Result<Option<NodeState>, StoreError> {
        none()
    }
    async fn observe(&self) -> Result<Observation, StoreError> {
        none()
    }
    async fn declare_dead(&self, _: &str, _: &str, _: u64) -> Result<bool, StoreError> {
        none()
    }
    async fn set_state(&self, _: &str, _: &str, _: NodeState) -> Result<bool, StoreError> {
        none()
    }
    async fn take(
        &self,
        _: &PartitionState,
        _: &str,
        _: &str,
    ) -> Result<Option<PartitionState>, StoreError> {
        none()
    }
    async fn release(
        &self,
        _: u16,
        _: &str,
        _: u64,
        _: &str,
    ) -> Result<Option<PartitionState>, StoreError> {
        none()
    }
    async fn leave_letter(
        &self,
        partition: u16,
        from: &str,
        body: &[u8],
    ) -> Result<i64, StoreError> {
        let mut all = self.all.lock().expect("not poisoned");
        let id = self.left.fetch_add(1, Relaxed) + 1;
        let letter = Letter { id, partition, from: from.into(), body: body.to_vec() };
        all.insert(id, (letter, None));
        Ok(id)
    }
    async fn letters(&self, of: &[u16], _: u32) -> Result<Vec<Letter>, StoreError> {
        let all = self.all.lock().expect("not poisoned");
        let open = all
            .values()
            .filter(|(letter, answer)| answer.is_none() && of.contains(&letter.partition));
        Ok(open.map(|(letter, _)| letter.clone()).collect())
    }
    async fn answer_letters(&self, answers: Vec<(i64, Vec<u8>)>) -> Result<(), StoreError> {
        let mut all = self.all.lock().expect("not poisoned");
        for (id, body) in answers {
            if let Some((_, answer)) = all.get_mut(&id) {
                answer.get_or_insert(body);
            }
        }
        Ok(())
    }
    async fn collect_answers(&self, from: &str) -> Result<Vec<(i64, Vec<u8>)>, StoreError> {
        let mut all = self.all.lock().expect("not poisoned");
        let mut taken = Vec::new();
        all.retain(|id, (letter, answer)| {
            let answer = answer.take_if(|_| letter.from == from);
            let stays = answer.is_none();
            taken.extend(answer.map(|answer| (*id, answer)));
            stays
        });
        Ok(taken)
    }
    async fn tidy_cluster(&self, _: Vec<String>) -> Result<(), StoreError> {
        none()
    }
}

/// Streams in memory between nodes that were put in here.
#[derive(Debug, Default)]
pub(super) struct Wires {
    routes: Mutex<BTreeMap<String, LinkRoute>>,
    /// Pairs that do not reach each other, in this direction.
    pub(super) cut: Mutex<BTreeSet<(String, String)>>,
    /// How many connections a pair may have, in this direction.
    pub(super) at_most: Mutex<Option<usize>>,
    /// The connections that stand, by the pair.
    running: Mutex<Vec<(String, String, AbortHandle)>>,
}

impl Wires {
    /// Cuts a direction: what stands breaks, and nothing new comes about.
    pub(super) fn cut(&self, from: &str, to: &str) {
        self.cut.lock().expect("not poisoned").insert((from.into(), to.into()));
        for (a, b, task) in self.running.lock().expect("not poisoned").iter() {
            if a == from && b == to {
                task.abort();
            }
        }
    }
    pub(super) fn mend(&self, from: &str, to: &str) {
        self.cut.lock().expect("not poisoned").remove(&(from.into(), to.into()));
    }
}

#[derive(Debug)]
struct End {
    from: String,
    wires: Arc<Wires>,
}

#[async_trait]
impl Network for End {
    async fn dial(&self, node: &str, address: &str) -> Result<Dialed, DialError> {
        let pair = (self.from.clone(), node.to_owned());
        if self.wires.cut.lock().expect("not poisoned").contains(&pair) {
            return Err(DialError::Refused(address.into()));
        }
        let standing = |all: &[(String, String, AbortHandle)]| {
            let pairs = all
                .iter()
                .filter(|(a, b, task)| (a, b) == (&pair.0, &pair.1) && !task.is_finished());
            pairs.count()
        };
        let standing = standing(&self.wires.running.lock().expect("not poisoned"));
        if self.wires.at_most.lock().expect("not poisoned").is_some_and(|most| standing >= most) {
            return Err(DialError::Refused(address.into()));
        }
        let route = self.wires.routes.lock().expect("not poisoned").get(node).cloned();
        let route = route.ok_or_else(|| DialError::Refused(address.into()))?;
        let (near, far) = tokio::io::duplex(256 * 1024);
        let name = NodeName::One(self.from.as_str().into());
        let served = task::spawn("served", serve(route, far, name)).abort_handle();
        self.wires.running.lock().expect("not poisoned").push((pair.0, pair.1, served));
        Ok(Dialed {
            stream: Box::new(near),
            distrusted: Box::pin(std::future::pending()),
            verdict: Verdict::default(),
        })
    }
}

#[derive(Debug, Default)]
pub(super) struct Touches(pub(super) watch::Sender<Vec<String>>);

impl OnTouched for Touches {
    fn touched(&self, accounts: &[String], _: &[Vec<u8>]) {
        self.0.send_modify(|all| all.extend_from_slice(accounts));
    }
}

/// A node.
pub(super) struct Node {
    pub(super) id: String,
    pub(super) links: Arc<Links>,
    pub(super) owner: Arc<Owner>,
    pub(super) touches: Arc<Touches>,
    _drain: drain::Drain,
}

pub(super) struct World {
    pub(super) wires: Arc<Wires>,
    pub(super) letters: Arc<Letters>,
    /// How many connections a node opens to another.
    pub(super) connections: u8,
}

pub(super) fn identity(node: &str) -> Identity {
    Identity {
        cluster: "test".into(),
        node_id: node.into(),
        incarnation: format!("{node}-1").into(),
        schema: 1,
        partitions: 8,
        system_id: "db".into(),
        release: "0".into(),
    }
}

pub(super) fn info(node: &str) -> NodeInfo {
    NodeInfo {
        id: node.into(),
        incarnation: format!("{node}-1"),
        public_address: String::new(),
        mesh_address: format!("{node}:1"),
        zone: String::new(),
        release: "0".into(),
        started_at: 0,
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self { wires: Arc::default(), letters: Arc::default(), connections: 1 }
    }

    /// Waits until so many letters were left.
    pub(super) async fn left(&self, count: i64) {
        while self.letters.left.load(Relaxed) < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until no letter is in the store any more.
    pub(super) async fn no_letters(&self) {
        while !self.letters.all.lock().expect("not poisoned").is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) fn node(&self, identity: Identity, timeline: u64, backlog: usize) -> Node {
        let from = identity.node_id.to_string();
        let network = Arc::new(End { from, wires: self.wires.clone() });
        self.node_over(network, identity, timeline, backlog)
    }

    /// A node that reaches others in a way of its own.
    pub(super) fn node_over(
        &self,
        network: Arc<dyn Network>,
        identity: Identity,
        timeline: u64,
        backlog: usize,
    ) -> Node {
        let id = identity.node_id.to_string();
        let mut config = toml::from_str::<crate::config::Config>(include_str!(
            "../../../../config/default.toml"
        ))
        .expect("good defaults")
        .cluster;
        config.backlog_bytes = backlog;
        config.connections = self.connections;
        let touches = Arc::new(Touches::default());
        let links = Links::new(Parts {
            identity,
            timeline,
            config,
            network,
            store: self.letters.clone(),
            touched: touches.clone(),
            metrics: LinkMetrics::unregistered(),
        });
        let owner = Arc::new(Owner {
            seen: watch::channel(Seen::default()).0,
            kept: Mutex::default(),
            links: OnceLock::new(),
        });
        owner.links.set(Arc::downgrade(&links)).expect("once");
        let (stop, watching) = drain::channel();
        links.start(owner.clone(), &watching);
        self.wires.routes.lock().expect("not poisoned").insert(id.clone(), links.service());
        Node { id, links, owner, touches, _drain: stop }
    }

    /// Nodes that know each other.
    pub(super) fn nodes<const N: usize>(&self, ids: [&str; N]) -> [Node; N] {
        let nodes = ids.map(|id| self.node(identity(id), 0, 1 << 20));
        let infos = ids.map(info);
        nodes.iter().for_each(|node| node.links.peers_are(&infos));
        nodes
    }
}

/// The node takes the partition; the others read it in the store.
pub(super) fn take(node: &Node, epoch: u64, others: &[&Node]) {
    node.owner.seen.send_modify(|seen| seen.epoch = Some(epoch));
    node.links.own(&[Position { partition: P, epoch, commit_no: 0 }]);
    let row = PartitionState { partition: P, owner: node.id.clone(), epoch, commit_no: 0 };
    others.iter().for_each(|other| other.links.directory(std::slice::from_ref(&row)));
}

impl Node {
    /// Hands in a job; gives what will be its answer.
    pub(super) fn send(&self, name: &str) -> oneshot::Receiver<Result<Published, Refusal>> {
        let proposal = Proposal {
            room: "r".into(),
            sender: "user/bob@corp.test".parse().expect("a principal"),
            client_message_id: name.into(),
            after: None,
            content: Content::Text { body: "b".into(), reply_to: 0 },
        };
        let (answer, answered) = oneshot::channel();
        crate::chat::Peers::submit(self.links.as_ref(), P, Job::of_call(proposal, P, answer));
        answered
    }

    /// Waits until it has a link to another.
    pub(super) async fn linked(&self, to: &str) {
        let up = async {
            while !self.links.is_linked(to) {
                self.links.events().next().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), up).await.expect("a link");
    }

    /// It committed something to the room.
    pub(super) fn commits(&self, size: usize) {
        let mut commit_no = 0;
        self.owner.seen.send_modify(|seen| {
            seen.commit_no += 1;
            commit_no = seen.commit_no;
        });
        let epoch = self.owner.seen.borrow().epoch.expect("owned");
        let ends = vec![u32::try_from(size).expect("small")];
        let run = Run { first: commit_no, ends, bytes: vec![1; size].into() };
        let room = RoomDelivery {
            room: "r".into(),
            runs: vec![run],
            changes: vec![],
            traces: vec![],
            deleted: false,
        };
        let delivery = Delivery { partition: P, epoch, commit_no, rooms: vec![room] };
        crate::chat::Peers::appended(self.links.as_ref(), &delivery);
    }
}
