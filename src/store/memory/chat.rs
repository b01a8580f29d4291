//! The chat area in memory.

mod append;

use async_trait::async_trait;

use super::MemoryStore;
use super::data::Data;
use crate::principal::Principal;
use crate::store::StoreError;
use crate::store::chat::{
    Appended, ChatStore, Entry, KeyName, KeyRecord, MemberRecord, PartitionAppend, PartitionState,
    RoomId, RoomRecord, RoomRole, other_partitions,
};

#[async_trait]
impl ChatStore for MemoryStore {
    async fn take_partitions(
        &self,
        owner: &str,
        count: u16,
    ) -> Result<Vec<PartitionState>, StoreError> {
        self.write(|data| {
            if data.partitions.is_empty() && count > 0 {
                data.make_partitions(count);
            } else if data.partitions.len() != usize::from(count) {
                return Err(other_partitions(data.partitions.len() as u64, count));
            } else if count == 0 {
                return Err(other_partitions(0, count));
            }
            for row in data.partitions.values_mut() {
                owner.clone_into(&mut row.owner);
                row.epoch += 1;
            }
            Ok(data.states())
        })
        .await
    }

    async fn partition_states(&self) -> Result<Vec<PartitionState>, StoreError> {
        self.read(Data::states).await
    }

    async fn append(&self, parts: Vec<PartitionAppend>) -> Result<Vec<Appended>, StoreError> {
        self.append_parts(parts).await
    }

    async fn delete_room(
        &self,
        partition: u16,
        epoch: u64,
        room: &RoomId,
    ) -> Result<Appended, StoreError> {
        self.delete(partition, epoch, room.clone()).await
    }

    async fn erase_deleted(&self, limit: u32) -> Result<u64, StoreError> {
        self.write(|data| Ok(data.erase(u64::from(limit.max(1))))).await
    }

    async fn room(&self, partition: u16, room: &str) -> Result<Option<RoomRecord>, StoreError> {
        let key = (partition, RoomId::from(room));
        let found = self.read(|data| data.rooms.get(&key).map(|row| row.record.clone())).await?;
        Ok(found.map(|record| RoomRecord { head: self.head(partition, &record), ..record }))
    }

    async fn heads(
        &self,
        partition: u16,
        rooms: Vec<RoomId>,
    ) -> Result<Vec<Option<u64>>, StoreError> {
        let found: Vec<Option<RoomRecord>> = self
            .read(|data| {
                let row = |room: RoomId| data.rooms.get(&(partition, room));
                let standing = |room| row(room).filter(|row| !row.record.deleted);
                rooms.into_iter().map(|room| standing(room).map(|row| row.record.clone())).collect()
            })
            .await?;
        let heads = found.into_iter();
        Ok(heads.map(|record| record.map(|record| self.head(partition, &record))).collect())
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
        let Some(first) = after.checked_add(1) else { return Ok(Vec::new()) };
        self.read(|data| {
            let mut bytes = 0_usize;
            let found = data
                .entries
                .range((partition, room.clone(), first)..=(partition, room, u64::MAX))
                .map(|(_, entry)| entry)
                .take(usize::try_from(limit).unwrap_or(usize::MAX))
                .enumerate();
            found
                .take_while(|(at, entry)| {
                    bytes = bytes.saturating_add(entry.body.len());
                    *at == 0 || bytes <= max_bytes
                })
                .map(|(_, entry)| entry.clone())
                .collect()
        })
        .await
    }

    async fn keys(
        &self,
        partition: u16,
        names: Vec<KeyName>,
    ) -> Result<Vec<Option<KeyRecord>>, StoreError> {
        self.read(|data| {
            let key = |name: KeyName| (partition, name.room, name.sender, name.client_message_id);
            names.into_iter().map(|name| data.keys.get(&key(name)).copied()).collect()
        })
        .await
    }

    async fn forget_keys(&self, before: i64, limit: u32) -> Result<u64, StoreError> {
        self.write(|data| {
            let mut old: Vec<_> = data
                .keys
                .iter()
                .filter(|(_, record)| record.committed_at < before)
                .map(|(key, record)| (record.committed_at, key.clone()))
                .collect();
            old.sort();
            old.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
            for (_, key) in &old {
                data.keys.remove(key);
            }
            Ok(u64::try_from(old.len()).unwrap_or(u64::MAX))
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
        self.read(|data| {
            let mut found: Vec<_> = data
                .members
                .iter()
                .filter(|((of, place, member), _)| {
                    *of == partition && **place == *room && member.as_str() > after
                })
                .map(|(_, record)| record.clone())
                .collect();
            found.sort_by(|a, b| a.member.as_str().cmp(b.member.as_str()));
            found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
            found
        })
        .await
    }

    async fn member(
        &self,
        partition: u16,
        room: &str,
        member: &Principal,
    ) -> Result<Option<MemberRecord>, StoreError> {
        let key = (partition, RoomId::from(room), member.clone());
        self.read(|data| data.members.get(&key).cloned()).await
    }

    async fn rooms_of(
        &self,
        member: &Principal,
        after: &str,
        limit: u32,
    ) -> Result<Vec<(RoomRecord, RoomRole)>, StoreError> {
        self.read(|data| {
            let mut found: Vec<_> = data
                .members
                .iter()
                .filter(|((_, room, of), _)| of == member && **room > *after)
                .filter_map(|((partition, room, _), record)| {
                    let row = data.rooms.get(&(*partition, room.clone()))?;
                    (!row.record.deleted).then(|| (row.record.clone(), record.role))
                })
                .collect();
            found.sort_by(|(a, _), (b, _)| a.room.cmp(&b.room));
            found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
            found
        })
        .await
    }
}
