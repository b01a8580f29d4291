//! The rows of nodes.

use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqlitePool, SqliteRow};

use super::super::chat::rows::number;
use crate::store::StoreError;
use crate::store::chat::PartitionState;
use crate::store::cluster::{Joined, NodeInfo, NodeRecord, NodeState, Observation};

/// Everything in one statement, which sees one snapshot: nodes (`what` = 0) and
/// partitions (1), in the columns of a node.
const OBSERVE: &str = "\
    SELECT 0 AS what, id, incarnation, public_address, mesh_address, zone, release, started_at, \
           state, beat, sessions FROM node \
    UNION ALL \
    SELECT 1, owner, '', '', '', '', '', id, 0, epoch, commit_no FROM \"partition\"";

/// Puts the row in the place of another incarnation that is not alive. The same
/// incarnation, alive, has joined before: its answer was lost.
pub(super) async fn join(
    connection: &mut SqliteConnection,
    node: NodeInfo,
) -> Result<Joined, StoreError> {
    let joined = sqlx::query(
        "INSERT INTO node (id, incarnation, public_address, mesh_address, zone, release, \
                           started_at, state, beat, sessions) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 1, 1, 0) \
         ON CONFLICT (id) DO UPDATE SET incarnation = excluded.incarnation, \
             public_address = excluded.public_address, mesh_address = excluded.mesh_address, \
             zone = excluded.zone, release = excluded.release, \
             started_at = excluded.started_at, state = 1, beat = 1, sessions = 0 \
         WHERE node.state NOT IN (1, 2) AND node.incarnation <> excluded.incarnation",
    )
    .bind(&node.id)
    .bind(&node.incarnation)
    .bind(&node.public_address)
    .bind(&node.mesh_address)
    .bind(&node.zone)
    .bind(&node.release)
    .bind(node.started_at)
    .execute(&mut *connection)
    .await?;
    if joined.rows_affected() > 0 {
        return Ok(Joined::New);
    }
    let row = sqlx::query(
        "SELECT 0, id, incarnation, public_address, mesh_address, zone, release, started_at, \
         state, beat, sessions FROM node WHERE id = ?",
    )
    .bind(&node.id)
    .fetch_one(connection)
    .await?;
    let record = record(&row)?;
    let again = record.info.incarnation == node.incarnation && record.state.is_alive();
    Ok(if again { Joined::New } else { Joined::Taken(Box::new(record)) })
}

pub(super) async fn beat(
    connection: &mut SqliteConnection,
    id: String,
    incarnation: String,
    sessions: u32,
) -> Result<Option<NodeState>, StoreError> {
    let found: Option<i64> = sqlx::query_scalar(
        "UPDATE node SET beat = beat + 1, sessions = ? \
         WHERE id = ? AND incarnation = ? AND state IN (1, 2) RETURNING state",
    )
    .bind(sessions)
    .bind(id)
    .bind(incarnation)
    .fetch_optional(connection)
    .await?;
    found.map(state).transpose()
}

pub(super) async fn observe(readers: &SqlitePool) -> Result<Observation, StoreError> {
    let rows = sqlx::query(OBSERVE).fetch_all(readers).await?;
    let mut seen = Observation::default();
    for row in &rows {
        match row.try_get::<i64, _>(0)? {
            0 => seen.nodes.push(record(row)?),
            _ => seen.partitions.push(PartitionState {
                partition: number(row, 7)?,
                owner: row.try_get(1)?,
                epoch: number(row, 9)?,
                commit_no: number(row, 10)?,
            }),
        }
    }
    seen.nodes.sort_by(|a, b| a.info.id.cmp(&b.info.id));
    seen.partitions.sort_by_key(|one| one.partition);
    Ok(seen)
}

/// With a beat: only if that is still the row's.
pub(super) async fn set_state(
    connection: &mut SqliteConnection,
    id: String,
    incarnation: String,
    state: NodeState,
    beat: Option<i64>,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE node SET state = ?3 WHERE id = ?1 AND incarnation = ?2 AND state IN (1, 2) \
         AND beat = COALESCE(?4, beat)",
    )
    .bind(id)
    .bind(incarnation)
    .bind(state as u8)
    .bind(beat)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn tidy(
    connection: &mut SqliteConnection,
    over: Vec<String>,
) -> Result<(), StoreError> {
    for incarnation in over {
        sqlx::query("DELETE FROM node WHERE state NOT IN (1, 2) AND incarnation = ?")
            .bind(incarnation)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

fn state(number: i64) -> Result<NodeState, StoreError> {
    let known = NodeState::from_number(number);
    known.ok_or_else(|| StoreError::Corrupt("an unknown state of a node".to_owned()))
}

fn record(row: &SqliteRow) -> Result<NodeRecord, StoreError> {
    let info = NodeInfo {
        id: row.try_get(1)?,
        incarnation: row.try_get(2)?,
        public_address: row.try_get(3)?,
        mesh_address: row.try_get(4)?,
        zone: row.try_get(5)?,
        release: row.try_get(6)?,
        started_at: row.try_get(7)?,
    };
    Ok(NodeRecord {
        info,
        state: state(row.try_get(8)?)?,
        beat: number(row, 9)?,
        sessions: number(row, 10)?,
        locked: None,
    })
}
