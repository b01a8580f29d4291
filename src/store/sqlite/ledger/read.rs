//! Reading accounts by key. No statement looks at more than [`SCAN`] rows, so
//! that a filter that matches nothing cannot hold a connection for long.

use sqlx::Row;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use uuid::Uuid;

use crate::money::{Currency, Money};
use crate::store::StoreError;
use crate::store::ledger::{
    AccountName, BalanceRecord, HistoryFilter, HistoryPage, LedgerEntry, TransactionKind,
};

/// Positions that one page looks at, whatever the filter lets through.
const SCAN: i64 = 2048;

const COLUMNS: &str = "entry_id, account, position, kind, currency, minor_units, balance_after, \
                       counterparty, payment_id, transfer_id, posted_at";

/// The head is read first and bounds the page: entries are immutable and are
/// committed in the order of their positions, so no snapshot is needed.
pub(super) async fn history(
    readers: &SqlitePool,
    account: &AccountName,
    after: u64,
    filter: &HistoryFilter,
    limit: u32,
) -> Result<HistoryPage, StoreError> {
    let head = head(readers, account).await?;
    if after >= head {
        return Ok(HistoryPage { entries: Vec::new(), scanned: after, at_head: true });
    }
    let (first, newest) = (signed(after)?, signed(head)?);
    let last = first.saturating_add(SCAN).min(newest);
    let limit = i64::from(limit.max(1));
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM ledger_entry \
         WHERE account = ?1 AND position > ?2 AND position <= ?3 \
         AND posted_at >= ?4 AND posted_at < ?5 AND (?6 >> kind) & 1 \
         ORDER BY position LIMIT ?7"
    )))
    .bind(account.as_str())
    .bind(first)
    .bind(last)
    .bind(filter.from.unwrap_or(i64::MIN))
    .bind(filter.before.unwrap_or(i64::MAX))
    .bind(kinds(filter))
    .bind(limit)
    .fetch_all(readers)
    .await?;
    let entries = rows.iter().map(decode).collect::<Result<Vec<_>, _>>()?;
    let full = i64::try_from(entries.len()).is_ok_and(|count| count >= limit);
    let scanned = match entries.last() {
        Some(entry) if full => entry.position,
        _ => last.unsigned_abs(),
    };
    Ok(HistoryPage { entries, scanned, at_head: scanned >= head })
}

/// A bit for each kind that is wanted.
fn kinds(filter: &HistoryFilter) -> i64 {
    if filter.kinds.is_empty() {
        return i64::MAX;
    }
    filter.kinds.iter().fold(0, |bits, kind| bits | 1_i64 << (*kind as u8))
}

pub(super) async fn head(readers: &SqlitePool, account: &AccountName) -> Result<u64, StoreError> {
    let head: Option<i64> = sqlx::query_scalar("SELECT last_position FROM account WHERE name = ?1")
        .bind(account.as_str())
        .fetch_optional(readers)
        .await?;
    unsigned(head.unwrap_or(0))
}

pub(super) async fn entry(
    readers: &SqlitePool,
    id: Uuid,
) -> Result<Option<LedgerEntry>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM ledger_entry WHERE entry_id = ?1");
    let row = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(&id.as_bytes()[..])
        .fetch_optional(readers)
        .await?;
    row.as_ref().map(decode).transpose()
}

/// Every entry of a payment, by account and position: a payment has few.
pub(crate) async fn of_payment(
    readers: &SqlitePool,
    payment: Uuid,
) -> Result<Vec<LedgerEntry>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM ledger_entry WHERE payment_id = ?1 ORDER BY account, position"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(&payment.as_bytes()[..])
        .fetch_all(readers)
        .await?;
    rows.iter().map(decode).collect()
}

pub(super) async fn balances(
    readers: &SqlitePool,
    account: &AccountName,
) -> Result<Vec<BalanceRecord>, StoreError> {
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT currency, SUM(posted), SUM(held) FROM ( \
           SELECT currency, posted, 0 AS held FROM account_balance WHERE account = ?1 \
           UNION ALL SELECT currency, 0, minor_units FROM hold WHERE account = ?1) \
         GROUP BY currency ORDER BY currency",
    )
    .bind(account.as_str())
    .fetch_all(readers)
    .await?;
    rows.into_iter()
        .map(|(code, posted, held)| Ok(BalanceRecord { posted: money(&code, posted)?, held }))
        .collect()
}

fn decode(row: &SqliteRow) -> Result<LedgerEntry, StoreError> {
    let kind: i64 = row.try_get("kind")?;
    let uuid = |column| -> Result<Uuid, StoreError> {
        Uuid::from_slice(row.try_get::<&[u8], _>(column)?)
            .map_err(|_| StoreError::Corrupt(format!("ledger_entry.{column} is no id")))
    };
    Ok(LedgerEntry {
        id: uuid("entry_id")?,
        account: AccountName::from_stored(row.try_get("account")?),
        position: unsigned(row.try_get("position")?)?,
        kind: TransactionKind::from_number(kind)
            .ok_or_else(|| StoreError::Corrupt("ledger_entry.kind is unknown".to_owned()))?,
        amount: money(row.try_get("currency")?, row.try_get("minor_units")?)?,
        balance_after: row.try_get("balance_after")?,
        counterparty: AccountName::from_stored(row.try_get("counterparty")?),
        payment_id: uuid("payment_id")?,
        transfer_id: uuid("transfer_id")?,
        posted_at: row.try_get("posted_at")?,
    })
}

fn money(code: &str, minor_units: i64) -> Result<Money, StoreError> {
    let currency: Currency = code
        .parse()
        .map_err(|_| StoreError::Corrupt("the ledger has an unknown currency".to_owned()))?;
    Ok(Money { currency, minor_units })
}

fn signed(position: u64) -> Result<i64, StoreError> {
    i64::try_from(position).map_err(|_| StoreError::Fault("a position out of range".to_owned()))
}

fn unsigned(position: i64) -> Result<u64, StoreError> {
    u64::try_from(position)
        .map_err(|_| StoreError::Corrupt("a position in the ledger is negative".to_owned()))
}
