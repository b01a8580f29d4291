//! The chat area on SQLite.
//!
//! Reads go to the pool of readers. Writes go through the one writer, where an
//! append is one job: it is fenced part by part, and what is kept of it becomes
//! a handful of statements however many entries it has ([`batch`]).

mod append;
mod batch;
mod erase;
mod read;
pub(super) mod rows;

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnection;

pub(super) use self::rows::stored;
use super::SqliteStore;
use crate::principal::Principal;
use crate::store::StoreError;
use crate::store::chat::{
    Appended, ChatStore, Entry, KeyName, KeyRecord, MemberRecord, PartitionAppend, PartitionState,
    RoomId, RoomRecord, RoomRole, other_partitions,
};

#[async_trait]
impl ChatStore for SqliteStore {
    async fn take_partitions(
        &self,
        owner: &str,
        count: u16,
    ) -> Result<Vec<PartitionState>, StoreError> {
        let owner = owner.to_owned();
        self.write("chat.take_partitions", move |connection| {
            Box::pin(async move { take_partitions(connection, owner, count).await })
        })
        .await
    }

    async fn partition_states(&self) -> Result<Vec<PartitionState>, StoreError> {
        self.read("chat.partition_states", read::partition_states(self.readers())).await
    }

    async fn append(&self, parts: Vec<PartitionAppend>) -> Result<Vec<Appended>, StoreError> {
        let count = parts.len();
        let appended = self.write("chat.append", move |connection| {
            Box::pin(async move { append::run(connection, parts).await })
        });
        match appended.await {
            // The job was undone: all parts are one transaction.
            Err(StoreError::Conflict(_)) => Ok(vec![Appended::KeyTaken; count]),
            other => other,
        }
    }

    async fn delete_room(
        &self,
        partition: u16,
        epoch: u64,
        room: &RoomId,
    ) -> Result<Appended, StoreError> {
        let room = room.clone();
        self.write("chat.delete_room", move |connection| {
            Box::pin(async move { delete_room(connection, partition, epoch, room).await })
        })
        .await
    }

    async fn erase_deleted(&self, limit: u32) -> Result<u64, StoreError> {
        self.write("chat.erase_deleted", move |connection| {
            Box::pin(async move { erase::run(connection, limit).await })
        })
        .await
    }

    async fn room(&self, partition: u16, room: &str) -> Result<Option<RoomRecord>, StoreError> {
        self.read("chat.room", read::room(self.readers(), partition, room)).await
    }

    async fn heads(
        &self,
        partition: u16,
        rooms: Vec<RoomId>,
    ) -> Result<Vec<Option<u64>>, StoreError> {
        self.read("chat.heads", read::heads(self.readers(), partition, rooms)).await
    }

    async fn entries(
        &self,
        partition: u16,
        room: &str,
        after: u64,
        limit: u32,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let reading = read::entries(self.readers(), partition, room, after, limit, max_bytes);
        self.read("chat.entries", reading).await
    }

    async fn keys(
        &self,
        partition: u16,
        names: Vec<KeyName>,
    ) -> Result<Vec<Option<KeyRecord>>, StoreError> {
        self.read("chat.keys", read::keys(self.readers(), partition, names)).await
    }

    async fn forget_keys(&self, before: i64, limit: u32) -> Result<u64, StoreError> {
        self.write("chat.forget_keys", move |connection| {
            Box::pin(async move {
                let done = sqlx::query(
                    "DELETE FROM entry_key \
                         WHERE (\"partition\", room, sender, client_message_id) IN \
                         (SELECT \"partition\", room, sender, client_message_id FROM entry_key \
                          WHERE committed_at < ? ORDER BY committed_at LIMIT ?)",
                )
                .bind(before)
                .bind(limit)
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
        let reading = read::members(self.readers(), partition, room, after, limit);
        self.read("chat.members", reading).await
    }

    async fn member(
        &self,
        partition: u16,
        room: &str,
        member: &Principal,
    ) -> Result<Option<MemberRecord>, StoreError> {
        self.read("chat.member", read::member(self.readers(), partition, room, member)).await
    }

    async fn rooms_of(
        &self,
        member: &Principal,
        after: &str,
        limit: u32,
    ) -> Result<Vec<(RoomRecord, RoomRole)>, StoreError> {
        self.read("chat.rooms_of", read::rooms_of(self.readers(), member, after, limit)).await
    }
}

const STATES: &str = "SELECT id, owner, epoch, commit_no FROM \"partition\" ORDER BY id";

/// Makes the partitions exist, owned by nobody; refuses a store that has another
/// number of them.
pub(super) async fn make_partitions(
    connection: &mut SqliteConnection,
    count: u16,
) -> Result<(), StoreError> {
    let found: i64 = sqlx::query_scalar("SELECT count(*) FROM \"partition\"")
        .fetch_one(&mut *connection)
        .await?;
    if found > 0 || count == 0 {
        return match count > 0 && found == i64::from(count) {
            true => Ok(()),
            false => Err(other_partitions(found.unsigned_abs(), count)),
        };
    }
    sqlx::query(
        "WITH RECURSIVE slot(id) AS \
         (SELECT 0 UNION ALL SELECT id + 1 FROM slot WHERE id + 1 < ?) \
         INSERT INTO \"partition\" (id, owner, epoch, commit_no) SELECT id, '', 0, 0 FROM slot",
    )
    .bind(count)
    .execute(connection)
    .await?;
    Ok(())
}

async fn take_partitions(
    connection: &mut SqliteConnection,
    owner: String,
    count: u16,
) -> Result<Vec<PartitionState>, StoreError> {
    make_partitions(connection, count).await?;
    sqlx::query("UPDATE \"partition\" SET owner = ?, epoch = epoch + 1")
        .bind(owner)
        .execute(&mut *connection)
        .await?;
    let rows = sqlx::query(STATES).fetch_all(connection).await?;
    rows.iter().map(rows::partition).collect()
}

/// Raises the partition's commit number if the epoch is the one that stands
/// there. The first statement of every chat write: a write under an old epoch
/// ends here.
async fn fence(
    connection: &mut SqliteConnection,
    partition: u16,
    epoch: u64,
) -> Result<Appended, StoreError> {
    let raised: Option<i64> = sqlx::query_scalar(
        "UPDATE \"partition\" SET commit_no = commit_no + 1 WHERE id = ? AND epoch = ? \
         RETURNING commit_no",
    )
    .bind(partition)
    .bind(stored(epoch)?)
    .fetch_optional(connection)
    .await?;
    Ok(match raised {
        Some(number) => Appended::Committed { commit_no: number.unsigned_abs() },
        None => Appended::Fenced,
    })
}

async fn delete_room(
    connection: &mut SqliteConnection,
    partition: u16,
    epoch: u64,
    room: RoomId,
) -> Result<Appended, StoreError> {
    let fenced = fence(connection, partition, epoch).await?;
    if fenced == Appended::Fenced {
        return Ok(fenced);
    }
    sqlx::query(
        "UPDATE room SET title = '', head = 0, deleted = 2 \
         WHERE \"partition\" = ? AND room = ? AND deleted = 0",
    )
    .bind(partition)
    .bind(room)
    .execute(connection)
    .await?;
    Ok(fenced)
}

#[cfg(test)]
mod tests;
