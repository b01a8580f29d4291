//! What deleted rooms leave, erased in slices: one room may have millions of
//! entries, and no transaction should be that long.
//!
//! The room's row is held meanwhile: several nodes erase at the same time, and a
//! room is done only when nothing of it is left. The database overwrites what
//! was erased when it cleans the table up, in its own time.

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use crate::store::StoreError;

/// Bodies first: they are what the room was deleted for.
const SLICES: [&str; 3] = [
    "DELETE FROM entry WHERE \"partition\" = $1 AND room = $2 AND seq IN \
     (SELECT seq FROM entry WHERE \"partition\" = $1 AND room = $2 ORDER BY seq LIMIT $3)",
    "DELETE FROM entry_key WHERE \"partition\" = $1 AND room = $2 \
     AND (sender, client_message_id) IN \
     (SELECT sender, client_message_id FROM entry_key \
      WHERE \"partition\" = $1 AND room = $2 LIMIT $3)",
    "DELETE FROM member WHERE \"partition\" = $1 AND room = $2 AND member IN \
     (SELECT member FROM member WHERE \"partition\" = $1 AND room = $2 LIMIT $3)",
];

const HOLD: &str = "SELECT 1 FROM room WHERE \"partition\" = $1 AND room = $2 AND deleted = 2 \
                    FOR NO KEY UPDATE SKIP LOCKED";

const DONE: &str = "UPDATE room SET deleted = 1 WHERE \"partition\" = $1 AND room = $2";

/// Erases a slice of one room; the last one says that the room is done.
pub(super) async fn run(connection: &mut PgConnection, limit: u32) -> Result<u64, StoreError> {
    let next = "SELECT \"partition\", room FROM room WHERE deleted = 2 LIMIT 1";
    let Some(row) = sqlx::query(next).fetch_optional(&mut *connection).await? else {
        return Ok(0);
    };
    let (partition, room): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
    let held = sqlx::query(HOLD).bind(partition).bind(&room);
    if held.fetch_optional(&mut *connection).await?.is_none() {
        // Another node erases it.
        return Ok(0);
    }
    let limit = u64::from(limit.max(1));
    let mut erased = 0;
    for slice in SLICES {
        let left = i64::try_from(limit - erased).unwrap_or(i64::MAX);
        let query = sqlx::query(slice).bind(partition).bind(&room).bind(left);
        erased += query.execute(&mut *connection).await?.rows_affected();
        if erased >= limit {
            return Ok(erased);
        }
    }
    sqlx::query(DONE).bind(partition).bind(&room).execute(connection).await?;
    Ok(erased + 1)
}
