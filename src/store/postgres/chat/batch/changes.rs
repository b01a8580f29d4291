//! What an entry changes beside the log: a room's members and its title.

use sqlx::postgres::PgConnection;

use crate::principal::Principal;
use crate::store::StoreError;
use crate::store::chat::{Change, Entry, RoomRole};

pub(super) async fn apply(
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
