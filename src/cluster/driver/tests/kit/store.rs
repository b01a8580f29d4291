//! The shared tables in memory, and each node's way to them, which can be cut.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::store::StoreError;
use crate::store::chat::PartitionState;
use crate::store::cluster::{
    Agreement, ClusterStore, Joined, Letter, NodeInfo, NodeRecord, NodeState, Observation,
    StoreIdentity,
};

#[derive(Debug, Default)]
pub(in crate::cluster::driver) struct Tables {
    pub(in crate::cluster::driver) nodes: BTreeMap<String, NodeRecord>,
    pub(in crate::cluster::driver) partitions: BTreeMap<u16, PartitionState>,
    pub(in crate::cluster::driver) identity: StoreIdentity,
    pub(in crate::cluster::driver) agreement: Option<Agreement>,
    pub(in crate::cluster::driver) down: bool,
}

/// The shared store; each node has a view of it that can be cut.
#[derive(Debug, Clone, Default)]
pub(in crate::cluster::driver) struct Shared(pub(in crate::cluster::driver) Arc<Mutex<Tables>>);

impl Shared {
    pub(in crate::cluster::driver) fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::cluster::driver) fn owners(&self) -> BTreeMap<String, usize> {
        let mut owners = BTreeMap::new();
        for row in self.tables().partitions.values() {
            *owners.entry(row.owner.clone()).or_default() += 1;
        }
        owners
    }
}

/// One node's way to the store.
#[derive(Debug)]
pub(in crate::cluster::driver) struct View {
    pub(in crate::cluster::driver) shared: Shared,
    pub(in crate::cluster::driver) cut: Mutex<bool>,
}

impl View {
    fn tables(&self) -> Result<MutexGuard<'_, Tables>, StoreError> {
        let tables = self.shared.tables();
        let cut = *self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        match tables.down || cut {
            true => Err(StoreError::Unavailable("cut".to_owned())),
            false => Ok(tables),
        }
    }
}

#[async_trait]
impl ClusterStore for View {
    async fn identity(&self) -> Result<StoreIdentity, StoreError> {
        Ok(self.tables()?.identity.clone())
    }

    async fn ensure_partitions(&self, count: u16) -> Result<(), StoreError> {
        let mut tables = self.tables()?;
        for partition in 0..count {
            let row = PartitionState { partition, owner: String::new(), epoch: 0, commit_no: 0 };
            tables.partitions.entry(partition).or_insert(row);
        }
        Ok(())
    }

    async fn agree(&self, own: &Agreement) -> Result<Agreement, StoreError> {
        Ok(self.tables()?.agreement.get_or_insert_with(|| own.clone()).clone())
    }

    async fn join(&self, node: &NodeInfo) -> Result<Joined, StoreError> {
        let mut tables = self.tables()?;
        if let Some(row) = tables.nodes.get(&node.id).filter(|row| row.state.is_alive()) {
            return Ok(Joined::Taken(Box::new(row.clone())));
        }
        let record = NodeRecord {
            info: node.clone(),
            state: NodeState::Live,
            beat: 1,
            sessions: 0,
            locked: None,
        };
        tables.nodes.insert(node.id.clone(), record);
        Ok(Joined::New)
    }

    async fn beat(
        &self,
        id: &str,
        incarnation: &str,
        sessions: u32,
    ) -> Result<Option<NodeState>, StoreError> {
        let mut tables = self.tables()?;
        let row = tables.nodes.get_mut(id);
        let row = row.filter(|row| row.info.incarnation == incarnation && row.state.is_alive());
        Ok(row.map(|row| {
            row.beat += 1;
            row.sessions = sessions;
            row.state
        }))
    }

    async fn observe(&self) -> Result<Observation, StoreError> {
        let tables = self.tables()?;
        let nodes = tables.nodes.values().cloned().collect();
        let partitions = tables.partitions.values().cloned().collect();
        Ok(Observation { nodes, partitions })
    }

    async fn declare_dead(&self, id: &str, run: &str, beat: u64) -> Result<bool, StoreError> {
        let mut tables = self.tables()?;
        let row = tables.nodes.get_mut(id);
        let row = row.filter(|row| row.info.incarnation == run && row.state.is_alive());
        let row = row.filter(|row| row.beat == beat);
        Ok(row.map(|row| row.state = NodeState::Dead).is_some())
    }

    async fn set_state(&self, id: &str, run: &str, state: NodeState) -> Result<bool, StoreError> {
        let mut tables = self.tables()?;
        let row = tables.nodes.get_mut(id);
        let row = row.filter(|row| row.info.incarnation == run && row.state.is_alive());
        Ok(row.map(|row| row.state = state).is_some())
    }

    async fn take(
        &self,
        seen: &PartitionState,
        by: &str,
        _: &str,
    ) -> Result<Option<PartitionState>, StoreError> {
        let mut tables = self.tables()?;
        let row = tables.partitions.get_mut(&seen.partition);
        let row = row.filter(|row| row.owner == seen.owner && row.epoch == seen.epoch);
        Ok(row.map(|row| {
            by.clone_into(&mut row.owner);
            row.epoch += 1;
            row.clone()
        }))
    }

    async fn release(
        &self,
        partition: u16,
        owner: &str,
        epoch: u64,
        successor: &str,
    ) -> Result<Option<PartitionState>, StoreError> {
        let seen = PartitionState { partition, owner: owner.to_owned(), epoch, commit_no: 0 };
        self.take(&seen, successor, "").await
    }

    async fn leave_letter(&self, _: u16, _: &str, _: &[u8]) -> Result<i64, StoreError> {
        Err(StoreError::Fault("no letters here".to_owned()))
    }

    async fn letters(&self, _: &[u16], _: u32) -> Result<Vec<Letter>, StoreError> {
        Ok(Vec::new())
    }

    async fn answer_letters(&self, _: Vec<(i64, Vec<u8>)>) -> Result<(), StoreError> {
        Ok(())
    }

    async fn collect_answers(&self, _: &str) -> Result<Vec<(i64, Vec<u8>)>, StoreError> {
        Ok(Vec::new())
    }

    async fn tidy_cluster(&self, _: i64) -> Result<(), StoreError> {
        Ok(())
    }
}
