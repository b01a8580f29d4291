//! The cluster area in memory.

use std::sync::PoisonError;

use async_trait::async_trait;

use super::MemoryStore;
use super::data::{Data, Posted};
use crate::fault::{self, Plant};
use crate::store::StoreError;
use crate::store::chat::{PartitionState, other_partitions};
use crate::store::cluster::{
    Agreement, ClusterStore, Joined, Letter, NodeInfo, NodeRecord, NodeState, Observation,
    StoreIdentity,
};

#[async_trait]
impl ClusterStore for MemoryStore {
    async fn identity(&self) -> Result<StoreIdentity, StoreError> {
        self.read(|data| data.identity.clone()).await
    }

    async fn ensure_partitions(&self, count: u16) -> Result<(), StoreError> {
        self.write(|data| match data.partitions.len() {
            0 => {
                data.make_partitions(count);
                Ok(())
            }
            made if made == usize::from(count) => Ok(()),
            made => Err(other_partitions(made as u64, count)),
        })
        .await
    }

    async fn agree(&self, own: &Agreement) -> Result<Agreement, StoreError> {
        self.write(|data| Ok(data.agreement.get_or_insert_with(|| own.clone()).clone())).await
    }

    async fn join(&self, node: &NodeInfo) -> Result<Joined, StoreError> {
        self.write(|data| {
            if let Some(standing) = data.nodes.get(&node.id) {
                let same = standing.info.incarnation == node.incarnation;
                match (same, standing.state.is_alive()) {
                    // It asks again, because the answer was lost.
                    (true, true) => return Ok(Joined::New),
                    // What was declared dead must come as another.
                    (true, false) | (false, true) => {
                        return Ok(Joined::Taken(Box::new(standing.clone())));
                    }
                    (false, false) => {}
                }
            }
            let record = NodeRecord {
                info: node.clone(),
                state: NodeState::Live,
                beat: 1,
                sessions: 0,
                locked: None,
            };
            data.nodes.insert(node.id.clone(), record);
            Ok(Joined::New)
        })
        .await
    }

    async fn beat(
        &self,
        id: &str,
        incarnation: &str,
        sessions: u32,
    ) -> Result<Option<NodeState>, StoreError> {
        self.write(|data| {
            Ok(data.nodes.get_mut(id).filter(|row| is(row, incarnation)).map(|row| {
                row.beat += 1;
                row.sessions = sessions;
                row.state
            }))
        })
        .await
    }

    async fn observe(&self) -> Result<Observation, StoreError> {
        self.read(Data::observation).await
    }

    async fn declare_dead(
        &self,
        id: &str,
        incarnation: &str,
        beat: u64,
    ) -> Result<bool, StoreError> {
        self.write(|data| {
            let row = data.nodes.get_mut(id);
            let row = row.filter(|row| is(row, incarnation) && row.beat == beat);
            Ok(row.map(|row| row.state = NodeState::Dead).is_some())
        })
        .await
    }

    async fn set_state(
        &self,
        id: &str,
        incarnation: &str,
        state: NodeState,
    ) -> Result<bool, StoreError> {
        self.write(|data| {
            let row = data.nodes.get_mut(id).filter(|row| is(row, incarnation));
            Ok(row.map(|row| row.state = state).is_some())
        })
        .await
    }

    async fn take(
        &self,
        seen: &PartitionState,
        by: &str,
        _from: &str,
    ) -> Result<Option<PartitionState>, StoreError> {
        self.trip().await?;
        let before = self.shared.lock().heads_of(seen.partition);
        let taken = self.replace(seen.partition, &seen.owner, seen.epoch, by).await?;
        if taken.is_some() && fault::planted(Plant::HeadInTake) {
            let mut stale = self.stale.lock().unwrap_or_else(PoisonError::into_inner);
            stale.insert(seen.partition, before);
        }
        self.answer().await?;
        Ok(taken)
    }

    async fn release(
        &self,
        partition: u16,
        owner: &str,
        epoch: u64,
        successor: &str,
    ) -> Result<Option<PartitionState>, StoreError> {
        self.trip().await?;
        let released = self.replace(partition, owner, epoch, successor).await?;
        self.answer().await?;
        Ok(released)
    }

    async fn leave_letter(
        &self,
        partition: u16,
        from: &str,
        body: &[u8],
    ) -> Result<i64, StoreError> {
        self.write(|data| {
            data.last_letter += 1;
            let id = data.last_letter;
            let letter = Letter { id, partition, from: from.to_owned(), body: body.to_owned() };
            data.letters.insert(id, Posted { letter, answer: None });
            Ok(id)
        })
        .await
    }

    async fn letters(&self, partitions: &[u16], limit: u32) -> Result<Vec<Letter>, StoreError> {
        self.read(|data| {
            let open = data.letters.values().filter(|posted| {
                posted.answer.is_none() && partitions.contains(&posted.letter.partition)
            });
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            open.take(limit).map(|posted| posted.letter.clone()).collect()
        })
        .await
    }

    async fn answer_letters(&self, answers: Vec<(i64, Vec<u8>)>) -> Result<(), StoreError> {
        self.write(|data| {
            for (id, answer) in answers {
                if let Some(posted) = data.letters.get_mut(&id) {
                    posted.answer.get_or_insert(answer);
                }
            }
            Ok(())
        })
        .await
    }

    async fn collect_answers(&self, from: &str) -> Result<Vec<(i64, Vec<u8>)>, StoreError> {
        self.write(|data| {
            let mut answers = Vec::new();
            data.letters.retain(|id, posted| match &mut posted.answer {
                Some(answer) if posted.letter.from == from => {
                    answers.push((*id, std::mem::take(answer)));
                    false
                }
                _ => true,
            });
            Ok(answers)
        })
        .await
    }

    async fn tidy_cluster(&self, over: Vec<String>) -> Result<(), StoreError> {
        self.write(|data| {
            data.nodes
                .retain(|_, row| row.state.is_alive() || !over.contains(&row.info.incarnation));
            let alive = |incarnation: &str| data.nodes.values().any(|row| is(row, incarnation));
            data.letters.retain(|_, posted| alive(&posted.letter.from));
            Ok(())
        })
        .await
    }
}

/// Whether the row is that of a living incarnation.
fn is(row: &NodeRecord, incarnation: &str) -> bool {
    row.info.incarnation == incarnation && row.state.is_alive()
}

impl MemoryStore {
    /// An UPDATE of one row: it waits for the row's lock, looks at the row anew,
    /// and commits by itself.
    async fn replace(
        &self,
        partition: u16,
        owner: &str,
        epoch: u64,
        by: &str,
    ) -> Result<Option<PartitionState>, StoreError> {
        loop {
            self.wait_for(partition).await;
            let mut data = self.shared.lock();
            if data.locks.contains_key(&partition) {
                continue;
            }
            let row = data.partitions.get_mut(&partition);
            return Ok(row.filter(|row| row.owner == owner && row.epoch == epoch).map(|row| {
                by.clone_into(&mut row.owner);
                row.epoch += 1;
                row.clone()
            }));
        }
    }
}
