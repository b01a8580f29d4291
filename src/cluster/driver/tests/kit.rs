//! Chat and links that note what they are told, and nodes over a store in memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::super::{
    ClusterMetrics, Distrust, Driver, Handle, Inbox, Incarnations, JoinError, LinkState, Mesh,
    Parts, Recovery,
};
use crate::chat::peers::{Delivery, Heads, Position, Released};
use crate::chat::{Job, Partitions};
use crate::clock::simulated::{Reading, Simulated, install};
use crate::cluster::membership::Rules;
use crate::readiness::Readiness;
use crate::store::chat::{PartitionState, RoomId};
use crate::store::cluster::{Agreement, NodeInfo, NodeRecord, NodeState, StoreIdentity};
use crate::store::memory::{Conditions, Database, MemoryStore};
use crate::{clock, task};

pub(super) const COUNT: u16 = 16;

/// The boot clock follows tokio's, which a paused runtime moves by itself.
pub(super) fn clocks() -> Simulated {
    let start = Instant::now();
    install(move || {
        let boot = Duration::from_secs(1_000) + start.elapsed();
        Some(Reading { boot, wall: clock::from_micros(1_700_000_000_000_000) + start.elapsed() })
    })
}

/// Chat that notes what it is told.
#[derive(Debug, Default)]
pub(super) struct Orders {
    pub(super) owned: Mutex<BTreeMap<u16, u64>>,
    pub(super) sessions: Mutex<usize>,
    pub(super) turned_away: Mutex<Vec<String>>,
    /// Makes the driver panic at its next read.
    pub(super) breaks: AtomicBool,
}

impl Orders {
    pub(super) fn owned(&self) -> MutexGuard<'_, BTreeMap<u16, u64>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Partitions for Orders {
    fn count(&self) -> u16 {
        COUNT
    }

    async fn assign(&self, taken: &PartitionState, _: Duration) {
        self.owned().insert(taken.partition, taken.epoch);
    }

    async fn release(&self, partition: u16) -> Option<Released> {
        self.owned().remove(&partition).map(|epoch| Released { epoch })
    }

    fn lose(&self, partition: u16) {
        self.owned().remove(&partition);
    }

    fn observed(&self, _: &[PartitionState], _: Duration) {
        assert!(!self.breaks.load(Relaxed), "asked for by the test");
    }

    async fn order(&self, _: Job) {}

    async fn heads(&self, _: u16, _: &[RoomId]) -> Option<Heads> {
        None
    }

    fn followed(&self, _: &Position, _: &[(RoomId, u64)]) {}

    fn deliver(&self, _: Delivery) {}

    fn reached(&self, _: &Position) {}

    fn unlinked(&self, _: u16) {}

    fn refollow(&self, _: u16) {}

    fn positions(&self) -> Vec<Position> {
        let at = |(partition, epoch): (&u16, &u64)| Position {
            partition: *partition,
            epoch: *epoch,
            commit_no: 0,
        };
        self.owned().iter().map(at).collect()
    }

    fn sessions(&self) -> usize {
        *self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn move_sessions(&self, count: usize, hints: &[String], _: Duration) -> usize {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let moved = count.min(*sessions);
        *sessions -= moved;
        let mut told = self.turned_away.lock().unwrap_or_else(PoisonError::into_inner);
        told.extend_from_slice(hints);
        moved
    }
}

/// Links that carry hand-overs alone.
#[derive(Debug, Default)]
pub(super) struct Wires(Mutex<BTreeMap<String, Inbox>>);

/// One node's end of them.
#[derive(Debug)]
struct Wire(Arc<Wires>);

#[async_trait]
impl Mesh for Wire {
    async fn distrust(&self, _: &[NodeInfo]) -> Vec<Distrust> {
        Vec::new()
    }

    fn joined(&self, _: &NodeInfo, _: &StoreIdentity) {}

    fn observed(&self, _: &[NodeRecord], _: &[PartitionState], _: Duration) {}

    fn owning(&self, _: &[Position]) {}

    fn lost(&self, _: u16, _: u64) {}

    fn hand_over(&self, to: &str, partition: u16, epoch: u64) {
        let inboxes = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(inbox) = inboxes.get(to) {
            inbox.released(partition, epoch);
        }
    }

    fn draining(&self) {}

    fn links(&self) -> Vec<LinkState> {
        Vec::new()
    }
}

#[derive(Debug, Default)]
pub(super) struct Past(pub(super) Mutex<Vec<String>>);

impl Incarnations for Past {
    fn known(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn begin(&self, incarnation: &str) -> std::io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(incarnation.to_owned());
        Ok(())
    }
}

/// Which incarnations' work was taken up.
#[derive(Debug, Clone, Default)]
pub(super) struct Recovered(pub(super) Arc<Mutex<Vec<String>>>);

#[async_trait]
impl Recovery for Recovered {
    async fn recover_of(&self, incarnation: &str) -> Result<(), String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(incarnation.to_owned());
        Ok(())
    }
}

/// Nodes over one store.
#[derive(Debug)]
pub(super) struct World {
    pub(super) database: Database,
    wires: Arc<Wires>,
    /// The name that the next node has of the cluster, if it is another one.
    pub(super) named: Option<&'static str>,
    pub(super) recovered: Recovered,
    /// Every node's way to the store.
    ways: Mutex<Vec<MemoryStore>>,
}

/// One node.
#[derive(Debug)]
pub(super) struct Node {
    /// Its way to the store.
    pub(super) store: MemoryStore,
    pub(super) chat: Arc<Orders>,
    pub(super) past: Arc<Past>,
    pub(super) inbox: Inbox,
    pub(super) handle: Handle,
    pub(super) readiness: Readiness,
    pub(super) task: JoinHandle<()>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            database: Database::new(),
            wires: Arc::default(),
            named: None,
            recovered: Recovered::default(),
            ways: Mutex::default(),
        }
    }
}

impl World {
    /// What a node's row says that it is.
    pub(super) fn state(&self, id: &str) -> Option<NodeState> {
        let nodes = self.database.observation().nodes;
        nodes.into_iter().find(|node| node.info.id == id).map(|node| node.state)
    }

    /// How it goes for every node that has joined or tries to.
    pub(super) fn all(&self, conditions: Conditions) {
        let ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        ways.iter().for_each(|way| way.set(conditions));
    }

    /// How many partitions each owner has by their rows.
    pub(super) fn owners(&self) -> BTreeMap<String, usize> {
        let mut owners = BTreeMap::new();
        for row in self.database.observation().partitions {
            *owners.entry(row.owner).or_default() += 1;
        }
        owners
    }

    pub(super) async fn node(&self, id: &str) -> Node {
        self.join(id, Arc::default()).await.expect("it joins")
    }

    pub(super) async fn join(&self, id: &str, past: Arc<Past>) -> Result<Node, JoinError> {
        let store = self.database.client();
        self.ways.lock().unwrap_or_else(PoisonError::into_inner).push(store.clone());
        let (chat, inbox) = (Arc::new(Orders::default()), Inbox::new());
        let readiness = Readiness::new();
        let inboxes = |wires: &Wires| {
            let mut inboxes = wires.0.lock().unwrap_or_else(PoisonError::into_inner);
            inboxes.insert(id.to_owned(), inbox.clone());
        };
        inboxes(&self.wires);
        let info = NodeInfo {
            id: id.to_owned(),
            incarnation: crate::chance::uuid().to_string(),
            public_address: format!("{id}:7443"),
            mesh_address: format!("{id}:7444"),
            zone: String::new(),
            release: "0".to_owned(),
            started_at: 0,
        };
        let agreement = Agreement {
            cluster: self.named.unwrap_or("kota").to_owned(),
            trust_domain: "kota.example".to_owned(),
        };
        let (driver, handle) = Driver::join(Parts {
            agreement,
            store: Arc::new(store.clone()),
            partitions: chat.clone(),
            mesh: Arc::new(Wire(self.wires.clone())),
            recovery: Arc::new(self.recovered.clone()),
            past: past.clone(),
            info,
            moves_per_second: 1_000,
            rules: Rules::default(),
            readiness: readiness.clone(),
            metrics: ClusterMetrics::unregistered(),
            inbox: inbox.clone(),
        })
        .await?;
        let task = task::spawn("driver", driver.run());
        Ok(Node { store, chat, past, inbox, handle, readiness, task })
    }
}

impl Node {
    /// Stops it without a word.
    pub(super) fn kill(&self) {
        self.task.abort();
    }

    /// Its statements wait, and fail in the end.
    pub(super) fn cut(&self, cut: bool) {
        self.store.set(Conditions { cut, ..Conditions::default() });
    }

    pub(super) fn incarnation(&self) -> String {
        self.handle.standing().borrow().incarnation.clone()
    }
}

/// Waits until it holds, a minute of the paused clock at most.
pub(super) async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..6_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}
