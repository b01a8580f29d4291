//! Letters: what is left in the store for an owner that is not reached.

use sqlx::postgres::PgConnection;

use super::super::rows::{column, small};
use crate::store::StoreError;
use crate::store::cluster::Letter;

pub(super) async fn leave(
    connection: &mut PgConnection,
    partition: u16,
    from: &str,
    body: &[u8],
) -> Result<i64, StoreError> {
    let id = sqlx::query_scalar(
        "INSERT INTO letter (\"partition\", sender, body) VALUES ($1, $2, $3) RETURNING id",
    )
    .bind(i32::from(partition))
    .bind(from)
    .bind(body)
    .fetch_one(connection)
    .await?;
    Ok(id)
}

pub(super) async fn waiting(
    connection: &mut PgConnection,
    partitions: Vec<i32>,
    limit: u32,
) -> Result<Vec<Letter>, StoreError> {
    let rows = sqlx::query(
        "SELECT id, \"partition\", sender, body FROM letter \
         WHERE \"partition\" = ANY($1) AND answer IS NULL ORDER BY id LIMIT $2",
    )
    .bind(partitions)
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    let letter = |row| {
        Ok(Letter {
            id: column(row, 0)?,
            partition: small(row, 1)?,
            from: column(row, 2)?,
            body: column(row, 3)?,
        })
    };
    rows.iter().map(letter).collect()
}

/// A letter that is gone needs no answer, and the first answer stands.
pub(super) async fn answer(
    connection: &mut PgConnection,
    answers: Vec<(i64, Vec<u8>)>,
) -> Result<(), StoreError> {
    let (ids, bodies): (Vec<i64>, Vec<Vec<u8>>) = answers.into_iter().unzip();
    sqlx::query(
        "UPDATE letter l SET answer = a.body FROM unnest($1::int8[], $2::bytea[]) AS a(id, body) \
         WHERE l.id = a.id AND l.answer IS NULL",
    )
    .bind(ids)
    .bind(bodies)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn collect(
    connection: &mut PgConnection,
    from: &str,
) -> Result<Vec<(i64, Vec<u8>)>, StoreError> {
    let rows = sqlx::query(
        "DELETE FROM letter WHERE sender = $1 AND answer IS NOT NULL RETURNING id, answer",
    )
    .bind(from)
    .fetch_all(connection)
    .await?;
    let mut answers = rows
        .iter()
        .map(|row| Ok((column(row, 0)?, column(row, 1)?)))
        .collect::<Result<Vec<_>, _>>();
    if let Ok(answers) = &mut answers {
        answers.sort_by_key(|(id, _): &(i64, Vec<u8>)| *id);
    }
    answers
}

pub(super) async fn tidy(connection: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM letter l WHERE NOT EXISTS \
         (SELECT FROM node n WHERE n.incarnation = l.sender AND n.state IN (1, 2))",
    )
    .execute(connection)
    .await?;
    Ok(())
}
