//! Chat and links that note what they are told, and nodes over a store in memory.

mod store;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::super::{
    ClusterMetrics, Driver, Handle, Inbox, Incarnations, JoinError, LinkState, Mesh, Parts,
    Recovery,
};
use crate::chat::peers::{Delivery, Heads, Position, Released};
use crate::chat::{Job, Partitions};
use crate::clock::simulated::{Reading, Simulated, install};
use crate::cluster::membership::Rules;
use crate::readiness::Readiness;
use crate::store::chat::{PartitionState, RoomId};
use crate::store::cluster::{Agreement, NodeInfo, NodeRecord, StoreIdentity};
use crate::{clock, task};

pub(super) use self::store::{Shared, View};

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

    fn observed(&self, _: &[PartitionState], _: Duration) {}

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

impl Mesh for Wire {
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
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) shared: Shared,
    wires: Arc<Wires>,
    /// The name that the next node has of the cluster, if it is another one.
    pub(super) named: Option<&'static str>,
    pub(super) recovered: Recovered,
}

/// One node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) view: Arc<View>,
    pub(super) chat: Arc<Orders>,
    pub(super) past: Arc<Past>,
    pub(super) inbox: Inbox,
    pub(super) handle: Handle,
    pub(super) readiness: Readiness,
    pub(super) task: JoinHandle<()>,
}

impl World {
    pub(super) async fn node(&self, id: &str) -> Node {
        self.join(id, Arc::default()).await.expect("it joins")
    }

    pub(super) async fn join(&self, id: &str, past: Arc<Past>) -> Result<Node, JoinError> {
        let view = Arc::new(View { shared: self.shared.clone(), cut: Mutex::new(false) });
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
            store: view.clone(),
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
        Ok(Node { view, chat, past, inbox, handle, readiness, task })
    }
}

impl Node {
    /// Stops it without a word. Its beat goes on, as that of a half dead
    /// process would: the view is cut too.
    pub(super) fn kill(&self) {
        self.cut(true);
        self.task.abort();
    }

    pub(super) fn cut(&self, cut: bool) {
        *self.view.cut.lock().unwrap_or_else(PoisonError::into_inner) = cut;
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
