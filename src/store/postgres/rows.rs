//! Columns to values. What stands in the database may be anything (another
//! release, a hand): what cannot be is `Corrupt`, never a panic.

use sqlx::postgres::PgRow;
use sqlx::{Decode, Postgres, Row as _, Type};

use crate::principal::Principal;
use crate::store::StoreError;
use crate::store::chat::PartitionState;

pub(super) fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(what.to_owned())
}

pub(super) fn column<'r, T: Decode<'r, Postgres> + Type<Postgres>>(
    row: &'r PgRow,
    index: usize,
) -> Result<T, StoreError> {
    // The cause may quote the value.
    row.try_get(index).map_err(|_| corrupt("a column is not of its type"))
}

/// A BIGINT that cannot be negative, or larger than its type.
pub(super) fn number<T: TryFrom<i64>>(row: &PgRow, index: usize) -> Result<T, StoreError> {
    T::try_from(column::<i64>(row, index)?).map_err(|_| corrupt("a number is out of range"))
}

/// As [`number`], of an INTEGER.
pub(super) fn small<T: TryFrom<i32>>(row: &PgRow, index: usize) -> Result<T, StoreError> {
    T::try_from(column::<i32>(row, index)?).map_err(|_| corrupt("a number is out of range"))
}

/// The database's form of a number.
pub(super) fn stored(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| corrupt("a number is out of range"))
}

pub(super) fn principal(row: &PgRow, index: usize) -> Result<Principal, StoreError> {
    column::<&str>(row, index)?.parse().map_err(|_| corrupt("a principal does not parse"))
}

/// id, owner, epoch, commit_no
pub(super) fn partition(row: &PgRow) -> Result<PartitionState, StoreError> {
    Ok(PartitionState {
        partition: small(row, 0)?,
        owner: column(row, 1)?,
        epoch: number(row, 2)?,
        commit_no: number(row, 3)?,
    })
}
