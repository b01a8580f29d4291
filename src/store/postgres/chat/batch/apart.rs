//! Heads, entries and keys in a statement each, for a distributed database: all
//! of it is of one partition, which is named where a row is looked for, so that
//! the statement goes to one shard.

use sqlx::postgres::PgConnection;

use super::{Entries, Heads, name_taken, not_after_the_head, position_taken, refused};
use crate::store::StoreError;

pub(super) async fn write(
    connection: &mut PgConnection,
    heads: &Heads<'_>,
    entries: &Entries<'_>,
) -> Result<(), StoreError> {
    heads.raise(connection).await?;
    if entries.room.is_empty() {
        return Ok(());
    }
    entries.insert(connection).await?;
    if entries.digest.iter().any(Option::is_some) {
        entries.insert_keys(connection).await?;
    }
    Ok(())
}

impl Heads<'_> {
    async fn raise(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        let Some(partition) = self.partition.first() else { return Ok(()) };
        let raised = sqlx::query(
            "UPDATE room r SET head = n.last \
             FROM unnest($1::text[], $2::int8[], $3::int8[]) AS n(room, before, last) \
             WHERE r.\"partition\" = $4 AND r.room = n.room \
             AND r.head = n.before AND r.deleted = 0",
        )
        .bind(&self.room)
        .bind(&self.before)
        .bind(&self.last)
        .bind(partition)
        .execute(connection)
        .await?
        .rows_affected();
        if u64::try_from(self.room.len()) == Ok(raised) {
            Ok(())
        } else {
            Err(not_after_the_head())
        }
    }
}

impl Entries<'_> {
    async fn insert(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO entry (\"partition\", room, seq, kind, sender, client_message_id, body, \
             reply_to, committed_at) \
             SELECT * FROM unnest($1::int4[], $2::text[], $3::int8[], $4::int4[], $5::text[], \
             $6::text[], $7::bytea[], $8::int8[], $9::int8[])",
        )
        .bind(&self.partition)
        .bind(&self.room)
        .bind(&self.seq)
        .bind(&self.kind)
        .bind(&self.sender)
        .bind(&self.client_message_id)
        .bind(&self.body)
        .bind(&self.reply_to)
        .bind(&self.committed_at)
        .execute(connection)
        .await
        .map_err(|error| refused(error, position_taken()))?;
        Ok(())
    }

    async fn insert_keys(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO entry_key (\"partition\", room, sender, client_message_id, seq, \
             committed_at, digest, redactions) \
             SELECT k.* FROM unnest($1::int4[], $2::text[], $3::text[], $4::text[], $5::int8[], \
             $6::int8[], $7::bytea[], $8::int8[]) \
             AS k(slot, room, sender, name, seq, at, digest, redactions) \
             WHERE k.digest IS NOT NULL",
        )
        .bind(&self.partition)
        .bind(&self.room)
        .bind(&self.sender)
        .bind(&self.client_message_id)
        .bind(&self.seq)
        .bind(&self.committed_at)
        .bind(&self.digest)
        .bind(&self.redactions)
        .execute(connection)
        .await
        .map_err(|error| refused(error, name_taken()))?;
        Ok(())
    }
}
