//! Rooms, members and the log of entries.

pub(crate) mod spans;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::StoreError;
use super::words::words;
use crate::principal::Principal;

/// A room's id; cheap to clone.
pub type RoomId = Arc<str>;

words! {
    /// What a member may do; each can do what the next can. The numbers are the
    /// contract's and the database's.
    RoomRole {
        /// Everything.
        Owner = 1, "OWNER";
        /// Members, readers and the title.
        Moderator = 2, "MODERATOR";
        /// Sends and reads.
        Member = 3, "MEMBER";
        /// Reads.
        Reader = 4, "READER";
    }
}

words! {
    /// What an entry is; the numbers are the contract's `MessageKind`.
    EntryKind {
        /// A member's message.
        Text = 1, "TEXT";
        /// A change of members.
        Membership = 2, "MEMBERSHIP";
        /// A payment's receipt.
        Payment = 3, "PAYMENT";
        /// A change of the room.
        Room = 4, "ROOM";
    }
}

/// An entry of a room's log, as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The room.
    pub room: RoomId,
    /// The position: 1, 2, 3 … without gaps.
    pub seq: u64,
    /// What it is.
    pub kind: EntryKind,
    /// Who wrote it.
    pub sender: Principal,
    /// The sender's own name for it; for entries that the node writes, a name
    /// that makes them idempotent (a payment's receipt), or empty.
    pub client_message_id: Arc<str>,
    /// TEXT: the body, UTF-8. Others: the encoded `Message.event` as a
    /// `simpul.chat.v1.Message` that has nothing but its event set.
    pub body: Bytes,
    /// The entry that it answers; 0 for none.
    pub reply_to: u64,
    /// Microseconds since 1970.
    pub committed_at: i64,
}

/// An entry to be appended with what it changes beside the log.
#[derive(Debug, Clone)]
pub struct NewEntry {
    /// The entry. Its seq is the one after the room's head.
    pub entry: Entry,
    /// What is remembered under (room, sender, client_message_id); `None` when
    /// the entry has no such key.
    pub key: Option<NewKey>,
    /// What changes with it, in the same transaction.
    pub change: Option<Change>,
}

/// What is remembered of a keyed entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewKey {
    /// SHA-256 over what must be the same when the key comes again.
    pub digest: [u8; 32],
    /// How many card numbers were redacted.
    pub redactions: u32,
}

/// What an entry changes beside the log.
#[derive(Debug, Clone)]
pub enum Change {
    /// The room begins with this entry (seq 1); its sender becomes an owner.
    CreateRoom {
        /// The title.
        title: String,
    },
    /// The room gets another title.
    SetTitle {
        /// The title.
        title: String,
    },
    /// A membership begins, ends or changes.
    SetMember {
        /// Whose.
        member: Principal,
        /// The role from now on; `None` ends it.
        role: Option<RoomRole>,
    },
}

/// One partition's part of a group.
#[derive(Debug, Clone)]
pub struct PartitionAppend {
    /// The partition.
    pub partition: u16,
    /// The epoch under which the appender owns it.
    pub epoch: u64,
    /// Entries, per room in order of seq.
    pub entries: Vec<NewEntry>,
}

/// What became of one partition's part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// Durable.
    Committed {
        /// The partition's commit number after it.
        commit_no: u64,
    },
    /// The partition's epoch is not the appender's: nothing of this part was
    /// kept.
    Fenced,
    /// A key is taken, of this part or of one that was written with it: nothing
    /// of this part was kept.
    KeyTaken,
}

impl Appended {
    /// Whether it is durable.
    pub fn is_committed(self) -> bool {
        matches!(self, Appended::Committed { .. })
    }
}

/// A partition's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionState {
    /// The partition.
    pub partition: u16,
    /// The id of the node that owns it; empty for none.
    pub owner: String,
    /// The fencing number; only ever growing.
    pub epoch: u64,
    /// Raised by every append and every deletion.
    pub commit_no: u64,
}

/// A room, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomRecord {
    /// The room.
    pub room: RoomId,
    /// What people see.
    pub title: String,
    /// Who created it.
    pub created_by: Principal,
    /// Microseconds since 1970.
    pub created_at: i64,
    /// The newest entry's seq.
    pub head: u64,
    /// Deleted: the id stays taken, nothing else is left.
    pub deleted: bool,
}

/// A membership, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRecord {
    /// Whose.
    pub member: Principal,
    /// What it may do.
    pub role: RoomRole,
    /// Microseconds since 1970.
    pub joined_at: i64,
}

/// What is remembered under a client message id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRecord {
    /// The entry's position.
    pub seq: u64,
    /// When it was committed, microseconds since 1970.
    pub committed_at: i64,
    /// The digest that must match.
    pub digest: [u8; 32],
    /// How many card numbers were redacted.
    pub redactions: u32,
}

/// Names a keyed entry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyName {
    /// The room.
    pub room: RoomId,
    /// The sender.
    pub sender: Principal,
    /// The sender's own name for the entry.
    pub client_message_id: Arc<str>,
}

/// What a store with another number of partitions answers.
pub(crate) fn other_partitions(found: u64, wanted: u16) -> StoreError {
    StoreError::Version(match found {
        0 => format!("chat.partitions: {wanted} here, but a store has at least 1"),
        _ => {
            format!("chat.partitions: {wanted} here, but the store was made with {found}, for good")
        }
    })
}

/// The partition of a room: a stable hash (the first eight bytes of SHA-256,
/// big endian) modulo the number of partitions.
pub fn partition_of(room: &str, partitions: u16) -> u16 {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, room.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&digest.as_ref()[..8]);
    let slot = u64::from_be_bytes(first) % u64::from(partitions.max(1));
    u16::try_from(slot).unwrap_or(0)
}

/// The chat area. Every future is cancel safe in this sense: a write whose
/// future is dropped may or may not happen, whole.
#[async_trait]
pub trait ChatStore: Send + Sync + std::fmt::Debug {
    /// Makes the partitions exist (0 to `count` - 1; refuses a store that was
    /// made with another count) and takes every one for `owner`, raising its
    /// epoch.
    async fn take_partitions(
        &self,
        owner: &str,
        count: u16,
    ) -> Result<Vec<PartitionState>, StoreError>;

    /// Every partition's row, by partition.
    async fn partition_states(&self) -> Result<Vec<PartitionState>, StoreError>;

    /// Appends, in one transaction or several, fenced partition by partition;
    /// the answers are in the order of `parts`. A part is kept whole or not at
    /// all, whatever becomes of the others. An error says nothing of any part:
    /// each may have been kept. A seq that is taken, or not the one after the
    /// head, is [`StoreError::Corrupt`]: the appender's view is wrong.
    async fn append(&self, parts: Vec<PartitionAppend>) -> Result<Vec<Appended>, StoreError>;

    /// Deletes a room, fenced like an append: from then on it is nobody's and
    /// its id stays taken. What it leaves is for [`ChatStore::erase_deleted`],
    /// so that a large room holds nobody up. Deleting it again, or a room that
    /// never was, changes nothing.
    async fn delete_room(
        &self,
        partition: u16,
        epoch: u64,
        room: &RoomId,
    ) -> Result<Appended, StoreError>;

    /// Erases entries, keys and members of deleted rooms, about `limit` rows in
    /// one transaction; returns how many rows it changed, 0 when nothing is
    /// left to erase.
    async fn erase_deleted(&self, limit: u32) -> Result<u64, StoreError>;

    /// The room, deleted ones included.
    async fn room(&self, partition: u16, room: &str) -> Result<Option<RoomRecord>, StoreError>;

    /// The heads of rooms, in the order asked; `None` for a room that is deleted
    /// or never was.
    async fn heads(
        &self,
        partition: u16,
        rooms: Vec<RoomId>,
    ) -> Result<Vec<Option<u64>>, StoreError>;

    /// Entries after a seq, oldest first: at most `limit`, and at most
    /// `max_bytes` of bodies but at least one entry.
    async fn entries(
        &self,
        partition: u16,
        room: &str,
        after: u64,
        limit: u32,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, StoreError>;

    /// What is remembered under each name, in the order asked.
    async fn keys(
        &self,
        partition: u16,
        names: Vec<KeyName>,
    ) -> Result<Vec<Option<KeyRecord>>, StoreError>;

    /// Forgets the keys of entries that were committed before a time
    /// (microseconds since 1970), at most `limit` at once; returns how many.
    async fn forget_keys(&self, before: i64, limit: u32) -> Result<u64, StoreError>;

    /// Every member of a room, by principal, after one of them.
    async fn members(
        &self,
        partition: u16,
        room: &str,
        after: &str,
        limit: u32,
    ) -> Result<Vec<MemberRecord>, StoreError>;

    /// One member of a room. Engines do this by the key; without that it is
    /// found among all members.
    async fn member(
        &self,
        partition: u16,
        room: &str,
        member: &Principal,
    ) -> Result<Option<MemberRecord>, StoreError> {
        const PAGE: u32 = 512;
        let mut after = String::new();
        loop {
            let page = self.members(partition, room, &after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(None) };
            last.member.as_str().clone_into(&mut after);
            if let Some(found) = page.into_iter().find(|record| record.member == *member) {
                return Ok(Some(found));
            }
        }
    }

    /// The rooms of a principal with its role, by room id, after one of them.
    async fn rooms_of(
        &self,
        member: &Principal,
        after: &str,
        limit: u32,
    ) -> Result<Vec<(RoomRecord, RoomRole)>, StoreError>;
}
