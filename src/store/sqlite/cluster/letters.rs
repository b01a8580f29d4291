//! Letters: what is left in the store for an owner that is not reached.

use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqlitePool};

use crate::store::StoreError;
use crate::store::cluster::Letter;

pub(super) async fn leave(
    connection: &mut SqliteConnection,
    partition: u16,
    from: String,
    body: Vec<u8>,
) -> Result<i64, StoreError> {
    let left = sqlx::query("INSERT INTO letter (\"partition\", sender, body) VALUES (?, ?, ?)")
        .bind(partition)
        .bind(from)
        .bind(body)
        .execute(connection)
        .await?;
    Ok(left.last_insert_rowid())
}

pub(super) async fn waiting(
    readers: &SqlitePool,
    partitions: &[u16],
    limit: u32,
) -> Result<Vec<Letter>, StoreError> {
    let wanted = serde_json::to_string(partitions)
        .map_err(|_| StoreError::Fault("partitions cannot be written".to_owned()))?;
    let rows = sqlx::query(
        "SELECT id, \"partition\", sender, body FROM letter WHERE answer IS NULL \
         AND \"partition\" IN (SELECT value FROM json_each(?)) ORDER BY id LIMIT ?",
    )
    .bind(wanted)
    .bind(limit)
    .fetch_all(readers)
    .await?;
    rows.iter()
        .map(|row| {
            let partition: i64 = row.try_get(1)?;
            let partition = u16::try_from(partition)
                .map_err(|_| StoreError::Corrupt("a letter's partition".to_owned()))?;
            Ok(Letter {
                id: row.try_get(0)?,
                partition,
                from: row.try_get(2)?,
                body: row.try_get(3)?,
            })
        })
        .collect()
}

/// A letter that is gone needs no answer, and the first answer stands.
pub(super) async fn answer(
    connection: &mut SqliteConnection,
    answers: Vec<(i64, Vec<u8>)>,
) -> Result<(), StoreError> {
    for (id, body) in answers {
        sqlx::query("UPDATE letter SET answer = ? WHERE id = ? AND answer IS NULL")
            .bind(body)
            .bind(id)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

pub(super) async fn collect(
    connection: &mut SqliteConnection,
    from: String,
) -> Result<Vec<(i64, Vec<u8>)>, StoreError> {
    let mut answers: Vec<(i64, Vec<u8>)> = sqlx::query_as(
        "DELETE FROM letter WHERE sender = ? AND answer IS NOT NULL RETURNING id, answer",
    )
    .bind(from)
    .fetch_all(connection)
    .await?;
    answers.sort_by_key(|(id, _)| *id);
    Ok(answers)
}

pub(super) async fn tidy(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM letter WHERE NOT EXISTS (SELECT 1 FROM node AS n \
         WHERE n.incarnation = letter.sender AND n.state IN (1, 2))",
    )
    .execute(connection)
    .await?;
    Ok(())
}
