//! Posting a transfer, and holds. Everything here runs inside a transaction:
//! whoever calls it decides with what else it is committed.
//!
//! The first statement locks the accounts in sorted order, so that two transfers
//! over the same accounts cannot wait for each other, and gives the positions:
//! whoever has the lock has the newest ones until the commit. It takes them for
//! all entries at once, so a transfer is three statements however many movements
//! it has.

use std::collections::BTreeMap;

use sqlx::Row as _;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::id;
use crate::money::Currency;
use crate::store::StoreError;
use crate::store::ledger::{ALREADY_POSTED, AccountName, HELD, LACKS_BALANCE, Movement, Transfer};

/// What a transfer changes of one account. Before the locks `positions` and
/// `balance` are what it adds; after them what the account had before it.
#[derive(Debug, Clone, Copy, Default)]
struct Account {
    positions: i64,
    balance: i64,
}

type Accounts<'t> = BTreeMap<&'t str, Account>;

/// The entries to be written, by column.
#[derive(Debug, Default)]
struct Entries<'t> {
    accounts: Vec<&'t str>,
    positions: Vec<i64>,
    ids: Vec<Vec<u8>>,
    steps: Vec<i64>,
    sides: Vec<i16>,
    kinds: Vec<i16>,
    minor_units: Vec<i64>,
    balances: Vec<i64>,
    counterparties: Vec<&'t str>,
}

/// Posts the transfer whole, or refuses it: [`StoreError::Conflict`] with
/// [`ALREADY_POSTED`] when its id was posted before, with [`LACKS_BALANCE`] when
/// a movement needs a balance that is not there. Returns the accounts that it
/// touched, sorted. After an error the transaction must be rolled back.
pub(in crate::store::postgres) async fn post(
    connection: &mut PgConnection,
    transfer: &Transfer,
) -> Result<Vec<AccountName>, StoreError> {
    let mut accounts = added(transfer)?;
    lock(connection, &mut accounts).await?;
    fold(connection, transfer.currency, &mut accounts).await?;
    let entries = match entries(transfer, &mut accounts) {
        // A transfer that was posted must be told so, whatever is left by now.
        Err(StoreError::Conflict(LACKS_BALANCE)) if posted(connection, transfer).await? => {
            return Err(StoreError::Conflict(ALREADY_POSTED));
        }
        entries => entries?,
    };
    insert(connection, transfer, entries).await?;
    let names = accounts.into_keys().map(|name| AccountName::from_stored(name.to_owned()));
    Ok(names.collect())
}

/// What the transfer adds to each account. Refuses what can only be our own
/// mistake.
fn added(transfer: &Transfer) -> Result<Accounts<'_>, StoreError> {
    let sound = |m: &Movement| m.minor_units > 0 && m.from != m.to;
    if transfer.movements.is_empty() || !transfer.movements.iter().all(sound) {
        return Err(StoreError::Fault("a transfer with an unsound movement".to_owned()));
    }
    let mut accounts = Accounts::new();
    for movement in &transfer.movements {
        let Movement { from, to, minor_units, .. } = movement;
        for (name, units) in [(from, -minor_units), (to, *minor_units)] {
            let account = accounts.entry(name.as_str()).or_default();
            account.positions += 1;
            account.balance = add(account.balance, units)?;
        }
    }
    Ok(accounts)
}

fn add(balance: i64, minor_units: i64) -> Result<i64, StoreError> {
    let sum = balance.checked_add(minor_units);
    sum.ok_or_else(|| StoreError::Fault("a balance would not fit".to_owned()))
}

/// Locks the accounts, in sorted order, and takes their next positions; makes
/// those that are new.
async fn lock(
    connection: &mut PgConnection,
    accounts: &mut Accounts<'_>,
) -> Result<(), StoreError> {
    let names: Vec<&str> = accounts.keys().copied().collect();
    let positions: Vec<i64> = accounts.values().map(|account| account.positions).collect();
    let rows = sqlx::query(
        "INSERT INTO account AS a (name, last_position) \
         SELECT name, added FROM unnest($1::TEXT[], $2::BIGINT[]) AS new (name, added) \
         ORDER BY name COLLATE \"C\" \
         ON CONFLICT (name) DO UPDATE SET last_position = a.last_position + excluded.last_position \
         RETURNING a.name, a.last_position",
    )
    .bind(names)
    .bind(positions)
    .fetch_all(connection)
    .await?;
    for row in rows {
        let account = known(accounts, row.try_get("name")?)?;
        account.positions = row.try_get::<i64, _>("last_position")? - account.positions;
    }
    Ok(())
}

/// Brings the balances to what they are after the transfer. The accounts are
/// locked, so nobody else does.
async fn fold(
    connection: &mut PgConnection,
    currency: Currency,
    accounts: &mut Accounts<'_>,
) -> Result<(), StoreError> {
    let names: Vec<&str> = accounts.keys().copied().collect();
    let sums: Vec<i64> = accounts.values().map(|account| account.balance).collect();
    let rows = sqlx::query(
        "INSERT INTO account_balance AS b (account, currency, posted) \
         SELECT name, $3, added FROM unnest($1::TEXT[], $2::BIGINT[]) AS new (name, added) \
         ON CONFLICT (account, currency) DO UPDATE SET posted = b.posted + excluded.posted \
         RETURNING b.account, b.posted",
    )
    .bind(names)
    .bind(sums)
    .bind(currency.as_str())
    .fetch_all(connection)
    .await?;
    for row in rows {
        let account = known(accounts, row.try_get("account")?)?;
        account.balance = row.try_get::<i64, _>("posted")? - account.balance;
    }
    Ok(())
}

fn known<'a>(accounts: &'a mut Accounts<'_>, name: &str) -> Result<&'a mut Account, StoreError> {
    let account = accounts.get_mut(name);
    account.ok_or_else(|| StoreError::Fault("a leg on an account that was not locked".to_owned()))
}

/// Walks the movements over what the accounts had before.
fn entries<'t>(
    transfer: &'t Transfer,
    accounts: &mut Accounts<'t>,
) -> Result<Entries<'t>, StoreError> {
    let mut entries = Entries::default();
    for (step, movement) in (0_i64..).zip(&transfer.movements) {
        let Movement { from, to, minor_units, .. } = movement;
        let out = (0_i16, from, to, -minor_units);
        let into = (1_i16, to, from, *minor_units);
        for (side, name, counterparty, units) in [out, into] {
            let account = known(accounts, name.as_str())?;
            account.positions += 1;
            account.balance = add(account.balance, units)?;
            if side == 0 && movement.needs_balance && account.balance < 0 {
                return Err(StoreError::Conflict(LACKS_BALANCE));
            }
            entries.accounts.push(name.as_str());
            entries.positions.push(account.positions);
            entries.ids.push(id::fresh().as_bytes().to_vec());
            entries.steps.push(step);
            entries.sides.push(side);
            entries.kinds.push(movement.kind as i16);
            entries.minor_units.push(units);
            entries.balances.push(account.balance);
            entries.counterparties.push(counterparty.as_str());
        }
    }
    Ok(entries)
}

async fn posted(connection: &mut PgConnection, transfer: &Transfer) -> Result<bool, StoreError> {
    let posted =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM ledger_entry WHERE transfer_id = $1)")
            .bind(&transfer.id.as_bytes()[..])
            .fetch_one(connection)
            .await?;
    Ok(posted)
}

/// A transfer id that was posted breaks the constraint: no look before.
async fn insert(
    connection: &mut PgConnection,
    transfer: &Transfer,
    entries: Entries<'_>,
) -> Result<(), StoreError> {
    let done = sqlx::query(
        "INSERT INTO ledger_entry (account, position, entry_id, step, side, kind, minor_units, \
         balance_after, counterparty, transfer_id, currency, payment_id, posted_at) \
         SELECT new.*, $10, $11, $12, $13 FROM unnest($1::TEXT[], $2::BIGINT[], $3::BYTEA[], \
         $4::BIGINT[], $5::SMALLINT[], $6::SMALLINT[], $7::BIGINT[], $8::BIGINT[], $9::TEXT[]) \
         AS new",
    )
    .bind(entries.accounts)
    .bind(entries.positions)
    .bind(entries.ids)
    .bind(entries.steps)
    .bind(entries.sides)
    .bind(entries.kinds)
    .bind(entries.minor_units)
    .bind(entries.balances)
    .bind(entries.counterparties)
    .bind(&transfer.id.as_bytes()[..])
    .bind(transfer.currency.as_str())
    .bind(&transfer.payment_id.as_bytes()[..])
    .bind(transfer.posted_at)
    .execute(connection)
    .await;
    match done {
        Ok(_) => Ok(()),
        Err(error) if twice(&error) => Err(StoreError::Conflict(ALREADY_POSTED)),
        Err(error) => Err(error.into()),
    }
}

fn twice(error: &sqlx::Error) -> bool {
    let constraint = error.as_database_error().and_then(|error| error.constraint());
    constraint == Some("ledger_entry_once")
}

/// Holds an authorized payment's money for its payee, beside the balance. A
/// payment holds at most once: [`StoreError::Conflict`] with [`HELD`] otherwise.
pub(in crate::store::postgres) async fn put_hold(
    connection: &mut PgConnection,
    account: &AccountName,
    currency: Currency,
    payment_id: Uuid,
    minor_units: i64,
) -> Result<(), StoreError> {
    let done = sqlx::query(
        "INSERT INTO hold (payment_id, account, currency, minor_units) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (payment_id) DO NOTHING",
    )
    .bind(&payment_id.as_bytes()[..])
    .bind(account.as_str())
    .bind(currency.as_str())
    .bind(minor_units)
    .execute(connection)
    .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Conflict(HELD)) }
}

/// Ends a payment's hold, if it has one.
pub(in crate::store::postgres) async fn release_hold(
    connection: &mut PgConnection,
    payment_id: Uuid,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM hold WHERE payment_id = $1")
        .bind(&payment_id.as_bytes()[..])
        .execute(connection)
        .await?;
    Ok(())
}
