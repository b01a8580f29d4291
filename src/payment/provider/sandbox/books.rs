//! The sandbox's books: what stands in them and the rules of a charge. [`rows`]
//! reads and writes them, on either engine.

mod rows;

use std::collections::BTreeMap;

use crate::store::StoreError;
use crate::store::payment::OperationKind;

pub(super) use rows::Rows;

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

impl ChargeStatus {
    fn from_number(number: i64) -> Result<Self, StoreError> {
        Ok(match number {
            1 => ChargeStatus::Succeeded,
            2 => ChargeStatus::Authorized,
            3 => ChargeStatus::RequiresAction,
            4 => ChargeStatus::Pending,
            5 => ChargeStatus::Declined,
            6 => ChargeStatus::Canceled,
            7 => ChargeStatus::Expired,
            _ => return Err(StoreError::Corrupt("a charge has no known status".to_owned())),
        })
    }
}

impl Books {
    /// Adds a charge as it will be found by whoever asks next: what time has
    /// decided is counted.
    fn add(&mut self, mut charge: Charge, received: i64, now: i64) {
        charge.settle(now);
        *self.net.entry(charge.currency.clone()).or_default() += charge.captured - charge.refunded;
        self.charges.push(ChargeEntry {
            key: charge.key,
            currency: charge.currency,
            minor_units: charge.minor_units,
            captured: charge.captured,
            refunded: charge.refunded,
            received,
        });
    }
}
