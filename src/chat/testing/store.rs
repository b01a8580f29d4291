//! The store.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;

use crate::principal::Principal;
use crate::store::StoreError;
use crate::store::chat::{
    Appended, Change, ChatStore, Entry, KeyName, KeyRecord, MemberRecord, PartitionAppend,
    PartitionState, RoomId, RoomRecord, RoomRole,
};

/// What goes wrong at the next append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing is kept.
    Lost,
    /// It is kept, and the answer is lost.
    KeptUnanswered,
}

#[derive(Debug, Default)]
struct Data {
    partitions: BTreeMap<u16, PartitionState>,
    rooms: HashMap<RoomId, RoomRecord>,
    members: HashMap<RoomId, BTreeMap<Principal, RoomRole>>,
    entries: HashMap<RoomId, Vec<Entry>>,
    keys: HashMap<KeyName, KeyRecord>,
    fault: Option<Fault>,
}

#[derive(Debug, Default)]
pub(crate) struct MemoryStore {
    data: Mutex<Data>,
    pub(crate) page_reads: AtomicU64,
    pub(crate) appends: AtomicU64,
}

impl MemoryStore {
    fn data(&self) -> MutexGuard<'_, Data> {
        self.data.lock().expect("no test panics in here")
    }

    pub(crate) fn fail_next(&self, fault: Fault) {
        self.data().fault = Some(fault);
    }

    /// Makes the partitions exist, owned by nobody.
    pub(crate) fn ensure(&self, count: u16) {
        let owner = String::new();
        let new =
            |partition| PartitionState { partition, owner: owner.clone(), epoch: 0, commit_no: 0 };
        self.data().partitions = (0..count).map(|partition| (partition, new(partition))).collect();
    }

    /// Takes one partition.
    pub(crate) fn take(&self, partition: u16, owner: &str) -> PartitionState {
        let mut data = self.data();
        let state = data.partitions.get_mut(&partition).expect("a partition");
        state.owner = owner.into();
        state.epoch += 1;
        state.clone()
    }

    /// As an operator would by hand.
    pub(crate) fn raise_epochs(&self) {
        self.data().partitions.values_mut().for_each(|state| state.epoch += 1);
    }

    pub(crate) fn log(&self, room: &str) -> Vec<Entry> {
        self.data().entries.get(room).cloned().unwrap_or_default()
    }
}

fn name(entry: &Entry) -> KeyName {
    KeyName {
        room: entry.room.clone(),
        sender: entry.sender.clone(),
        client_message_id: entry.client_message_id.clone(),
    }
}

impl Data {
    fn raise(&mut self, partition: u16) -> u64 {
        let state = self.partitions.get_mut(&partition).expect("a partition");
        state.commit_no += 1;
        state.commit_no
    }

    fn keep(&mut self, part: &PartitionAppend) {
        for new in &part.entries {
            let entry = &new.entry;
            if let Some(change) = &new.change {
                self.change(entry, change);
            }
            let record = self.rooms.get_mut(&entry.room).expect("a room");
            assert_eq!(entry.seq, record.head + 1, "the owner's view is wrong");
            record.head = entry.seq;
            self.entries.entry(entry.room.clone()).or_default().push(entry.clone());
            if let Some(key) = new.key {
                let record = KeyRecord {
                    seq: entry.seq,
                    committed_at: entry.committed_at,
                    digest: key.digest,
                    redactions: key.redactions,
                };
                let before = self.keys.insert(name(entry), record);
                assert!(before.is_none(), "the key was there");
            }
        }
    }

    fn change(&mut self, entry: &Entry, change: &Change) {
        let members = self.members.entry(entry.room.clone()).or_default();
        match change {
            Change::CreateRoom { title } => {
                members.insert(entry.sender.clone(), RoomRole::Owner);
                let record = RoomRecord {
                    room: entry.room.clone(),
                    title: title.clone(),
                    created_by: entry.sender.clone(),
                    created_at: entry.committed_at,
                    head: 0,
                    deleted: false,
                };
                self.rooms.insert(entry.room.clone(), record);
            }
            Change::SetTitle { title } => {
                self.rooms.get_mut(&entry.room).expect("a room").title = title.clone();
            }
            Change::SetMember { member, role: Some(role) } => {
                members.insert(member.clone(), *role);
            }
            Change::SetMember { member, role: None } => {
                members.remove(member);
            }
        }
    }
}

#[async_trait]
impl ChatStore for MemoryStore {
    async fn take_partitions(
        &self,
        owner: &str,
        count: u16,
    ) -> Result<Vec<PartitionState>, StoreError> {
        let mut data = self.data();
        for partition in 0..count {
            let state = data.partitions.entry(partition).or_insert_with(|| PartitionState {
                partition,
                owner: String::new(),
                epoch: 0,
                commit_no: 0,
            });
            state.owner = owner.into();
            state.epoch += 1;
        }
        Ok(data.partitions.values().cloned().collect())
    }

    async fn partition_states(&self) -> Result<Vec<PartitionState>, StoreError> {
        Ok(self.data().partitions.values().cloned().collect())
    }

    async fn append(&self, parts: Vec<PartitionAppend>) -> Result<Vec<Appended>, StoreError> {
        // As a disk does: others run meanwhile.
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        self.appends.fetch_add(1, Ordering::Relaxed);
        let mut data = self.data();
        let fault = data.fault.take();
        if fault == Some(Fault::Lost) {
            return Err(StoreError::Unavailable("lost".into()));
        }
        // Part by part, as a distributed database does.
        let mut results = Vec::new();
        for part in &parts {
            if data.partitions[&part.partition].epoch != part.epoch {
                results.push(Appended::Fenced);
                continue;
            }
            let mut names = part.entries.iter().filter(|new| new.key.is_some());
            if names.any(|new| data.keys.contains_key(&name(&new.entry))) {
                results.push(Appended::KeyTaken);
                continue;
            }
            data.keep(part);
            results.push(Appended::Committed { commit_no: data.raise(part.partition) });
        }
        match fault {
            None => Ok(results),
            Some(_) => Err(StoreError::Unavailable("unanswered".into())),
        }
    }

    async fn delete_room(
        &self,
        partition: u16,
        epoch: u64,
        room: &RoomId,
    ) -> Result<Appended, StoreError> {
        let mut data = self.data();
        if data.partitions[&partition].epoch != epoch {
            return Ok(Appended::Fenced);
        }
        data.rooms.get_mut(room).expect("a room").deleted = true;
        data.entries.remove(room);
        data.members.remove(room);
        data.keys.retain(|name, _| name.room != *room);
        Ok(Appended::Committed { commit_no: data.raise(partition) })
    }

    async fn heads(&self, _: u16, rooms: Vec<RoomId>) -> Result<Vec<Option<u64>>, StoreError> {
        let data = self.data();
        let head = |room| data.rooms.get(room).filter(|room| !room.deleted).map(|room| room.head);
        Ok(rooms.iter().map(head).collect())
    }

    async fn erase_deleted(&self, _: u32) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn room(&self, _: u16, room: &str) -> Result<Option<RoomRecord>, StoreError> {
        Ok(self.data().rooms.get(room).cloned())
    }

    async fn entries(
        &self,
        _: u16,
        room: &str,
        after: u64,
        limit: u32,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.page_reads.fetch_add(1, Ordering::Relaxed);
        let data = self.data();
        let mut bytes = 0;
        let all = data.entries.get(room).into_iter().flatten();
        let entries = all.filter(|entry| entry.seq > after).take(limit as usize);
        Ok(entries
            .enumerate()
            .take_while(|(index, entry)| {
                bytes += entry.body.len();
                *index == 0 || bytes <= max_bytes
            })
            .map(|(_, entry)| entry.clone())
            .collect())
    }

    async fn keys(
        &self,
        _: u16,
        names: Vec<KeyName>,
    ) -> Result<Vec<Option<KeyRecord>>, StoreError> {
        let data = self.data();
        Ok(names.iter().map(|name| data.keys.get(name).copied()).collect())
    }

    async fn forget_keys(&self, before: i64, limit: u32) -> Result<u64, StoreError> {
        let mut data = self.data();
        let old = data.keys.iter().filter(|(_, record)| record.committed_at < before);
        let old: Vec<_> = old.map(|(name, _)| name.clone()).take(limit as usize).collect();
        data.keys.retain(|name, _| !old.contains(name));
        Ok(old.len() as u64)
    }

    async fn members(
        &self,
        _: u16,
        room: &str,
        after: &str,
        limit: u32,
    ) -> Result<Vec<MemberRecord>, StoreError> {
        let data = self.data();
        let all = data.members.get(room).into_iter().flatten();
        let members = all.filter(|(member, _)| member.as_str() > after).take(limit as usize);
        Ok(members
            .map(|(member, role)| MemberRecord {
                member: member.clone(),
                role: *role,
                joined_at: 0,
            })
            .collect())
    }

    async fn rooms_of(
        &self,
        _: &Principal,
        _: &str,
        _: u32,
    ) -> Result<Vec<(RoomRecord, RoomRole)>, StoreError> {
        // The owner and the sessions never ask.
        Err(StoreError::Fault("not asked here".into()))
    }
}
