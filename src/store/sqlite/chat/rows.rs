//! Rows to records. What stands in the database may be anything (another
//! release, a damaged file, a hand): what cannot be is `Corrupt`, never a panic.

use std::sync::Arc;

use bytes::Bytes;
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Row as _, Sqlite, Type};

use crate::principal::Principal;
use crate::store::StoreError;
use crate::store::chat::{
    Entry, EntryKind, KeyRecord, MemberRecord, PartitionState, RoomId, RoomRecord, RoomRole,
};

/// The first byte of a body that is not encrypted.
const PLAIN: u8 = 0;

fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(format!("chat: {what}"))
}

fn column<'r, T: Decode<'r, Sqlite> + Type<Sqlite>>(
    row: &'r SqliteRow,
    index: usize,
) -> Result<T, StoreError> {
    // The cause may quote the value.
    row.try_get(index).map_err(|_| corrupt("a column is not of its type"))
}

/// A number that cannot be negative, or larger than its type.
pub(in crate::store::sqlite) fn number<T: TryFrom<i64>>(
    row: &SqliteRow,
    index: usize,
) -> Result<T, StoreError> {
    T::try_from(column::<i64>(row, index)?).map_err(|_| corrupt("a number is out of range"))
}

/// The database's form of a number.
pub(in crate::store::sqlite) fn stored(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| corrupt("a number is out of range"))
}

fn principal(row: &SqliteRow, index: usize) -> Result<Principal, StoreError> {
    column::<&str>(row, index)?.parse().map_err(|_| corrupt("a principal does not parse"))
}

pub(super) fn role(row: &SqliteRow, index: usize) -> Result<RoomRole, StoreError> {
    RoomRole::from_number(column(row, index)?).ok_or_else(|| corrupt("an unknown role"))
}

fn kind(row: &SqliteRow, index: usize) -> Result<EntryKind, StoreError> {
    EntryKind::from_number(column(row, index)?).ok_or_else(|| corrupt("an unknown kind of entry"))
}

/// The stored form of a body.
pub(super) fn sealed(body: &[u8]) -> Vec<u8> {
    let mut blob = Vec::with_capacity(body.len() + 1);
    blob.push(PLAIN);
    blob.extend_from_slice(body);
    blob
}

fn opened(blob: &[u8]) -> Option<Bytes> {
    match blob.split_first() {
        Some((&PLAIN, body)) => Some(Bytes::copy_from_slice(body)),
        _ => None,
    }
}

/// id, owner, epoch, commit_no
pub(in crate::store::sqlite) fn partition(row: &SqliteRow) -> Result<PartitionState, StoreError> {
    Ok(PartitionState {
        partition: number(row, 0)?,
        owner: column(row, 1)?,
        epoch: number(row, 2)?,
        commit_no: number(row, 3)?,
    })
}

/// room, title, created_by, created_at, head, deleted
pub(super) fn room(row: &SqliteRow) -> Result<RoomRecord, StoreError> {
    Ok(RoomRecord {
        room: column::<&str>(row, 0)?.into(),
        title: column(row, 1)?,
        created_by: principal(row, 2)?,
        created_at: column(row, 3)?,
        head: number(row, 4)?,
        deleted: column::<i64>(row, 5)? != 0,
    })
}

/// seq, kind, sender, client_message_id, body, reply_to, committed_at
pub(super) fn entry(row: &SqliteRow, room: &RoomId) -> Result<Entry, StoreError> {
    let (seq, kind) = (number(row, 0)?, kind(row, 1)?);
    let wrong = |what| corrupt(&format!("entry {seq} of room {room}: {what}"));
    let body = opened(column(row, 4)?).ok_or_else(|| wrong("a body of unknown format"))?;
    if kind == EntryKind::Text && std::str::from_utf8(&body).is_err() {
        return Err(wrong("a text that is not UTF-8"));
    }
    Ok(Entry {
        room: room.clone(),
        seq,
        kind,
        sender: principal(row, 2)?,
        client_message_id: Arc::from(column::<&str>(row, 3)?),
        body,
        reply_to: number(row, 5)?,
        committed_at: column(row, 6)?,
    })
}

/// place, seq, committed_at, digest, redactions
pub(super) fn key(row: &SqliteRow) -> Result<KeyRecord, StoreError> {
    let digest = column::<&[u8]>(row, 3)?;
    Ok(KeyRecord {
        seq: number(row, 1)?,
        committed_at: column(row, 2)?,
        digest: digest.try_into().map_err(|_| corrupt("a digest of another length"))?,
        redactions: number(row, 4)?,
    })
}

/// member, role, joined_at
pub(super) fn member(row: &SqliteRow) -> Result<MemberRecord, StoreError> {
    Ok(MemberRecord { member: principal(row, 0)?, role: role(row, 1)?, joined_at: column(row, 2)? })
}
