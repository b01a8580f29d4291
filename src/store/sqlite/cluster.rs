//! The cluster area on SQLite: each change a job of the writer, compare-and-set
//! on one row.
//!
//! Where nodes share the file, a node is alive as long as its process holds its
//! lock (`share`): it is taken before the row says LIVE, looked at by every
//! observation, and must be free before somebody is declared dead. What this
//! process itself holds it may give up. On a file that is not shared only the
//! rows count.

mod agreement;
mod letters;
mod nodes;

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnection;

use super::SqliteStore;
use super::chat::{rows, stored};
use super::share::nodes::NodeLocks;
use crate::id;
use crate::store::StoreError;
use crate::store::chat::PartitionState;
use crate::store::cluster::{
    Agreement, ClusterStore, Joined, Letter, NodeInfo, NodeState, Observation, StoreIdentity,
};

/// Names the next owner of a partition that still is the one that was seen.
const SET_OWNER: &str = "UPDATE \"partition\" SET owner = ?4, epoch = epoch + 1 \
     WHERE id = ?1 AND owner = ?2 AND epoch = ?3 RETURNING id, owner, epoch, commit_no";

const IDENTITY: &str = "SELECT value FROM meta WHERE key = 'system_id'";

#[async_trait]
impl ClusterStore for SqliteStore {
    async fn identity(&self) -> Result<StoreIdentity, StoreError> {
        let known: Option<String> = self
            .read("cluster.identity", async {
                Ok(sqlx::query_scalar(IDENTITY).fetch_optional(self.readers()).await?)
            })
            .await?;
        let system_id = match known {
            Some(known) => known,
            None => self.write("cluster.identity", |c| Box::pin(name_store(c))).await?,
        };
        Ok(StoreIdentity { system_id, timeline: 0 })
    }

    async fn ensure_partitions(&self, count: u16) -> Result<(), StoreError> {
        self.write("cluster.ensure_partitions", move |connection| {
            Box::pin(super::chat::make_partitions(connection, count))
        })
        .await
    }

    async fn agree(&self, own: &Agreement) -> Result<Agreement, StoreError> {
        let own = own.clone();
        self.write("cluster.agree", move |connection| Box::pin(agreement::agree(connection, own)))
            .await
    }

    async fn join(&self, node: &NodeInfo) -> Result<Joined, StoreError> {
        let Some(locks) = self.usage().nodes() else { return self.join_row(node).await };
        let _alone = locks.changing.lock().await;
        if locks.holds(&node.id) {
            return self.join_row(node).await;
        }
        // Before the row says that the node lives.
        let Some(lock) = locks.take(&node.id).await? else {
            let taken = self.node(&node.id).await?.map(|mut record| {
                record.locked = Some(true);
                Joined::Taken(Box::new(record))
            });
            let joining =
                || StoreError::Unavailable("another process has the node's id".to_owned());
            return taken.ok_or_else(joining);
        };
        let mut joined = self.join_row(node).await?;
        match &mut joined {
            Joined::New => locks.keep(&node.id, lock),
            Joined::Taken(record) => record.locked = Some(false),
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
        self.write("cluster.beat", move |connection| {
            Box::pin(nodes::beat(connection, id, incarnation, sessions))
        })
        .await
    }

    async fn observe(&self) -> Result<Observation, StoreError> {
        let mut seen = self.read("cluster.observe", nodes::observe(self.readers())).await?;
        if let Some(locks) = self.usage().nodes() {
            for node in &mut seen.nodes {
                node.locked = Some(locks.is_locked(&node.info.id)?);
            }
        }
        Ok(seen)
    }

    async fn declare_dead(
        &self,
        id: &str,
        incarnation: &str,
        beat: u64,
    ) -> Result<bool, StoreError> {
        let beat = Some(stored(beat)?);
        let Some(locks) = self.usage().nodes() else {
            return self.change_state(id, incarnation, NodeState::Dead, beat).await;
        };
        let _alone = locks.changing.lock().await;
        // Held until the row says so: it does not start meanwhile.
        let lock = locks.holds(id).then_some(None);
        let lock = match lock {
            Some(own) => own,
            None => match locks.take(id).await? {
                Some(lock) => Some(lock),
                None => return Ok(false),
            },
        };
        let dead = self.change_state(id, incarnation, NodeState::Dead, beat).await?;
        if dead && lock.is_none() {
            locks.release(id);
        }
        Ok(dead)
    }

    async fn set_state(
        &self,
        id: &str,
        incarnation: &str,
        state: NodeState,
    ) -> Result<bool, StoreError> {
        let done = self.change_state(id, incarnation, state, None).await?;
        if let Some(locks) = self.usage().nodes().filter(|_| done && !state.is_alive()) {
            locks.release(id);
        }
        Ok(done)
    }

    async fn take(
        &self,
        seen: &PartitionState,
        by: &str,
        _from: &str,
    ) -> Result<Option<PartitionState>, StoreError> {
        self.set_owner("cluster.take", seen.partition, &seen.owner, seen.epoch, by).await
    }

    async fn release(
        &self,
        partition: u16,
        owner: &str,
        epoch: u64,
        successor: &str,
    ) -> Result<Option<PartitionState>, StoreError> {
        self.set_owner("cluster.release", partition, owner, epoch, successor).await
    }

    async fn leave_letter(
        &self,
        partition: u16,
        from: &str,
        body: &[u8],
    ) -> Result<i64, StoreError> {
        let (from, body) = (from.to_owned(), body.to_vec());
        self.write("cluster.leave_letter", move |connection| {
            Box::pin(letters::leave(connection, partition, from, body))
        })
        .await
    }

    async fn letters(&self, partitions: &[u16], limit: u32) -> Result<Vec<Letter>, StoreError> {
        self.read("cluster.letters", letters::waiting(self.readers(), partitions, limit)).await
    }

    async fn answer_letters(&self, answers: Vec<(i64, Vec<u8>)>) -> Result<(), StoreError> {
        self.write("cluster.answer_letters", move |connection| {
            Box::pin(letters::answer(connection, answers))
        })
        .await
    }

    async fn collect_answers(&self, from: &str) -> Result<Vec<(i64, Vec<u8>)>, StoreError> {
        let from = from.to_owned();
        self.write("cluster.collect_answers", move |connection| {
            Box::pin(letters::collect(connection, from))
        })
        .await
    }

    async fn tidy_cluster(&self, over: Vec<String>) -> Result<(), StoreError> {
        self.write("cluster.tidy", move |connection| {
            Box::pin(async move {
                nodes::tidy(connection, over).await?;
                letters::tidy(connection).await
            })
        })
        .await
    }
}

impl SqliteStore {
    async fn join_row(&self, node: &NodeInfo) -> Result<Joined, StoreError> {
        let node = node.clone();
        self.write("cluster.join", move |connection| Box::pin(nodes::join(connection, node))).await
    }

    async fn node(
        &self,
        id: &str,
    ) -> Result<Option<crate::store::cluster::NodeRecord>, StoreError> {
        let seen = self.read("cluster.node", nodes::observe(self.readers())).await?;
        Ok(seen.nodes.into_iter().find(|node| node.info.id == id))
    }

    async fn change_state(
        &self,
        id: &str,
        incarnation: &str,
        state: NodeState,
        beat: Option<i64>,
    ) -> Result<bool, StoreError> {
        let (id, incarnation) = (id.to_owned(), incarnation.to_owned());
        self.write("cluster.set_state", move |connection| {
            Box::pin(nodes::set_state(connection, id, incarnation, state, beat))
        })
        .await
    }

    async fn set_owner(
        &self,
        operation: &'static str,
        partition: u16,
        owner: &str,
        epoch: u64,
        next: &str,
    ) -> Result<Option<PartitionState>, StoreError> {
        let (owner, next, epoch) = (owner.to_owned(), next.to_owned(), stored(epoch)?);
        self.write(operation, move |connection| {
            Box::pin(async move {
                let row = sqlx::query(SET_OWNER)
                    .bind(partition)
                    .bind(owner)
                    .bind(epoch)
                    .bind(next)
                    .fetch_optional(connection)
                    .await?;
                row.as_ref().map(rows::partition).transpose()
            })
        })
        .await
    }

    /// Lets go of the locks of the nodes that joined here: they are no longer
    /// alive. To be called when the store is closed.
    pub(super) fn let_go(&self) {
        self.usage().nodes().map(NodeLocks::release_all).unwrap_or_default();
    }
}

async fn name_store(connection: &mut SqliteConnection) -> Result<String, StoreError> {
    sqlx::query("INSERT INTO meta (key, value) VALUES ('system_id', ?) ON CONFLICT DO NOTHING")
        .bind(id::fresh().simple().to_string())
        .execute(&mut *connection)
        .await?;
    Ok(sqlx::query_scalar(IDENTITY).fetch_one(connection).await?)
}
