//! Reading: each query by the key or an index, on a connection of the pool that
//! is given back with the answer.

use futures_util::TryStreamExt as _;
use sqlx::sqlite::SqlitePool;

use super::rows::{self, number};
use super::{STATES, batch};
use crate::principal::Principal;
use crate::store::StoreError;
use crate::store::chat::{
    Entry, KeyName, KeyRecord, MemberRecord, PartitionState, RoomId, RoomRecord, RoomRole,
};

pub(super) async fn partition_states(
    readers: &SqlitePool,
) -> Result<Vec<PartitionState>, StoreError> {
    let rows = sqlx::query(STATES).fetch_all(readers).await?;
    rows.iter().map(rows::partition).collect()
}

pub(super) async fn room(
    readers: &SqlitePool,
    partition: u16,
    room: &str,
) -> Result<Option<RoomRecord>, StoreError> {
    let row = sqlx::query(
        "SELECT room, title, created_by, created_at, head, deleted FROM room \
         WHERE \"partition\" = ? AND room = ?",
    )
    .bind(partition)
    .bind(room)
    .fetch_optional(readers)
    .await?;
    row.as_ref().map(rows::room).transpose()
}

/// One look by the key for each; a handful at a time asks for them.
pub(super) async fn heads(
    readers: &SqlitePool,
    partition: u16,
    rooms: Vec<RoomId>,
) -> Result<Vec<Option<u64>>, StoreError> {
    let mut connection = readers.acquire().await?;
    let mut heads = Vec::with_capacity(rooms.len());
    for room in rooms {
        let row = sqlx::query(
            "SELECT head FROM room WHERE \"partition\" = ? AND room = ? AND deleted = 0",
        )
        .bind(partition)
        .bind(room)
        .fetch_optional(&mut *connection)
        .await?;
        heads.push(row.as_ref().map(|row| number(row, 0)).transpose()?);
    }
    Ok(heads)
}

pub(super) async fn entries(
    readers: &SqlitePool,
    partition: u16,
    room: &str,
    after: u64,
    limit: u32,
    max_bytes: usize,
) -> Result<Vec<Entry>, StoreError> {
    let id = RoomId::from(room);
    let mut found = sqlx::query(
        "SELECT seq, kind, sender, client_message_id, body, reply_to, committed_at \
         FROM entry WHERE \"partition\" = ? AND room = ? AND seq > ? ORDER BY seq LIMIT ?",
    )
    .bind(partition)
    .bind(room)
    // Nothing can stand after a number that the database cannot hold.
    .bind(i64::try_from(after).unwrap_or(i64::MAX))
    .bind(limit)
    .fetch(readers);
    let mut entries = Vec::new();
    let mut bytes = 0usize;
    while let Some(row) = found.try_next().await? {
        let entry = rows::entry(&row, &id)?;
        bytes = bytes.saturating_add(entry.body.len());
        if bytes > max_bytes && !entries.is_empty() {
            break;
        }
        entries.push(entry);
    }
    Ok(entries)
}

pub(super) async fn keys(
    readers: &SqlitePool,
    partition: u16,
    names: Vec<KeyName>,
) -> Result<Vec<Option<KeyRecord>>, StoreError> {
    let mut records = vec![None; names.len()];
    let mut connection = readers.acquire().await?;
    let mut first = 0;
    for (sql, names) in batch::split(&batch::FIND_KEYS, &names) {
        let mut query = sqlx::query(sql).bind(partition);
        for name in names {
            query = query
                .bind(name.room.clone())
                .bind(name.sender.as_str())
                .bind(name.client_message_id.clone());
        }
        for row in query.fetch_all(&mut *connection).await? {
            let index: u64 = number(&row, 0)?;
            let record = rows::key(&row)?;
            let place = usize::try_from(index).ok().and_then(|i| records.get_mut(first + i));
            *place.ok_or_else(|| StoreError::Fault("a key out of range".to_owned()))? =
                Some(record);
        }
        first += names.len();
    }
    Ok(records)
}

pub(super) async fn members(
    readers: &SqlitePool,
    partition: u16,
    room: &str,
    after: &str,
    limit: u32,
) -> Result<Vec<MemberRecord>, StoreError> {
    let rows = sqlx::query(
        "SELECT member, role, joined_at FROM member \
         WHERE \"partition\" = ? AND room = ? AND member > ? ORDER BY member LIMIT ?",
    )
    .bind(partition)
    .bind(room)
    .bind(after)
    .bind(limit)
    .fetch_all(readers)
    .await?;
    rows.iter().map(rows::member).collect()
}

pub(super) async fn member(
    readers: &SqlitePool,
    partition: u16,
    room: &str,
    member: &Principal,
) -> Result<Option<MemberRecord>, StoreError> {
    let row = sqlx::query(
        "SELECT member, role, joined_at FROM member \
         WHERE \"partition\" = ? AND room = ? AND member = ?",
    )
    .bind(partition)
    .bind(room)
    .bind(member.as_str())
    .fetch_optional(readers)
    .await?;
    row.as_ref().map(rows::member).transpose()
}

pub(super) async fn rooms_of(
    readers: &SqlitePool,
    member: &Principal,
    after: &str,
    limit: u32,
) -> Result<Vec<(RoomRecord, RoomRole)>, StoreError> {
    let rows = sqlx::query(
        "SELECT r.room, r.title, r.created_by, r.created_at, r.head, r.deleted, m.role \
         FROM member m CROSS JOIN room r \
         ON r.\"partition\" = m.\"partition\" AND r.room = m.room \
         WHERE m.member = ? AND m.room > ? AND r.deleted = 0 ORDER BY m.room LIMIT ?",
    )
    .bind(member.as_str())
    .bind(after)
    .bind(limit)
    .fetch_all(readers)
    .await?;
    rows.iter().map(|row| Ok((rows::room(row)?, rows::role(row, 6)?))).collect()
}
