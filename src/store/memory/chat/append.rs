//! The append and the deletion of a room, fenced; and what deletion leaves.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use futures_util::future::join_all;

use crate::fault::{self, Plant};
use crate::store::StoreError;
use crate::store::chat::{
    Appended, Change, Entry, KeyRecord, MemberRecord, NewEntry, PartitionAppend, PartitionState,
    RoomId, RoomRecord, RoomRole,
};
use crate::store::memory::MemoryStore;
use crate::store::memory::data::{Data, Room};

fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(format!("chat: {what}"))
}

impl MemoryStore {
    pub(super) async fn append_parts(
        &self,
        parts: Vec<PartitionAppend>,
    ) -> Result<Vec<Appended>, StoreError> {
        if !self.shared.lock().apart {
            return self.append_group(parts).await;
        }
        let groups = parts.into_iter().map(|part| self.append_group(vec![part]));
        // None is cut off because another one failed.
        let answers: Result<Vec<_>, _> = join_all(groups).await.into_iter().collect();
        Ok(answers?.concat())
    }

    /// Appends in one transaction.
    async fn append_group(&self, parts: Vec<PartitionAppend>) -> Result<Vec<Appended>, StoreError> {
        let count = parts.len();
        match self.append_once(parts).await {
            Err(StoreError::Conflict(_)) => Ok(vec![Appended::KeyTaken; count]),
            other => other,
        }
    }

    async fn append_once(&self, parts: Vec<PartitionAppend>) -> Result<Vec<Appended>, StoreError> {
        self.trip().await?;
        let transaction = self.transaction();
        // Rows are locked in their order, or two appends would wait for each other.
        let mut order: Vec<_> = parts.iter().map(|part| (part.partition, part.epoch)).collect();
        order.sort_unstable();
        let fenced: BTreeMap<_, _> =
            order.iter().copied().zip(self.fence(&transaction, &order).await?).collect();
        let stands = |part: &PartitionAppend| fenced[&(part.partition, part.epoch)];
        let kept: Vec<PartitionAppend> =
            parts.iter().filter(|part| stands(part)).cloned().collect();
        // The inserts.
        self.trip().await?;
        self.shared.lock().check(&kept)?;
        let numbers: BTreeMap<u16, u64> = {
            let data = self.shared.lock();
            let next = |part: &PartitionAppend| {
                data.partitions.get(&part.partition).map_or(0, |row| row.commit_no + 1)
            };
            kept.iter().map(|part| (part.partition, next(part))).collect()
        };
        if !kept.is_empty() {
            let written = kept.iter().map(|part| part.partition).collect();
            self.commit(transaction, move |data| data.append(kept)).await?;
            self.wrote(written);
        }
        let answer = |part: &PartitionAppend| match numbers.get(&part.partition) {
            Some(commit_no) if stands(part) => Appended::Committed { commit_no: *commit_no },
            _ => Appended::Fenced,
        };
        Ok(parts.iter().map(answer).collect())
    }

    pub(super) async fn delete(
        &self,
        partition: u16,
        epoch: u64,
        room: RoomId,
    ) -> Result<Appended, StoreError> {
        self.trip().await?;
        let transaction = self.transaction();
        if self.fence(&transaction, &[(partition, epoch)]).await? == [false] {
            return Ok(Appended::Fenced);
        }
        let standing = self.shared.lock().partitions.get(&partition).map(|row| row.commit_no);
        self.commit(transaction, move |data| {
            data.raise(partition);
            if let Some(row) = data.rooms.get_mut(&(partition, room))
                && !row.record.deleted
            {
                row.record = RoomRecord {
                    title: String::new(),
                    head: 0,
                    deleted: true,
                    ..row.record.clone()
                };
                row.erase = true;
            }
            Ok(())
        })
        .await?;
        Ok(Appended::Committed { commit_no: standing.unwrap_or(0) + 1 })
    }

    /// The head as this client believes it to be.
    pub(super) fn head(&self, partition: u16, record: &RoomRecord) -> u64 {
        let stale = self.stale.lock().unwrap_or_else(PoisonError::into_inner);
        let of = stale.get(&partition).and_then(|rooms| rooms.get(&record.room));
        of.copied().unwrap_or(record.head)
    }

    /// After its own first append a client knows better.
    fn wrote(&self, partitions: Vec<u16>) {
        let mut stale = self.stale.lock().unwrap_or_else(PoisonError::into_inner);
        for partition in partitions {
            stale.remove(&partition);
        }
    }
}

impl Data {
    pub(in crate::store::memory) fn make_partitions(&mut self, count: u16) {
        let row =
            |partition| PartitionState { partition, owner: String::new(), epoch: 0, commit_no: 0 };
        self.partitions = (0..count).map(|partition| (partition, row(partition))).collect();
    }

    fn raise(&mut self, partition: u16) {
        if let Some(row) = self.partitions.get_mut(&partition) {
            row.commit_no += 1;
        }
    }

    /// What the database's constraints say to the inserts, and the head's
    /// compare-and-set. The planted faults that are about the fence take the
    /// constraints away too: they would hide that it is missing.
    fn check(&self, parts: &[PartitionAppend]) -> Result<(), StoreError> {
        let lax = fault::planted(Plant::NoFence) || fault::planted(Plant::HeadInTake);
        let mut heads: BTreeMap<(u16, &RoomId), u64> = BTreeMap::new();
        let mut fresh = std::collections::BTreeSet::new();
        for (partition, new) in all(parts) {
            let NewEntry { entry, key, change } = new;
            let place = (partition, entry.room.clone());
            let row = self.rooms.get(&place);
            let known = heads.get(&(partition, &entry.room)).copied();
            if matches!(change, Some(Change::CreateRoom { .. })) {
                if entry.seq != 1 || known.is_some() || row.is_some() && !lax {
                    return Err(corrupt("a room that does not begin with its first entry"));
                }
            } else {
                let standing = row.filter(|row| !row.record.deleted).map(|row| row.record.head);
                let follows = known.or(standing).is_some_and(|head| head + 1 == entry.seq);
                let passes = lax && known.is_none();
                if !follows && !passes {
                    return Err(corrupt("an append that does not begin after the room's head"));
                }
            }
            heads.insert((partition, &entry.room), entry.seq);
            if key.is_some() {
                let name = name(partition, entry);
                if !lax && self.keys.contains_key(&name) || !fresh.insert(name) {
                    return Err(StoreError::Conflict("a client message id is taken"));
                }
            }
        }
        Ok(())
    }

    fn append(&mut self, parts: Vec<PartitionAppend>) -> Result<(), StoreError> {
        self.check(&parts)?;
        for part in parts {
            self.raise(part.partition);
            for new in part.entries {
                self.insert(part.partition, new);
            }
        }
        Ok(())
    }

    fn insert(&mut self, partition: u16, new: NewEntry) {
        let NewEntry { entry, key, change } = new;
        if let Some(key) = key {
            let record = KeyRecord {
                seq: entry.seq,
                committed_at: entry.committed_at,
                digest: key.digest,
                redactions: key.redactions,
            };
            self.keys.insert(name(partition, &entry), record);
        }
        if let Some(change) = &change {
            self.change(partition, &entry, change);
        }
        if let Some(row) = self.rooms.get_mut(&(partition, entry.room.clone())) {
            row.record.head = entry.seq;
        }
        self.entries.insert((partition, entry.room.clone(), entry.seq), entry);
    }

    fn change(&mut self, partition: u16, entry: &Entry, change: &Change) {
        let place = (partition, entry.room.clone());
        match change {
            Change::CreateRoom { title } => {
                let record = RoomRecord {
                    room: entry.room.clone(),
                    title: title.clone(),
                    created_by: entry.sender.clone(),
                    created_at: entry.committed_at,
                    head: 0,
                    deleted: false,
                };
                self.rooms.insert(place, Room { record, erase: false });
                let (member, role) = (entry.sender.clone(), RoomRole::Owner);
                self.change(partition, entry, &Change::SetMember { member, role: Some(role) });
            }
            Change::SetTitle { title } => {
                if let Some(row) = self.rooms.get_mut(&place) {
                    row.record.title.clone_from(title);
                }
            }
            Change::SetMember { member, role } => {
                let key = (partition, entry.room.clone(), member.clone());
                let Some(role) = *role else {
                    self.members.remove(&key);
                    return;
                };
                // Another role leaves the time of joining as it was.
                let (member, joined_at) = (member.clone(), entry.committed_at);
                let fresh = MemberRecord { member, role, joined_at };
                self.members.entry(key).or_insert(fresh).role = role;
            }
        }
    }

    /// Erases a slice of one deleted room; the last one says that it is done.
    pub(super) fn erase(&mut self, limit: u64) -> u64 {
        let Some(place) =
            self.rooms.iter().find(|(_, row)| row.erase).map(|(place, _)| place.clone())
        else {
            return 0;
        };
        let mut left = limit;
        let mut goes = |partition: u16, room: &RoomId| {
            let goes = left > 0 && partition == place.0 && *room == place.1;
            left -= u64::from(goes);
            !goes
        };
        self.entries.retain(|(partition, room, _), _| goes(*partition, room));
        self.keys.retain(|(partition, room, ..), _| goes(*partition, room));
        self.members.retain(|(partition, room, _), _| goes(*partition, room));
        if left == 0 {
            return limit;
        }
        if let Some(row) = self.rooms.get_mut(&place) {
            row.erase = false;
        }
        limit - left + 1
    }
}

fn all(parts: &[PartitionAppend]) -> impl Iterator<Item = (u16, &NewEntry)> {
    parts.iter().flat_map(|part| part.entries.iter().map(|entry| (part.partition, entry)))
}

fn name(partition: u16, entry: &Entry) -> crate::store::memory::data::Key {
    (partition, entry.room.clone(), entry.sender.clone(), entry.client_message_id.clone())
}
