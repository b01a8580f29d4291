//! The chat area on PostgreSQL.
//!
//! Every read is one statement; every chat write begins with the fence
//! ([`fence`]) in a session that loses it when it stands still.

mod append;
mod batch;
mod erase;
mod fence;
pub(super) mod partitions;
mod read;
mod rows;

use async_trait::async_trait;
use sqlx::postgres::PgConnection;

pub(super) use self::fence::PREPARE as PREPARE_FENCE;

use self::fence::Claim;
use super::PgStore;
use crate::principal::Principal;
use crate::store::StoreError;
use crate::store::chat::{
    Appended, ChatStore, Entry, KeyName, KeyRecord, MemberRecord, PartitionAppend, PartitionState,
    RoomId, RoomRecord, RoomRole,
};

#[async_trait]
impl ChatStore for PgStore {
    async fn take_partitions(
        &self,
        owner: &str,
        count: u16,
    ) -> Result<Vec<PartitionState>, StoreError> {
        let (owner, distributed) = (owner.to_owned(), self.is_distributed());
        self.write("chat.take_partitions", move |connection| {
            let owner = owner.clone();
            Box::pin(async move {
                partitions::ensure(connection, count).await?;
                partitions::take_all(connection, &owner, distributed).await
            })
        })
        .await
    }

    async fn partition_states(&self) -> Result<Vec<PartitionState>, StoreError> {
        self.read("chat.partition_states", |connection| {
            Box::pin(read::partition_states(connection))
        })
        .await
    }

    async fn append(&self, parts: Vec<PartitionAppend>) -> Result<Vec<Appended>, StoreError> {
        append::run(self, parts).await
    }

    async fn delete_room(
        &self,
        partition: u16,
        epoch: u64,
        room: &RoomId,
    ) -> Result<Appended, StoreError> {
        let claim = Claim { partition, epoch };
        for look in 0..=fence::LOOKS {
            let room = room.clone();
            let deleting =
                fence::write(self, "chat.delete_room", vec![claim], move |connection, held| {
                    let room = room.clone();
                    Box::pin(async move { delete_room(connection, &held, &room).await })
                });
            let entered = deleting.await?;
            if let Some(commit_no) = entered {
                return Ok(Appended::Committed { commit_no });
            }
            if fence::standing(self, vec![claim]).await?.is_empty() {
                return Ok(Appended::Fenced);
            }
            fence::wait(look).await;
        }
        Err(StoreError::Unavailable("the partition stays locked".to_owned()))
    }

    async fn erase_deleted(&self, limit: u32) -> Result<u64, StoreError> {
        self.write("chat.erase_deleted", move |connection| Box::pin(erase::run(connection, limit)))
            .await
    }

    async fn room(&self, partition: u16, room: &str) -> Result<Option<RoomRecord>, StoreError> {
        let room = RoomId::from(room);
        self.read("chat.room", move |connection| {
            let room = room.clone();
            Box::pin(async move { read::room(connection, partition, &room).await })
        })
        .await
    }

    async fn heads(
        &self,
        partition: u16,
        rooms: Vec<RoomId>,
    ) -> Result<Vec<Option<u64>>, StoreError> {
        self.read("chat.heads", move |connection| {
            let rooms = rooms.clone();
            Box::pin(async move { read::heads(connection, partition, &rooms).await })
        })
        .await
    }

    async fn entries(
        &self,
        partition: u16,
        room: &str,
        after: u64,
        limit: u32,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let room = RoomId::from(room);
        self.read("chat.entries", move |connection| {
            let room = room.clone();
            Box::pin(async move {
                read::entries(connection, partition, &room, after, limit, max_bytes).await
            })
        })
        .await
    }

    async fn keys(
        &self,
        partition: u16,
        names: Vec<KeyName>,
    ) -> Result<Vec<Option<KeyRecord>>, StoreError> {
        self.read("chat.keys", move |connection| {
            let names = names.clone();
            Box::pin(async move { read::keys(connection, partition, &names).await })
        })
        .await
    }

    async fn forget_keys(&self, before: i64, limit: u32) -> Result<u64, StoreError> {
        self.write("chat.forget_keys", move |connection| {
            Box::pin(async move {
                let done = sqlx::query(
                    "DELETE FROM entry_key \
                     WHERE (\"partition\", room, sender, client_message_id) IN \
                     (SELECT \"partition\", room, sender, client_message_id FROM entry_key \
                      WHERE committed_at < $1 ORDER BY committed_at LIMIT $2)",
                )
                .bind(before)
                .bind(i64::from(limit))
                .execute(connection)
                .await?;
                Ok(done.rows_affected())
            })
        })
        .await
    }

    async fn members(
        &self,
        partition: u16,
        room: &str,
        after: &str,
        limit: u32,
    ) -> Result<Vec<MemberRecord>, StoreError> {
        let (room, after) = (RoomId::from(room), after.to_owned());
        self.read("chat.members", move |connection| {
            let (room, after) = (room.clone(), after.clone());
            Box::pin(
                async move { read::members(connection, partition, &room, &after, limit).await },
            )
        })
        .await
    }

    async fn member(
        &self,
        partition: u16,
        room: &str,
        member: &Principal,
    ) -> Result<Option<MemberRecord>, StoreError> {
        let (room, member) = (RoomId::from(room), member.clone());
        self.read("chat.member", move |connection| {
            let (room, member) = (room.clone(), member.clone());
            Box::pin(async move { read::member(connection, partition, &room, &member).await })
        })
        .await
    }

    async fn rooms_of(
        &self,
        member: &Principal,
        after: &str,
        limit: u32,
    ) -> Result<Vec<(RoomRecord, RoomRole)>, StoreError> {
        let (member, after) = (member.clone(), after.to_owned());
        self.read("chat.rooms_of", move |connection| {
            let (member, after) = (member.clone(), after.clone());
            Box::pin(async move { read::rooms_of(connection, &member, &after, limit).await })
        })
        .await
    }
}

/// The commit number, or `None` when the partition was skipped or is fenced.
async fn delete_room(
    connection: &mut PgConnection,
    held: &[(u16, u64)],
    room: &RoomId,
) -> Result<Option<u64>, StoreError> {
    let Some((partition, commit_no)) = held.first() else { return Ok(None) };
    sqlx::query(
        "UPDATE room SET title = ''::bytea, head = 0, deleted = 2 \
         WHERE \"partition\" = $1 AND room = $2 AND deleted = 0",
    )
    .bind(i32::from(*partition))
    .bind(&**room)
    .execute(connection)
    .await?;
    Ok(Some(*commit_no))
}
