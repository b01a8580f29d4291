//! The sandbox's books: rows and rules.

use std::collections::BTreeMap;

use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::ProviderRequest;
use crate::store::StoreError;
use crate::store::payment::OperationKind;

/// How far a charge is, in the provider's own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChargeStatus {
    Succeeded = 1,
    Authorized = 2,
    RequiresAction = 3,
    Pending = 4,
    Declined = 5,
    Canceled = 6,
    Expired = 7,
}

#[derive(Debug)]
pub(super) struct Charge {
    pub(super) key: String,
    pub(super) currency: String,
    pub(super) minor_units: i64,
    pub(super) manual: bool,
    pub(super) status: ChargeStatus,
    pub(super) code: String,
    pub(super) captured: i64,
    pub(super) refunded: i64,
    /// When time decides it; 0 for never.
    pub(super) settles_at: i64,
    /// Whether the first reply to everything done to it is lost.
    pub(super) lossy: bool,
}

impl Charge {
    /// Takes the money, or reserves it.
    pub(super) fn take(&mut self) {
        self.settles_at = 0;
        if self.manual {
            self.status = ChargeStatus::Authorized;
        } else {
            self.status = ChargeStatus::Succeeded;
            self.captured = self.minor_units;
        }
    }

    pub(super) fn decline(&mut self, code: &str) {
        self.status = ChargeStatus::Declined;
        self.code = code.to_owned();
        self.settles_at = 0;
    }

    /// Does what is asked, or says why not.
    pub(super) fn act(
        &mut self,
        kind: OperationKind,
        minor_units: i64,
    ) -> Result<(), &'static str> {
        match kind {
            OperationKind::Capture => {
                if self.status != ChargeStatus::Authorized || minor_units > self.minor_units {
                    return Err("not_authorized");
                }
                self.status = ChargeStatus::Succeeded;
                self.captured = minor_units;
            }
            OperationKind::Cancel => match self.status {
                ChargeStatus::RequiresAction
                | ChargeStatus::Pending
                | ChargeStatus::Authorized
                | ChargeStatus::Canceled => {
                    self.status = ChargeStatus::Canceled;
                    self.settles_at = 0;
                }
                _ => return Err("not_cancelable"),
            },
            OperationKind::Refund => {
                if minor_units > self.captured - self.refunded {
                    return Err("not_refundable");
                }
                self.refunded += minor_units;
            }
            OperationKind::Charge => return Err("no_such_charge"),
        }
        Ok(())
    }

    /// Lets time decide.
    fn settle(&mut self, now: i64) {
        if self.settles_at == 0 || self.settles_at > now {
            return;
        }
        match self.status {
            ChargeStatus::Pending => self.take(),
            ChargeStatus::RequiresAction => {
                self.status = ChargeStatus::Expired;
                self.settles_at = 0;
            }
            _ => {}
        }
    }
}

/// One charge as the books tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChargeEntry {
    /// Its provider key.
    pub key: String,
    /// The currency.
    pub currency: String,
    /// What was asked for.
    pub minor_units: i64,
    /// What was taken.
    pub captured: i64,
    /// What was given back.
    pub refunded: i64,
    /// How often the request to charge arrived.
    pub received: i64,
}

/// Everything that was booked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Books {
    /// The charges, by key.
    pub charges: Vec<ChargeEntry>,
    /// How often a request to capture, cancel or refund arrived, all together.
    pub received: u64,
    /// How many captures were done.
    pub captures: u64,
    /// How many refunds were done.
    pub refunds: u64,
    /// What was taken and not given back, by currency code: what the ledger's
    /// clearing account must have paid out.
    pub net: BTreeMap<String, i64>,
}

/// Reads the books as they will be found by whoever asks next: what time has
/// decided is counted.
pub(super) async fn read(connection: &mut SqliteConnection, now: i64) -> Result<Books, StoreError> {
    let mut books = Books::default();
    let rows = sqlx::query("SELECT * FROM charge ORDER BY key").fetch_all(&mut *connection).await?;
    for row in rows {
        let mut charge = charge_of(&row)?;
        charge.settle(now);
        *books.net.entry(charge.currency.clone()).or_default() += charge.captured - charge.refunded;
        books.charges.push(ChargeEntry {
            key: charge.key,
            currency: charge.currency,
            minor_units: charge.minor_units,
            captured: charge.captured,
            refunded: charge.refunded,
            received: row.try_get("received")?,
        });
    }
    let received = sqlx::query("SELECT coalesce(sum(received), 0) AS n FROM action")
        .fetch_one(&mut *connection)
        .await?;
    books.received = received.try_get::<i64, _>("n")?.unsigned_abs();
    let rows = sqlx::query("SELECT kind, count(*) AS n FROM action WHERE code = '' GROUP BY kind")
        .fetch_all(&mut *connection)
        .await?;
    for row in rows {
        let count = row.try_get::<i64, _>("n")?.unsigned_abs();
        match OperationKind::from_number(row.try_get("kind")?) {
            Some(OperationKind::Capture) => books.captures = count,
            Some(OperationKind::Refund) => books.refunds = count,
            _ => {}
        }
    }
    Ok(books)
}

/// A charge as time has made it.
pub(super) async fn charge(
    connection: &mut SqliteConnection,
    key: &str,
    now: i64,
) -> Result<Option<Charge>, StoreError> {
    let row = sqlx::query("SELECT * FROM charge WHERE key = ?1")
        .bind(key)
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let mut charge = charge_of(&row)?;
    let before = charge.status;
    charge.settle(now);
    if charge.status != before {
        update_charge(connection, &charge).await?;
    }
    Ok(Some(charge))
}

/// Counts a request to charge that arrived again; false when it is the first.
pub(super) async fn receive_again(
    connection: &mut SqliteConnection,
    key: &str,
) -> Result<bool, StoreError> {
    let counted = sqlx::query("UPDATE charge SET received = received + 1 WHERE key = ?1")
        .bind(key)
        .execute(connection)
        .await?;
    Ok(counted.rows_affected() > 0)
}

pub(super) async fn insert_charge(
    connection: &mut SqliteConnection,
    charge: &Charge,
    now: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO charge (key, currency, minor_units, manual, status, code, captured, \
         refunded, settles_at, lossy, created_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )
    .bind(&charge.key)
    .bind(&charge.currency)
    .bind(charge.minor_units)
    .bind(charge.manual)
    .bind(charge.status as i64)
    .bind(&charge.code)
    .bind(charge.captured)
    .bind(charge.refunded)
    .bind(charge.settles_at)
    .bind(charge.lossy)
    .bind(now)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn update_charge(
    connection: &mut SqliteConnection,
    charge: &Charge,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE charge SET status = ?2, code = ?3, captured = ?4, refunded = ?5, settles_at = ?6 \
         WHERE key = ?1",
    )
    .bind(&charge.key)
    .bind(charge.status as i64)
    .bind(&charge.code)
    .bind(charge.captured)
    .bind(charge.refunded)
    .bind(charge.settles_at)
    .execute(connection)
    .await?;
    Ok(())
}

/// Counts a request to do something to a charge that arrived again; false when
/// it is the first.
pub(super) async fn act_again(
    connection: &mut SqliteConnection,
    key: &str,
) -> Result<bool, StoreError> {
    let counted = sqlx::query("UPDATE action SET received = received + 1 WHERE key = ?1")
        .bind(key)
        .execute(connection)
        .await?;
    Ok(counted.rows_affected() > 0)
}

/// The code of an action: empty when it was done; `None` when there is none.
pub(super) async fn action(
    connection: &mut SqliteConnection,
    key: &str,
) -> Result<Option<String>, StoreError> {
    let row = sqlx::query("SELECT code FROM action WHERE key = ?1")
        .bind(key)
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|row| row.try_get("code")).transpose()?)
}

pub(super) async fn insert_action(
    connection: &mut SqliteConnection,
    request: &ProviderRequest,
    code: &str,
    now: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO action (key, charge_key, kind, minor_units, code, created_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )
    .bind(&request.provider_key)
    .bind(&request.charge_key)
    .bind(request.kind as i64)
    .bind(request.amount.minor_units)
    .bind(code)
    .bind(now)
    .execute(connection)
    .await?;
    Ok(())
}

fn charge_of(row: &SqliteRow) -> Result<Charge, StoreError> {
    let status = match row.try_get::<i64, _>("status")? {
        1 => ChargeStatus::Succeeded,
        2 => ChargeStatus::Authorized,
        3 => ChargeStatus::RequiresAction,
        4 => ChargeStatus::Pending,
        5 => ChargeStatus::Declined,
        6 => ChargeStatus::Canceled,
        7 => ChargeStatus::Expired,
        _ => return Err(StoreError::Corrupt("a charge has no known status".to_owned())),
    };
    Ok(Charge {
        key: row.try_get("key")?,
        currency: row.try_get("currency")?,
        minor_units: row.try_get("minor_units")?,
        manual: row.try_get("manual")?,
        status,
        code: row.try_get("code")?,
        captured: row.try_get("captured")?,
        refunded: row.try_get("refunded")?,
        settles_at: row.try_get("settles_at")?,
        lossy: row.try_get("lossy")?,
    })
}
