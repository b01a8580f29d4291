//! The append: a fence for each part, then what all kept parts have, together.
//!
//! A part whose fence fails adds nothing to the batch, so it needs no savepoint
//! of its own. Anything else that does not fit fails the whole job, which the
//! writer rolls back.

use sqlx::sqlite::SqliteConnection;

use super::rows::{sealed, stored};
use super::{batch, fence};
use crate::principal::Principal;
use crate::store::StoreError;
use crate::store::chat::spans::{Span, corrupt, spans};
use crate::store::chat::{Appended, Change, Entry, NewEntry, NewKey, PartitionAppend, RoomRole};

pub(super) async fn run(
    connection: &mut SqliteConnection,
    parts: Vec<PartitionAppend>,
) -> Result<Vec<Appended>, StoreError> {
    let mut answers = Vec::with_capacity(parts.len());
    let mut kept: Vec<(u16, NewEntry)> = Vec::new();
    for part in parts {
        let answer = fence(connection, part.partition, part.epoch).await?;
        answers.push(answer);
        if answer == Appended::Fenced {
            continue;
        }
        for span in spans(&part.entries)? {
            raise_head(connection, part.partition, &span).await?;
        }
        kept.extend(part.entries.into_iter().map(|entry| (part.partition, entry)));
    }
    insert_entries(connection, &kept).await?;
    insert_keys(connection, &kept).await?;
    for (partition, new) in &kept {
        if let Some(change) = &new.change {
            apply(connection, *partition, &new.entry, change).await?;
        }
    }
    Ok(answers)
}

/// Brings the room's head from the one before the span to its end, or makes the
/// room when the span begins it.
async fn raise_head(
    connection: &mut SqliteConnection,
    partition: u16,
    span: &Span<'_>,
) -> Result<(), StoreError> {
    let entry = &span.first.entry;
    let last = stored(span.last)?;
    let before = entry.seq.checked_sub(1).ok_or_else(|| corrupt("an entry without a position"))?;
    let done = if let Some(Change::CreateRoom { title }) = &span.first.change {
        sqlx::query(
            "INSERT INTO room (\"partition\", room, title, created_by, created_at, head, deleted) \
             VALUES (?, ?, ?, ?, ?, ?, 0) ON CONFLICT DO NOTHING",
        )
        .bind(partition)
        .bind(entry.room.clone())
        .bind(title.as_str())
        .bind(entry.sender.as_str())
        .bind(entry.committed_at)
        .bind(last)
        .execute(connection)
        .await?
    } else {
        sqlx::query(
            "UPDATE room SET head = ? \
             WHERE \"partition\" = ? AND room = ? AND head = ? AND deleted = 0",
        )
        .bind(last)
        .bind(partition)
        .bind(entry.room.clone())
        .bind(stored(before)?)
        .execute(connection)
        .await?
    };
    match done.rows_affected() {
        1 => Ok(()),
        _ => Err(corrupt("an append that does not begin after the room's head")),
    }
}

async fn insert_entries(
    connection: &mut SqliteConnection,
    kept: &[(u16, NewEntry)],
) -> Result<(), StoreError> {
    for (sql, piece) in batch::split(&batch::INSERT_ENTRIES, kept) {
        let mut query = sqlx::query(sql);
        for (partition, NewEntry { entry, .. }) in piece {
            query = query
                .bind(*partition)
                .bind(entry.room.clone())
                .bind(stored(entry.seq)?)
                .bind(entry.kind as u8)
                .bind(entry.sender.as_str())
                .bind(entry.client_message_id.clone())
                .bind(sealed(&entry.body))
                .bind(stored(entry.reply_to)?)
                .bind(entry.committed_at);
        }
        query.execute(&mut *connection).await.map_err(|error| match unique(&error) {
            true => corrupt("an append at a position that is taken"),
            false => error.into(),
        })?;
    }
    Ok(())
}

async fn insert_keys(
    connection: &mut SqliteConnection,
    kept: &[(u16, NewEntry)],
) -> Result<(), StoreError> {
    let keyed: Vec<(u16, &Entry, NewKey)> = kept
        .iter()
        .filter_map(|(partition, new)| Some((*partition, &new.entry, new.key?)))
        .collect();
    for (sql, piece) in batch::split(&batch::INSERT_KEYS, &keyed) {
        let mut query = sqlx::query(sql);
        for (partition, entry, key) in piece {
            query = query
                .bind(*partition)
                .bind(entry.room.clone())
                .bind(entry.sender.as_str())
                .bind(entry.client_message_id.clone())
                .bind(stored(entry.seq)?)
                .bind(entry.committed_at)
                .bind(key.digest.to_vec())
                .bind(key.redactions);
        }
        query.execute(&mut *connection).await.map_err(|error| match unique(&error) {
            true => StoreError::Conflict("a client message id is taken"),
            false => error.into(),
        })?;
    }
    Ok(())
}

fn unique(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.is_unique_violation())
}

async fn apply(
    connection: &mut SqliteConnection,
    partition: u16,
    entry: &Entry,
    change: &Change,
) -> Result<(), StoreError> {
    match change {
        Change::CreateRoom { .. } => {
            set_member(connection, partition, entry, &entry.sender, RoomRole::Owner).await
        }
        Change::SetTitle { title } => {
            sqlx::query("UPDATE room SET title = ? WHERE \"partition\" = ? AND room = ?")
                .bind(title.as_str())
                .bind(partition)
                .bind(entry.room.clone())
                .execute(connection)
                .await?;
            Ok(())
        }
        Change::SetMember { member, role: Some(role) } => {
            set_member(connection, partition, entry, member, *role).await
        }
        Change::SetMember { member, role: None } => {
            sqlx::query("DELETE FROM member WHERE \"partition\" = ? AND room = ? AND member = ?")
                .bind(partition)
                .bind(entry.room.clone())
                .bind(member.as_str())
                .execute(connection)
                .await?;
            Ok(())
        }
    }
}

/// Another role leaves the time of joining as it was.
async fn set_member(
    connection: &mut SqliteConnection,
    partition: u16,
    entry: &Entry,
    member: &Principal,
    role: RoomRole,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO member (\"partition\", room, member, role, joined_at) VALUES (?, ?, ?, ?, ?) \
         ON CONFLICT (\"partition\", room, member) DO UPDATE SET role = excluded.role",
    )
    .bind(partition)
    .bind(entry.room.clone())
    .bind(member.as_str())
    .bind(role as u8)
    .bind(entry.committed_at)
    .execute(connection)
    .await?;
    Ok(())
}
