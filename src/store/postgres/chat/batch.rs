//! What the held parts of an append have, as columns: one statement for all new
//! rooms, one for all heads, one for all entries and one for all keys. Each
//! column is an array, so that a statement has one form whatever its size, and
//! is prepared once.

use sqlx::postgres::PgConnection;

use super::super::rows::stored;
use super::rows::sealed;
use crate::principal::Principal;
use crate::store::StoreError;
use crate::store::chat::spans::{Span, corrupt, spans};
use crate::store::chat::{Change, Entry, NewEntry, PartitionAppend, RoomRole};

/// The parts, taken apart.
#[derive(Debug, Default)]
pub(super) struct Batch<'a> {
    rooms: Rooms<'a>,
    heads: Heads<'a>,
    entries: Entries<'a>,
    keys: Keys<'a>,
    changes: Vec<(i32, &'a Entry, &'a Change)>,
}

#[derive(Debug, Default)]
struct Rooms<'a> {
    partition: Vec<i32>,
    room: Vec<&'a str>,
    title: Vec<&'a [u8]>,
    created_by: Vec<&'a str>,
    created_at: Vec<i64>,
    head: Vec<i64>,
}

#[derive(Debug, Default)]
struct Heads<'a> {
    partition: Vec<i32>,
    room: Vec<&'a str>,
    before: Vec<i64>,
    last: Vec<i64>,
}

#[derive(Debug, Default)]
struct Entries<'a> {
    partition: Vec<i32>,
    room: Vec<&'a str>,
    seq: Vec<i64>,
    kind: Vec<i32>,
    sender: Vec<&'a str>,
    client_message_id: Vec<&'a str>,
    body: Vec<Vec<u8>>,
    reply_to: Vec<i64>,
    committed_at: Vec<i64>,
}

#[derive(Debug, Default)]
struct Keys<'a> {
    partition: Vec<i32>,
    room: Vec<&'a str>,
    sender: Vec<&'a str>,
    client_message_id: Vec<&'a str>,
    seq: Vec<i64>,
    committed_at: Vec<i64>,
    digest: Vec<&'a [u8]>,
    redactions: Vec<i64>,
}

impl<'a> Batch<'a> {
    /// Takes the parts apart; refuses what has gaps.
    pub(super) fn of(parts: &[&'a PartitionAppend]) -> Result<Self, StoreError> {
        let mut batch = Self::default();
        for part in parts {
            let partition = i32::from(part.partition);
            for span in spans(&part.entries)? {
                batch.add_span(partition, &span)?;
            }
            for new in &part.entries {
                batch.add_entry(partition, new)?;
            }
        }
        Ok(batch)
    }

    fn add_span(&mut self, partition: i32, span: &Span<'a>) -> Result<(), StoreError> {
        let entry = &span.first.entry;
        let last = stored(span.last)?;
        let before =
            entry.seq.checked_sub(1).ok_or_else(|| corrupt("an entry without a position"))?;
        if let Some(Change::CreateRoom { title }) = &span.first.change {
            self.rooms.partition.push(partition);
            self.rooms.room.push(&entry.room);
            self.rooms.title.push(title.as_bytes());
            self.rooms.created_by.push(entry.sender.as_str());
            self.rooms.created_at.push(entry.committed_at);
            self.rooms.head.push(last);
        } else {
            self.heads.partition.push(partition);
            self.heads.room.push(&entry.room);
            self.heads.before.push(stored(before)?);
            self.heads.last.push(last);
        }
        Ok(())
    }

    fn add_entry(&mut self, partition: i32, new: &'a NewEntry) -> Result<(), StoreError> {
        let entry = &new.entry;
        let seq = stored(entry.seq)?;
        let entries = &mut self.entries;
        entries.partition.push(partition);
        entries.room.push(&entry.room);
        entries.seq.push(seq);
        entries.kind.push(i32::from(entry.kind as u8));
        entries.sender.push(entry.sender.as_str());
        entries.client_message_id.push(&entry.client_message_id);
        entries.body.push(sealed(&entry.body));
        entries.reply_to.push(stored(entry.reply_to)?);
        entries.committed_at.push(entry.committed_at);
        if let Some(key) = &new.key {
            let keys = &mut self.keys;
            keys.partition.push(partition);
            keys.room.push(&entry.room);
            keys.sender.push(entry.sender.as_str());
            keys.client_message_id.push(&entry.client_message_id);
            keys.seq.push(seq);
            keys.committed_at.push(entry.committed_at);
            keys.digest.push(&key.digest);
            keys.redactions.push(i64::from(key.redactions));
        }
        if let Some(change) = &new.change {
            self.changes.push((partition, entry, change));
        }
        Ok(())
    }

    /// Writes everything under the fence. With `one`, the database is
    /// distributed and all of it is of one partition, which is then named, so
    /// that the statement goes to one shard.
    pub(super) async fn write(
        self,
        connection: &mut PgConnection,
        one: bool,
    ) -> Result<(), StoreError> {
        self.rooms.insert(connection).await?;
        self.heads.raise(connection, one).await?;
        self.entries.insert(connection).await?;
        self.keys.insert(connection).await?;
        for (partition, entry, change) in self.changes {
            apply(connection, partition, entry, change).await?;
        }
        Ok(())
    }
}

fn not_after_the_head() -> StoreError {
    corrupt("an append that does not begin after the room's head")
}

fn unique(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.is_unique_violation())
}

impl Rooms<'_> {
    async fn insert(self, connection: &mut PgConnection) -> Result<(), StoreError> {
        if self.room.is_empty() {
            return Ok(());
        }
        let inserted = sqlx::query(
            "INSERT INTO room (\"partition\", room, title, created_by, created_at, head, deleted) \
             SELECT *, 0 FROM unnest($1::int4[], $2::text[], $3::bytea[], $4::text[], $5::int8[], \
             $6::int8[])",
        )
        .bind(self.partition)
        .bind(self.room)
        .bind(self.title)
        .bind(self.created_by)
        .bind(self.created_at)
        .bind(self.head)
        .execute(connection)
        .await;
        match inserted {
            Ok(_) => Ok(()),
            Err(error) if unique(&error) => Err(not_after_the_head()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Heads<'_> {
    async fn raise(self, connection: &mut PgConnection, one: bool) -> Result<(), StoreError> {
        let Some(first) = self.partition.first().copied() else { return Ok(()) };
        let expected = self.room.len();
        let query = if one {
            sqlx::query(
                "UPDATE room r SET head = n.last \
                 FROM unnest($1::text[], $2::int8[], $3::int8[]) AS n(room, before, last) \
                 WHERE r.\"partition\" = $4 AND r.room = n.room \
                 AND r.head = n.before AND r.deleted = 0",
            )
            .bind(self.room)
            .bind(self.before)
            .bind(self.last)
            .bind(first)
        } else {
            sqlx::query(
                "UPDATE room r SET head = n.last \
                 FROM unnest($1::text[], $2::int8[], $3::int8[], $4::int4[]) \
                      AS n(room, before, last, slot) \
                 WHERE r.\"partition\" = n.slot AND r.room = n.room \
                 AND r.head = n.before AND r.deleted = 0",
            )
            .bind(self.room)
            .bind(self.before)
            .bind(self.last)
            .bind(self.partition)
        };
        let raised = query.execute(connection).await?.rows_affected();
        if u64::try_from(expected) == Ok(raised) { Ok(()) } else { Err(not_after_the_head()) }
    }
}

impl Entries<'_> {
    async fn insert(self, connection: &mut PgConnection) -> Result<(), StoreError> {
        if self.room.is_empty() {
            return Ok(());
        }
        let inserted = sqlx::query(
            "INSERT INTO entry (\"partition\", room, seq, kind, sender, client_message_id, body, \
             reply_to, committed_at) \
             SELECT * FROM unnest($1::int4[], $2::text[], $3::int8[], $4::int4[], $5::text[], \
             $6::text[], $7::bytea[], $8::int8[], $9::int8[])",
        )
        .bind(self.partition)
        .bind(self.room)
        .bind(self.seq)
        .bind(self.kind)
        .bind(self.sender)
        .bind(self.client_message_id)
        .bind(self.body)
        .bind(self.reply_to)
        .bind(self.committed_at)
        .execute(connection)
        .await;
        match inserted {
            Ok(_) => Ok(()),
            Err(error) if unique(&error) => Err(corrupt("an append at a position that is taken")),
            Err(error) => Err(error.into()),
        }
    }
}

impl Keys<'_> {
    async fn insert(self, connection: &mut PgConnection) -> Result<(), StoreError> {
        if self.room.is_empty() {
            return Ok(());
        }
        let inserted = sqlx::query(
            "INSERT INTO entry_key (\"partition\", room, sender, client_message_id, seq, \
             committed_at, digest, redactions) \
             SELECT * FROM unnest($1::int4[], $2::text[], $3::text[], $4::text[], $5::int8[], \
             $6::int8[], $7::bytea[], $8::int8[])",
        )
        .bind(self.partition)
        .bind(self.room)
        .bind(self.sender)
        .bind(self.client_message_id)
        .bind(self.seq)
        .bind(self.committed_at)
        .bind(self.digest)
        .bind(self.redactions)
        .execute(connection)
        .await;
        match inserted {
            Ok(_) => Ok(()),
            Err(error) if unique(&error) => {
                Err(StoreError::Conflict("a client message id is taken"))
            }
            Err(error) => Err(error.into()),
        }
    }
}

async fn apply(
    connection: &mut PgConnection,
    partition: i32,
    entry: &Entry,
    change: &Change,
) -> Result<(), StoreError> {
    match change {
        Change::CreateRoom { .. } => {
            set_member(connection, partition, entry, &entry.sender, RoomRole::Owner).await
        }
        Change::SetTitle { title } => {
            sqlx::query("UPDATE room SET title = $3 WHERE \"partition\" = $1 AND room = $2")
                .bind(partition)
                .bind(&*entry.room)
                .bind(title.as_bytes())
                .execute(connection)
                .await?;
            Ok(())
        }
        Change::SetMember { member, role: Some(role) } => {
            set_member(connection, partition, entry, member, *role).await
        }
        Change::SetMember { member, role: None } => {
            sqlx::query(
                "DELETE FROM member WHERE \"partition\" = $1 AND room = $2 AND member = $3",
            )
            .bind(partition)
            .bind(&*entry.room)
            .bind(member.as_str())
            .execute(connection)
            .await?;
            Ok(())
        }
    }
}

/// Another role leaves the time of joining as it was.
async fn set_member(
    connection: &mut PgConnection,
    partition: i32,
    entry: &Entry,
    member: &Principal,
    role: RoomRole,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO member (\"partition\", room, member, role, joined_at) \
         VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (\"partition\", room, member) DO UPDATE SET role = excluded.role",
    )
    .bind(partition)
    .bind(&*entry.room)
    .bind(member.as_str())
    .bind(i32::from(role as u8))
    .bind(entry.committed_at)
    .execute(connection)
    .await?;
    Ok(())
}
