//! The transfers that a payment's life posts.

use aws_lc_rs::digest;
use uuid::Uuid;

use crate::store::ledger::{AccountName, Movement, TransactionKind, Transfer};
use crate::store::payment::PaymentRecord;

/// The id of the transfer that a step of an operation posts: the same for the
/// same step, so that the ledger refuses a second one.
pub fn transfer_id(operation: Uuid, step: &str) -> Uuid {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"simpul.transfer.v1\0");
    context.update(operation.as_bytes());
    context.update(step.as_bytes());
    let hash = context.finish();
    let mut bytes = [0; 16];
    for (byte, hashed) in bytes.iter_mut().zip(hash.as_ref()) {
        *byte = *hashed;
    }
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// Money of one operation on its way through the ledger.
pub(super) struct Posting<'a> {
    pub(super) payment: &'a PaymentRecord,
    pub(super) operation: Uuid,
    pub(super) minor_units: i64,
    pub(super) now: i64,
}

impl Posting<'_> {
    /// Clearing to payer, payer to payee: it stands in both histories.
    pub(super) fn payment(&self) -> Transfer {
        self.transfer(
            "payment",
            vec![
                self.movement(self.clearing(), self.payer(), TransactionKind::Funding),
                self.movement(self.payer(), self.payee(), TransactionKind::Payment),
            ],
        )
    }

    /// Money without a payment that could take it.
    pub(super) fn suspense(&self) -> Transfer {
        let suspense = AccountName::suspense();
        self.transfer(
            "suspense",
            vec![self.movement(self.clearing(), suspense, TransactionKind::Funding)],
        )
    }

    /// Payee to refunds_payable, when a refund is asked for.
    pub(super) fn reserve_refund(&self, needs_balance: bool) -> Transfer {
        let reserve = AccountName::refunds_payable();
        let movement = self.movement(self.payee(), reserve, TransactionKind::RefundReserved);
        self.transfer("refund.reserve", vec![Movement { needs_balance, ..movement }])
    }

    /// refunds_payable to payer, payer to clearing, when it is done.
    pub(super) fn refund(&self) -> Transfer {
        let reserve = AccountName::refunds_payable();
        self.transfer(
            "refund.done",
            vec![
                self.movement(reserve, self.payer(), TransactionKind::Refund),
                self.movement(self.payer(), self.clearing(), TransactionKind::Payback),
            ],
        )
    }

    /// refunds_payable back to payee, when it failed.
    pub(super) fn release_refund(&self) -> Transfer {
        let reserve = AccountName::refunds_payable();
        self.transfer(
            "refund.release",
            vec![self.movement(reserve, self.payee(), TransactionKind::RefundReleased)],
        )
    }

    fn payer(&self) -> AccountName {
        AccountName::of(&self.payment.payer)
    }

    fn payee(&self) -> AccountName {
        AccountName::of(&self.payment.payee)
    }

    fn clearing(&self) -> AccountName {
        AccountName::provider_clearing(&self.payment.provider)
    }

    fn movement(&self, from: AccountName, to: AccountName, kind: TransactionKind) -> Movement {
        Movement { from, to, minor_units: self.minor_units, kind, needs_balance: false }
    }

    fn transfer(&self, step: &str, movements: Vec<Movement>) -> Transfer {
        Transfer {
            id: transfer_id(self.operation, step),
            payment_id: self.payment.id,
            currency: self.payment.amount.currency,
            movements,
            posted_at: self.now,
        }
    }
}
