//! Making the partitions, and taking all of them at once, which a node that is
//! alone does.

use sqlx::postgres::PgConnection;

use super::super::advisory::Advisory;
use super::super::rows::partition as state;
use crate::store::StoreError;
use crate::store::chat::{PartitionState, other_partitions};

/// Makes partitions 0 to `count` - 1 if there are none; refuses a store that has
/// others. Nodes that start together wait for one another.
pub(in crate::store::postgres) async fn ensure(
    connection: &mut PgConnection,
    count: u16,
) -> Result<(), StoreError> {
    Advisory::Partitions.lock(connection).await?;
    let found: i64 = sqlx::query_scalar("SELECT count(*) FROM \"partition\"")
        .fetch_one(&mut *connection)
        .await?;
    if found > 0 || count == 0 {
        return match found == i64::from(count) && count > 0 {
            true => Ok(()),
            false => Err(other_partitions(found.unsigned_abs(), count)),
        };
    }
    sqlx::query(
        "INSERT INTO \"partition\" (id, owner, epoch, commit_no) \
         SELECT id, '', 0, 0 FROM generate_series(0, $1::int4 - 1) AS slot(id)",
    )
    .bind(i32::from(count))
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes every partition, in the order in which appends lock them.
pub(super) async fn take_all(
    connection: &mut PgConnection,
    owner: &str,
    distributed: bool,
) -> Result<Vec<PartitionState>, StoreError> {
    // A distributed database locks no rows of several shards with one statement.
    let lock = match distributed {
        true => "SELECT id FROM \"partition\" ORDER BY id",
        false => "SELECT id FROM \"partition\" ORDER BY id FOR NO KEY UPDATE",
    };
    let ids: Vec<i32> = sqlx::query_scalar(lock).fetch_all(&mut *connection).await?;
    if distributed {
        for id in ids {
            sqlx::query("UPDATE \"partition\" SET owner = $1, epoch = epoch + 1 WHERE id = $2")
                .bind(owner)
                .bind(id)
                .execute(&mut *connection)
                .await?;
        }
    } else {
        sqlx::query("UPDATE \"partition\" SET owner = $1, epoch = epoch + 1")
            .bind(owner)
            .execute(&mut *connection)
            .await?;
    }
    let rows = sqlx::query("SELECT id, owner, epoch, commit_no FROM \"partition\" ORDER BY id")
        .fetch_all(connection)
        .await?;
    rows.iter().map(state).collect()
}
