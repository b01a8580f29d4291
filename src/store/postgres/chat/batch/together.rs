//! Heads, entries and keys in one statement: one round trip, whatever there is.
//!
//! The parts of a statement share one snapshot and run in no order of their own.
//! Nothing here needs another's rows; but what a head refuses is told before
//! what a key refuses, so both inserts wait for the heads (`fits`), and insert
//! nothing when one of them does not fit. The number of entries tells it then.

use sqlx::postgres::PgConnection;

use super::{Entries, Heads, name_taken, not_after_the_head, position_taken, refused};
use crate::store::StoreError;

/// The entries' columns go over the wire once and are read twice.
const WRITE: &str = "\
    WITH raised AS (\
        UPDATE room r SET head = n.last \
        FROM unnest($12::int4[], $13::text[], $14::int8[], $15::int8[]) \
             AS n(slot, room, before, last) \
        WHERE r.\"partition\" = n.slot AND r.room = n.room \
        AND r.head = n.before AND r.deleted = 0 RETURNING 1\
    ), fits AS (\
        SELECT count(*) = cardinality($13::text[]) AS yes FROM raised\
    ), named AS (\
        INSERT INTO entry_key (\"partition\", room, sender, client_message_id, seq, \
        committed_at, digest, redactions) \
        SELECT k.* FROM unnest($1::int4[], $2::text[], $5::text[], $6::text[], $3::int8[], \
        $9::int8[], $10::bytea[], $11::int8[]) \
        AS k(slot, room, sender, name, seq, at, digest, redactions) \
        WHERE k.digest IS NOT NULL AND (SELECT yes FROM fits)\
    ) \
    INSERT INTO entry (\"partition\", room, seq, kind, sender, client_message_id, body, \
    reply_to, committed_at) \
    SELECT * FROM unnest($1::int4[], $2::text[], $3::int8[], $4::int4[], $5::text[], \
    $6::text[], $7::bytea[], $8::int8[], $9::int8[]) \
    WHERE (SELECT yes FROM fits)";

pub(super) async fn write(
    connection: &mut PgConnection,
    heads: &Heads<'_>,
    entries: &Entries<'_>,
) -> Result<(), StoreError> {
    if entries.room.is_empty() {
        return Ok(());
    }
    let written = sqlx::query(WRITE)
        .bind(&entries.partition)
        .bind(&entries.room)
        .bind(&entries.seq)
        .bind(&entries.kind)
        .bind(&entries.sender)
        .bind(&entries.client_message_id)
        .bind(&entries.body)
        .bind(&entries.reply_to)
        .bind(&entries.committed_at)
        .bind(&entries.digest)
        .bind(&entries.redactions)
        .bind(&heads.partition)
        .bind(&heads.room)
        .bind(&heads.before)
        .bind(&heads.last)
        .execute(connection)
        .await
        .map_err(told_by_table)?
        .rows_affected();
    if u64::try_from(entries.room.len()) == Ok(written) {
        Ok(())
    } else {
        Err(not_after_the_head())
    }
}

/// One statement, two tables: the server says whose key is taken.
fn told_by_table(error: sqlx::Error) -> StoreError {
    let table = error.as_database_error().and_then(|error| error.table());
    let taken = if table == Some("entry_key") { name_taken() } else { position_taken() };
    refused(error, taken)
}
