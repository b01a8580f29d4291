//! The cluster area on PostgreSQL: each change one statement, compare-and-set on
//! one row.
//!
//! A beat does not wait for the disk nor for a standby
//! (`synchronous_commit = off` for that statement alone): a slow disk must not
//! make a node look dead, and a beat that a crash of the server takes away is
//! followed by the next one. Everything else is as durable as a message.

mod agreement;
mod letters;
mod nodes;
mod take;

use async_trait::async_trait;

use super::chat::partitions;
use super::rows::{partition as state, stored};
use super::{PgStore, session};
use crate::store::StoreError;
use crate::store::chat::PartitionState;
use crate::store::cluster::{
    Agreement, ClusterStore, Joined, Letter, NodeInfo, NodeState, Observation, StoreIdentity,
};

#[async_trait]
impl ClusterStore for PgStore {
    async fn identity(&self) -> Result<StoreIdentity, StoreError> {
        let seen =
            self.read("cluster.identity", |connection| Box::pin(session::look(connection))).await?;
        if let Err(error) = self.known.admit(&seen) {
            self.look_again();
            return Err(error);
        }
        Ok(StoreIdentity { system_id: seen.system_id, timeline: seen.timeline })
    }

    fn saw_timeline(&self, timeline: u64) {
        PgStore::saw_timeline(self, timeline);
    }

    async fn ensure_partitions(&self, count: u16) -> Result<(), StoreError> {
        self.write("cluster.ensure_partitions", move |connection| {
            Box::pin(partitions::ensure(connection, count))
        })
        .await
    }

    async fn agree(&self, own: &Agreement) -> Result<Agreement, StoreError> {
        let own = own.clone();
        self.write("cluster.agree", move |connection| {
            let own = own.clone();
            Box::pin(async move { agreement::agree(connection, &own).await })
        })
        .await
    }

    async fn join(&self, node: &NodeInfo) -> Result<Joined, StoreError> {
        let joining = node.clone();
        let joined = self.write("cluster.join", move |connection| {
            let node = joining.clone();
            Box::pin(async move { nodes::join(connection, &node).await })
        });
        let joined = joined.await?;
        if joined == Joined::New {
            // Before it takes anything under this name.
            self.known.runs_as(&node.incarnation);
        }
        Ok(joined)
    }

    async fn beat(
        &self,
        id: &str,
        incarnation: &str,
        sessions: u32,
    ) -> Result<Option<NodeState>, StoreError> {
        let (id, incarnation) = (id.to_owned(), incarnation.to_owned());
        self.vital()
            .change("cluster.beat", move |connection| {
                let (id, incarnation) = (id.clone(), incarnation.clone());
                Box::pin(async move { nodes::beat(connection, &id, &incarnation, sessions).await })
            })
            .await
    }

    async fn observe(&self) -> Result<Observation, StoreError> {
        let vital = self.vital();
        vital.read("cluster.observe", |connection| Box::pin(nodes::observe(connection))).await
    }

    async fn declare_dead(
        &self,
        id: &str,
        incarnation: &str,
        beat: u64,
    ) -> Result<bool, StoreError> {
        let (id, incarnation, beat) = (id.to_owned(), incarnation.to_owned(), stored(beat)?);
        self.vital()
            .change("cluster.declare_dead", move |connection| {
                let (id, incarnation) = (id.clone(), incarnation.clone());
                Box::pin(async move {
                    let dead = NodeState::Dead;
                    nodes::set_state(connection, &id, &incarnation, dead, Some(beat)).await
                })
            })
            .await
    }

    async fn set_state(
        &self,
        id: &str,
        incarnation: &str,
        state: NodeState,
    ) -> Result<bool, StoreError> {
        let (id, incarnation) = (id.to_owned(), incarnation.to_owned());
        self.change("cluster.set_state", move |connection| {
            let (id, incarnation) = (id.clone(), incarnation.clone());
            Box::pin(
                async move { nodes::set_state(connection, &id, &incarnation, state, None).await },
            )
        })
        .await
    }

    async fn take(
        &self,
        seen: &PartitionState,
        by: &str,
        from: &str,
    ) -> Result<Option<PartitionState>, StoreError> {
        take::run(self, seen, by, from).await
    }

    async fn release(
        &self,
        partition: u16,
        owner: &str,
        epoch: u64,
        successor: &str,
    ) -> Result<Option<PartitionState>, StoreError> {
        let (owner, epoch, successor) = (owner.to_owned(), stored(epoch)?, successor.to_owned());
        self.change("cluster.release", move |connection| {
            let (owner, successor) = (owner.clone(), successor.clone());
            Box::pin(async move {
                let row = sqlx::query(take::SET_OWNER)
                    .bind(i32::from(partition))
                    .bind(owner)
                    .bind(epoch)
                    .bind(successor)
                    .fetch_optional(connection)
                    .await?;
                row.as_ref().map(state).transpose()
            })
        })
        .await
    }

    async fn leave_letter(
        &self,
        partition: u16,
        from: &str,
        body: &[u8],
    ) -> Result<i64, StoreError> {
        let (from, body) = (from.to_owned(), body.to_vec());
        self.change("cluster.leave_letter", move |connection| {
            let (from, body) = (from.clone(), body.clone());
            Box::pin(async move { letters::leave(connection, partition, &from, &body).await })
        })
        .await
    }

    async fn letters(&self, partitions: &[u16], limit: u32) -> Result<Vec<Letter>, StoreError> {
        let partitions: Vec<i32> = partitions.iter().map(|one| i32::from(*one)).collect();
        self.read("cluster.letters", move |connection| {
            let partitions = partitions.clone();
            Box::pin(async move { letters::waiting(connection, partitions, limit).await })
        })
        .await
    }

    async fn answer_letters(&self, answers: Vec<(i64, Vec<u8>)>) -> Result<(), StoreError> {
        self.change("cluster.answer_letters", move |connection| {
            let answers = answers.clone();
            Box::pin(async move { letters::answer(connection, answers).await })
        })
        .await
    }

    async fn collect_answers(&self, from: &str) -> Result<Vec<(i64, Vec<u8>)>, StoreError> {
        let from = from.to_owned();
        self.change("cluster.collect_answers", move |connection| {
            let from = from.clone();
            Box::pin(async move { letters::collect(connection, &from).await })
        })
        .await
    }

    async fn tidy_cluster(&self, over: Vec<String>) -> Result<(), StoreError> {
        self.write("cluster.tidy", move |connection| {
            let over = over.clone();
            Box::pin(async move {
                nodes::tidy(connection, over).await?;
                letters::tidy(connection).await
            })
        })
        .await
    }
}
