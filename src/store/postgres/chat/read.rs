//! Reading: one statement each, by the key or an index, on one partition where
//! the key begins with it.

use sqlx::postgres::PgConnection;

use super::super::rows::{column, corrupt, number, partition as state};
use super::rows;
use crate::principal::Principal;
use crate::store::StoreError;
use crate::store::chat::{
    Entry, KeyName, KeyRecord, MemberRecord, PartitionState, RoomId, RoomRecord, RoomRole,
};

/// A number of the database's for one that may be larger: nothing can stand
/// after what it cannot hold.
fn clamped(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Puts what was found at the places asked for; the first column is the place,
/// from 1.
fn placed<T: Clone>(
    rows: &[sqlx::postgres::PgRow],
    asked: usize,
    record: impl Fn(&sqlx::postgres::PgRow) -> Result<T, StoreError>,
) -> Result<Vec<Option<T>>, StoreError> {
    let mut found = vec![None; asked];
    for row in rows {
        let place = column::<i64>(row, 0)?.checked_sub(1).and_then(|at| usize::try_from(at).ok());
        let slot = place.and_then(|at| found.get_mut(at));
        *slot.ok_or_else(|| corrupt("an answer that was not asked for"))? = Some(record(row)?);
    }
    Ok(found)
}

pub(super) async fn partition_states(
    connection: &mut PgConnection,
) -> Result<Vec<PartitionState>, StoreError> {
    let rows = sqlx::query("SELECT id, owner, epoch, commit_no FROM \"partition\" ORDER BY id")
        .fetch_all(connection)
        .await?;
    rows.iter().map(state).collect()
}

pub(super) async fn room(
    connection: &mut PgConnection,
    partition: u16,
    room: &str,
) -> Result<Option<RoomRecord>, StoreError> {
    let row = sqlx::query(
        "SELECT room, title, created_by, created_at, head, deleted FROM room \
         WHERE \"partition\" = $1 AND room = $2",
    )
    .bind(i32::from(partition))
    .bind(room)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(rows::room).transpose()
}

pub(super) async fn heads(
    connection: &mut PgConnection,
    partition: u16,
    asked: &[RoomId],
) -> Result<Vec<Option<u64>>, StoreError> {
    let names: Vec<&str> = asked.iter().map(|room| &**room).collect();
    let rows = sqlx::query(
        "SELECT n.place, r.head FROM unnest($2::text[]) WITH ORDINALITY AS n(room, place) \
         JOIN room r ON r.\"partition\" = $1 AND r.room = n.room WHERE r.deleted = 0",
    )
    .bind(i32::from(partition))
    .bind(names)
    .fetch_all(connection)
    .await?;
    placed(&rows, asked.len(), |row| number(row, 1))
}

/// The sum of the bodies is taken by the database, so that what does not fit is
/// not even sent.
pub(super) async fn entries(
    connection: &mut PgConnection,
    partition: u16,
    room: &RoomId,
    after: u64,
    limit: u32,
    max_bytes: usize,
) -> Result<Vec<Entry>, StoreError> {
    let rows = sqlx::query(
        "SELECT seq, kind, sender, client_message_id, body, reply_to, committed_at FROM ( \
           SELECT e.*, row_number() OVER walk AS place, \
                  sum(octet_length(body) - 1) OVER walk AS bytes FROM ( \
             SELECT seq, kind, sender, client_message_id, body, reply_to, committed_at \
             FROM entry WHERE \"partition\" = $1 AND room = $2 AND seq > $3 \
             ORDER BY seq LIMIT $4) AS e \
           WINDOW walk AS (ORDER BY seq ROWS UNBOUNDED PRECEDING)) AS page \
         WHERE place = 1 OR bytes <= $5 ORDER BY seq",
    )
    .bind(i32::from(partition))
    .bind(&**room)
    .bind(clamped(after))
    .bind(i64::from(limit))
    .bind(i64::try_from(max_bytes).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| rows::entry(row, room)).collect()
}

pub(super) async fn keys(
    connection: &mut PgConnection,
    partition: u16,
    names: &[KeyName],
) -> Result<Vec<Option<KeyRecord>>, StoreError> {
    let rooms: Vec<&str> = names.iter().map(|name| &*name.room).collect();
    let senders: Vec<&str> = names.iter().map(|name| name.sender.as_str()).collect();
    let ids: Vec<&str> = names.iter().map(|name| &*name.client_message_id).collect();
    let rows = sqlx::query(
        "SELECT n.place, k.seq, k.committed_at, k.digest, k.redactions \
         FROM unnest($2::text[], $3::text[], $4::text[]) \
              WITH ORDINALITY AS n(room, sender, id, place) \
         JOIN entry_key k ON k.\"partition\" = $1 AND k.room = n.room \
              AND k.sender = n.sender AND k.client_message_id = n.id",
    )
    .bind(i32::from(partition))
    .bind(rooms)
    .bind(senders)
    .bind(ids)
    .fetch_all(connection)
    .await?;
    placed(&rows, names.len(), rows::key)
}

pub(super) async fn members(
    connection: &mut PgConnection,
    partition: u16,
    room: &str,
    after: &str,
    limit: u32,
) -> Result<Vec<MemberRecord>, StoreError> {
    let rows = sqlx::query(
        "SELECT member, role, joined_at FROM member \
         WHERE \"partition\" = $1 AND room = $2 AND member > $3 ORDER BY member LIMIT $4",
    )
    .bind(i32::from(partition))
    .bind(room)
    .bind(after)
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    rows.iter().map(rows::member).collect()
}

pub(super) async fn member(
    connection: &mut PgConnection,
    partition: u16,
    room: &str,
    member: &Principal,
) -> Result<Option<MemberRecord>, StoreError> {
    let row = sqlx::query(
        "SELECT member, role, joined_at FROM member \
         WHERE \"partition\" = $1 AND room = $2 AND member = $3",
    )
    .bind(i32::from(partition))
    .bind(room)
    .bind(member.as_str())
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(rows::member).transpose()
}

/// The one read that looks into every partition.
pub(super) async fn rooms_of(
    connection: &mut PgConnection,
    member: &Principal,
    after: &str,
    limit: u32,
) -> Result<Vec<(RoomRecord, RoomRole)>, StoreError> {
    let rows = sqlx::query(
        "SELECT r.room, r.title, r.created_by, r.created_at, r.head, r.deleted, m.role \
         FROM member m JOIN room r ON r.\"partition\" = m.\"partition\" AND r.room = m.room \
         WHERE m.member = $1 AND m.room > $2 AND r.deleted = 0 ORDER BY m.room LIMIT $3",
    )
    .bind(member.as_str())
    .bind(after)
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((rows::room(row)?, rows::role(row, 6)?))).collect()
}
