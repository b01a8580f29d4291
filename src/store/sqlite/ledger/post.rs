//! Posting a transfer, and holds. Everything here runs inside a transaction of
//! the writer: whoever calls it decides with what else it is committed.

use std::collections::BTreeMap;

use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

use crate::id;
use crate::money::Currency;
use crate::store::StoreError;
use crate::store::ledger::{ALREADY_POSTED, AccountName, HELD, LACKS_BALANCE, Movement, Transfer};

/// What a transfer changes of one account.
#[derive(Debug, Clone, Copy)]
struct Account {
    last_position: i64,
    balance: i64,
}

/// One entry to be written, on the account at its position.
struct Leg<'t> {
    step: i64,
    side: i64,
    account: &'t AccountName,
    counterparty: &'t AccountName,
    minor_units: i64,
}

/// Posts the transfer whole, or refuses it: [`StoreError::Conflict`] with
/// [`ALREADY_POSTED`] when its id was posted before, with [`LACKS_BALANCE`] when
/// a movement needs a balance that is not there. Returns the accounts that it
/// touched, sorted. After an error the transaction must be rolled back.
pub(crate) async fn post(
    conn: &mut SqliteConnection,
    transfer: &Transfer,
) -> Result<Vec<AccountName>, StoreError> {
    check(transfer)?;
    let posted = sqlx::query_scalar::<_, i64>(
        "SELECT EXISTS (SELECT 1 FROM ledger_entry WHERE transfer_id = ?1)",
    )
    .bind(&transfer.id.as_bytes()[..])
    .fetch_one(&mut *conn)
    .await?;
    if posted != 0 {
        return Err(StoreError::Conflict(ALREADY_POSTED));
    }

    let mut accounts = load(conn, transfer).await?;
    for (step, movement) in (0_i64..).zip(&transfer.movements) {
        let Movement { from, to, minor_units, .. } = movement;
        let out = Leg { step, side: 0, account: from, counterparty: to, minor_units: -minor_units };
        let into =
            Leg { step, side: 1, account: to, counterparty: from, minor_units: *minor_units };
        for leg in [out, into] {
            let state = advance(&mut accounts, &leg)?;
            if leg.side == 0 && movement.needs_balance && state.balance < 0 {
                return Err(StoreError::Conflict(LACKS_BALANCE));
            }
            insert(conn, transfer, movement, &leg, state).await?;
        }
    }
    save(conn, transfer.currency, &accounts).await?;
    Ok(accounts.into_keys().cloned().collect())
}

/// What can only be our own mistake.
fn check(transfer: &Transfer) -> Result<(), StoreError> {
    let sound = |m: &Movement| m.minor_units > 0 && m.from != m.to;
    if transfer.movements.is_empty() || !transfer.movements.iter().all(sound) {
        return Err(StoreError::Fault("a transfer with an unsound movement".to_owned()));
    }
    Ok(())
}

/// The accounts as they stand, in sorted order: the order in which an engine
/// with row locks takes them.
async fn load<'t>(
    conn: &mut SqliteConnection,
    transfer: &'t Transfer,
) -> Result<BTreeMap<&'t AccountName, Account>, StoreError> {
    let mut accounts = BTreeMap::new();
    for movement in &transfer.movements {
        for name in [&movement.from, &movement.to] {
            accounts.insert(name, Account { last_position: 0, balance: 0 });
        }
    }
    for (name, account) in &mut accounts {
        let row: Option<(i64, i64)> = sqlx::query_as(
            "SELECT a.last_position, COALESCE(b.posted, 0) FROM account a \
             LEFT JOIN account_balance b ON b.account = a.name AND b.currency = ?2 \
             WHERE a.name = ?1",
        )
        .bind(name.as_str())
        .bind(transfer.currency.as_str())
        .fetch_optional(&mut *conn)
        .await?;
        if let Some((last_position, balance)) = row {
            *account = Account { last_position, balance };
        }
    }
    Ok(accounts)
}

fn advance(
    accounts: &mut BTreeMap<&AccountName, Account>,
    leg: &Leg<'_>,
) -> Result<Account, StoreError> {
    let account = accounts
        .get_mut(leg.account)
        .ok_or_else(|| StoreError::Fault("a leg on an account that was not loaded".to_owned()))?;
    account.last_position += 1;
    account.balance = account
        .balance
        .checked_add(leg.minor_units)
        .ok_or_else(|| StoreError::Fault("a balance would not fit".to_owned()))?;
    Ok(*account)
}

async fn insert(
    conn: &mut SqliteConnection,
    transfer: &Transfer,
    movement: &Movement,
    leg: &Leg<'_>,
    state: Account,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO ledger_entry (account, position, entry_id, transfer_id, step, side, kind, \
         currency, minor_units, balance_after, counterparty, payment_id, posted_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    )
    .bind(leg.account.as_str())
    .bind(state.last_position)
    .bind(&id::fresh().as_bytes()[..])
    .bind(&transfer.id.as_bytes()[..])
    .bind(leg.step)
    .bind(leg.side)
    .bind(movement.kind as i64)
    .bind(transfer.currency.as_str())
    .bind(leg.minor_units)
    .bind(state.balance)
    .bind(leg.counterparty.as_str())
    .bind(&transfer.payment_id.as_bytes()[..])
    .bind(transfer.posted_at)
    .execute(conn)
    .await?;
    Ok(())
}

async fn save(
    conn: &mut SqliteConnection,
    currency: Currency,
    accounts: &BTreeMap<&AccountName, Account>,
) -> Result<(), StoreError> {
    for (name, account) in accounts {
        sqlx::query(
            "INSERT INTO account (name, last_position) VALUES (?1, ?2) \
             ON CONFLICT (name) DO UPDATE SET last_position = excluded.last_position",
        )
        .bind(name.as_str())
        .bind(account.last_position)
        .execute(&mut *conn)
        .await?;
        sqlx::query(
            "INSERT INTO account_balance (account, currency, posted) VALUES (?1, ?2, ?3) \
             ON CONFLICT (account, currency) DO UPDATE SET posted = excluded.posted",
        )
        .bind(name.as_str())
        .bind(currency.as_str())
        .bind(account.balance)
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

/// Holds an authorized payment's money for its payee, beside the balance. A
/// payment holds at most once: [`StoreError::Conflict`] with [`HELD`] otherwise.
pub(crate) async fn put_hold(
    conn: &mut SqliteConnection,
    account: &AccountName,
    currency: Currency,
    payment_id: Uuid,
    minor_units: i64,
) -> Result<(), StoreError> {
    let done = sqlx::query(
        "INSERT INTO hold (payment_id, account, currency, minor_units) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (payment_id) DO NOTHING",
    )
    .bind(&payment_id.as_bytes()[..])
    .bind(account.as_str())
    .bind(currency.as_str())
    .bind(minor_units)
    .execute(conn)
    .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Conflict(HELD)) }
}

/// Ends a payment's hold, if it has one.
pub(crate) async fn release_hold(
    conn: &mut SqliteConnection,
    payment_id: Uuid,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM hold WHERE payment_id = ?1")
        .bind(&payment_id.as_bytes()[..])
        .execute(conn)
        .await?;
    Ok(())
}
