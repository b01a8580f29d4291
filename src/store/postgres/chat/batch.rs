//! What the held parts of an append have, as columns. Each column is an array,
//! so that a statement has one form whatever its size, and is prepared once.
//!
//! Heads, entries and keys are written by one statement ([`together`]); on a
//! distributed database by one each ([`apart`]), every form of which Citus sends
//! to one shard. Either begins after the fence is held, so that its snapshot has
//! all that was committed under it: a head is never compared in the statement
//! that took the fence, which may see it as it was before.

mod apart;
mod changes;
mod together;

use sqlx::postgres::PgConnection;

use super::super::rows::stored;
use super::rows::sealed;
use crate::store::StoreError;
use crate::store::chat::spans::{Span, corrupt, spans};
use crate::store::chat::{Change, Entry, NewEntry, PartitionAppend};

/// The parts, taken apart.
#[derive(Debug, Default)]
pub(super) struct Batch<'a> {
    rooms: Rooms<'a>,
    heads: Heads<'a>,
    entries: Entries<'a>,
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

/// Entries, each with its key. An entry without a key has no digest.
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
    digest: Vec<Option<&'a [u8]>>,
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
        let key = new.key.as_ref();
        let entries = &mut self.entries;
        entries.partition.push(partition);
        entries.room.push(&entry.room);
        entries.seq.push(stored(entry.seq)?);
        entries.kind.push(i32::from(entry.kind as u8));
        entries.sender.push(entry.sender.as_str());
        entries.client_message_id.push(&entry.client_message_id);
        entries.body.push(sealed(&entry.body));
        entries.reply_to.push(stored(entry.reply_to)?);
        entries.committed_at.push(entry.committed_at);
        entries.digest.push(key.map(|key| key.digest.as_slice()));
        entries.redactions.push(key.map_or(0, |key| i64::from(key.redactions)));
        if let Some(change) = &new.change {
            self.changes.push((partition, entry, change));
        }
        Ok(())
    }

    /// Writes everything under the fence, which is held. With `one`, the
    /// database is distributed and all of it is of one partition.
    pub(super) async fn write(
        self,
        connection: &mut PgConnection,
        one: bool,
    ) -> Result<(), StoreError> {
        self.rooms.insert(connection).await?;
        if one {
            apart::write(connection, &self.heads, &self.entries).await?;
        } else {
            together::write(connection, &self.heads, &self.entries).await?;
        }
        for (partition, entry, change) in self.changes {
            changes::apply(connection, partition, entry, change).await?;
        }
        Ok(())
    }
}

fn not_after_the_head() -> StoreError {
    corrupt("an append that does not begin after the room's head")
}

fn position_taken() -> StoreError {
    corrupt("an append at a position that is taken")
}

fn name_taken() -> StoreError {
    StoreError::Conflict("a client message id is taken")
}

/// What a key that is there already means to a statement.
fn refused(error: sqlx::Error, taken: StoreError) -> StoreError {
    let unique = error.as_database_error().is_some_and(|error| error.is_unique_violation());
    if unique { taken } else { error.into() }
}

impl Rooms<'_> {
    async fn insert(self, connection: &mut PgConnection) -> Result<(), StoreError> {
        if self.room.is_empty() {
            return Ok(());
        }
        sqlx::query(
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
        .await
        .map_err(|error| refused(error, not_after_the_head()))?;
        Ok(())
    }
}
