//! The rows of nodes.

use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};

use super::super::rows::{column, corrupt, number};
use crate::store::StoreError;
use crate::store::chat::PartitionState;
use crate::store::cluster::{Joined, NodeInfo, NodeRecord, NodeState, Observation};

/// Everything in one statement, which sees one snapshot: nodes (`what` = 0) and
/// partitions (1), in the columns of a node.
const OBSERVE: &str = "\
    SELECT 0 AS what, id, incarnation, public_address, mesh_address, zone, release, started_at, \
           state::int8, beat, sessions FROM node \
    UNION ALL \
    SELECT 1, owner, '', '', '', '', '', id::int8, 0, epoch, commit_no FROM \"partition\"";

/// Puts the row in the place of another incarnation that is not alive. The same
/// incarnation, alive, has joined before: its answer was lost.
pub(super) async fn join(
    connection: &mut PgConnection,
    node: &NodeInfo,
) -> Result<Joined, StoreError> {
    let joined = sqlx::query(
        "INSERT INTO node (id, incarnation, public_address, mesh_address, zone, release, \
                           started_at, state, beat, sessions) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, 1, 1, 0) \
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
         state::int8, beat, sessions FROM node WHERE id = $1",
    )
    .bind(&node.id)
    .fetch_one(connection)
    .await?;
    let record = record(&row)?;
    let again = record.info.incarnation == node.incarnation && record.state.is_alive();
    Ok(if again { Joined::New } else { Joined::Taken(Box::new(record)) })
}

/// One statement, so that the setting is in force for its own commit alone.
pub(super) async fn beat(
    connection: &mut PgConnection,
    id: &str,
    incarnation: &str,
    sessions: u32,
) -> Result<Option<NodeState>, StoreError> {
    let row = sqlx::query(
        "UPDATE node SET beat = beat + 1, sessions = $3 \
         FROM (SELECT set_config('synchronous_commit', 'off', true)) AS at_once \
         WHERE id = $1 AND incarnation = $2 AND state IN (1, 2) RETURNING state",
    )
    .bind(id)
    .bind(incarnation)
    .bind(i64::from(sessions))
    .fetch_optional(connection)
    .await?;
    row.map(|row| state(i64::from(row.try_get::<i32, _>(0)?))).transpose()
}

pub(super) async fn observe(connection: &mut PgConnection) -> Result<Observation, StoreError> {
    let rows = sqlx::query(OBSERVE).fetch_all(connection).await?;
    let mut seen = Observation::default();
    for row in &rows {
        match column::<i32>(row, 0)? {
            0 => seen.nodes.push(record(row)?),
            _ => seen.partitions.push(PartitionState {
                partition: number(row, 7)?,
                owner: column(row, 1)?,
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
    connection: &mut PgConnection,
    id: &str,
    incarnation: &str,
    state: NodeState,
    beat: Option<i64>,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE node SET state = $3 WHERE id = $1 AND incarnation = $2 AND state IN (1, 2) \
         AND beat = COALESCE($4, beat)",
    )
    .bind(id)
    .bind(incarnation)
    .bind(i32::from(state as u8))
    .bind(beat)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn tidy(
    connection: &mut PgConnection,
    over: Vec<String>,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM node WHERE state NOT IN (1, 2) AND incarnation = ANY($1)")
        .bind(over)
        .execute(connection)
        .await?;
    Ok(())
}

fn state(number: i64) -> Result<NodeState, StoreError> {
    NodeState::from_number(number).ok_or_else(|| corrupt("an unknown state of a node"))
}

fn record(row: &PgRow) -> Result<NodeRecord, StoreError> {
    let info = NodeInfo {
        id: column(row, 1)?,
        incarnation: column(row, 2)?,
        public_address: column(row, 3)?,
        mesh_address: column(row, 4)?,
        zone: column(row, 5)?,
        release: column(row, 6)?,
        started_at: column(row, 7)?,
    };
    Ok(NodeRecord {
        info,
        state: state(column(row, 8)?)?,
        beat: number(row, 9)?,
        sessions: number(row, 10)?,
        locked: None,
    })
}
