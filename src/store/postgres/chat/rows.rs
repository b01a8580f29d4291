//! The chat area's rows to records.

use std::sync::Arc;

use bytes::Bytes;
use sqlx::postgres::PgRow;

use super::super::rows::{column, corrupt, number, principal, small};
use crate::store::StoreError;
use crate::store::chat::{Entry, EntryKind, KeyRecord, MemberRecord, RoomId, RoomRecord, RoomRole};

/// The first byte of a body that is not encrypted.
const PLAIN: u8 = 0;

pub(super) fn role(row: &PgRow, index: usize) -> Result<RoomRole, StoreError> {
    RoomRole::from_number(small(row, index)?).ok_or_else(|| corrupt("an unknown role"))
}

fn kind(row: &PgRow, index: usize) -> Result<EntryKind, StoreError> {
    EntryKind::from_number(small(row, index)?).ok_or_else(|| corrupt("an unknown kind of entry"))
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

/// room, title, created_by, created_at, head, deleted
pub(super) fn room(row: &PgRow) -> Result<RoomRecord, StoreError> {
    let title = column::<&[u8]>(row, 1)?;
    let title = std::str::from_utf8(title).map_err(|_| corrupt("a title that is not UTF-8"))?;
    Ok(RoomRecord {
        room: column::<&str>(row, 0)?.into(),
        title: title.to_owned(),
        created_by: principal(row, 2)?,
        created_at: column(row, 3)?,
        head: number(row, 4)?,
        deleted: column::<i32>(row, 5)? != 0,
    })
}

/// seq, kind, sender, client_message_id, body, reply_to, committed_at
pub(super) fn entry(row: &PgRow, room: &RoomId) -> Result<Entry, StoreError> {
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
pub(super) fn key(row: &PgRow) -> Result<KeyRecord, StoreError> {
    let digest = column::<&[u8]>(row, 3)?;
    Ok(KeyRecord {
        seq: number(row, 1)?,
        committed_at: column(row, 2)?,
        digest: digest.try_into().map_err(|_| corrupt("a digest of another length"))?,
        redactions: number(row, 4)?,
    })
}

/// member, role, joined_at
pub(super) fn member(row: &PgRow) -> Result<MemberRecord, StoreError> {
    Ok(MemberRecord { member: principal(row, 0)?, role: role(row, 1)?, joined_at: column(row, 2)? })
}
