//! What becomes of a payment: the pure core, without IO.
//!
//! [`begin`] says whether an operation may start and what must be set aside
//! for it; [`outcome`] says what a provider's answer makes of the payment, the
//! operation, the ledger, the hold and the outbox row. Both only decide: the
//! store applies a decision whole, if the payment has not moved meanwhile.
//!
//! Invariants: `0 <= refunded <= captured <= amount`; only a transition of
//! [`is_legal`] changes a status; every transfer's id is derived from
//! (operation, step), so that posting one twice is refused by the ledger; money
//! that turns up for a payment that ended unpaid goes to suspense, with an
//! alarm, and is never dropped.

mod decide;
mod postings;
#[cfg(test)]
mod tests;

use self::decide::Decision;
use super::provider::ProviderAnswer;
use crate::store::ledger::Transfer;
use crate::store::payment::{
    Failure, Hold, OperationKind, OperationRecord, OperationStatus, PaymentRecord, Proven, Status,
};

pub use postings::transfer_id;

/// The code of what was given up because the provider was never reached.
pub const UNREACHABLE: &str = "provider_unreachable";

/// The code of a charge that was given up before it was sent.
const WITHDRAWN: &str = "withdrawn";

/// Whether a payment may go from one status to another.
pub fn is_legal(from: Status, to: Status) -> bool {
    use Status::*;
    match from {
        Created => {
            matches!(
                to,
                RequiresAction | Pending | Authorized | Succeeded | Failed | Canceled | Expired
            )
        }
        RequiresAction => {
            matches!(to, Pending | Authorized | Succeeded | Failed | Canceled | Expired)
        }
        Pending => matches!(to, Authorized | Succeeded | Failed | Canceled | Expired),
        Authorized => matches!(to, Succeeded | Canceled | Expired | Failed),
        Succeeded | PartiallyRefunded => matches!(to, PartiallyRefunded | Refunded),
        Refunded | Failed | Canceled | Expired => false,
    }
}

/// Why an operation may not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Barred {
    /// Another one is under way.
    Busy,
    /// The payment's status does not allow it.
    Status(Status),
    /// More than there is, or less than nothing; the most that it may be.
    Amount(i64),
}

/// Whether a further operation may begin on a payment, and with how many minor
/// units. Asked for 0 it takes all that there is.
pub fn begin(payment: &PaymentRecord, kind: OperationKind, asked: i64) -> Result<i64, Barred> {
    let Proven { status, captured, refunded, .. } = payment.proven;
    let (allowed, most) = match kind {
        OperationKind::Charge => (false, 0),
        OperationKind::Capture => (status == Status::Authorized, payment.amount.minor_units),
        OperationKind::Cancel => {
            (status.is_open() || status == Status::Authorized, payment.amount.minor_units)
        }
        OperationKind::Refund => {
            (matches!(status, Status::Succeeded | Status::PartiallyRefunded), captured - refunded)
        }
    };
    if allowed && payment.busy {
        return Err(Barred::Busy);
    }
    if !allowed {
        return Err(Barred::Status(status));
    }
    match asked {
        0 => Ok(most),
        _ if (1..=most).contains(&asked) => Ok(asked),
        _ => Err(Barred::Amount(most)),
    }
}

/// Whether an operation is the cancellation of a payment whose charge was never
/// sent: it is done here and now, and no provider hears of it. What is being
/// sent, or may have arrived, is not withdrawn.
pub fn withdraws(payment: &PaymentRecord, kind: OperationKind) -> bool {
    kind == OperationKind::Cancel && payment.proven.status == Status::Created && payment.unsent
}

/// What a charge that was withdrawn says of itself.
pub fn withdrawn() -> Failure {
    Failure {
        code: WITHDRAWN.to_owned(),
        message: "the payer gave the payment up; nothing was sent".to_owned(),
    }
}

/// The transfer that sets a refund's money aside, posted when it begins.
pub fn reservation(
    payment: &PaymentRecord,
    operation: uuid::Uuid,
    minor_units: i64,
    below_zero: bool,
    now: i64,
) -> Transfer {
    postings::Posting { payment, operation, minor_units, now }.reserve_refund(!below_zero)
}

/// What the outbox row is for from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// Nothing: the operation is over.
    Done,
    /// It was not sent: send it later.
    SendLater,
    /// The provider proved that it has nothing: send it.
    SendNow,
    /// Ask the provider again: the payer has to act.
    AwaitAction,
    /// Ask the provider again: it decides soon.
    AwaitDecision,
    /// Ask the provider again: the outcome is not known.
    Resolve,
}

/// What an answer makes of a payment and its operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// What the payment becomes.
    pub proven: Proven,
    /// What the operation becomes.
    pub operation: OperationStatus,
    /// Why the operation failed.
    pub failure: Option<Failure>,
    /// To be posted with it.
    pub transfers: Vec<Transfer>,
    /// What becomes of the hold.
    pub hold: Hold,
    /// Whether the receipt falls due.
    pub receipt: bool,
    /// What follows.
    pub follow: Follow,
    /// What an operator must be told.
    pub alarm: Option<&'static str>,
}

/// An answer that cannot be: nothing is changed, an operator must look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{answer} to a {kind:?} of a payment that is {status:?}")]
pub struct IllegalTransition {
    /// The operation's kind.
    pub kind: OperationKind,
    /// The payment's status.
    pub status: Status,
    /// The answer.
    pub answer: &'static str,
}

/// What a provider's answer makes of a payment.
pub fn outcome(
    payment: &PaymentRecord,
    operation: &OperationRecord,
    answer: &ProviderAnswer,
    now: i64,
) -> Result<Transition, IllegalTransition> {
    let decision = Decision { payment, operation, answer, now };
    match operation.kind {
        OperationKind::Charge => decision.charge(),
        OperationKind::Capture => decision.capture(),
        OperationKind::Cancel => decision.cancel(),
        OperationKind::Refund => decision.refund(),
    }
}

/// What becomes of an operation that was never sent and whose time is over.
pub fn give_up(
    payment: &PaymentRecord,
    operation: &OperationRecord,
    now: i64,
) -> Result<Transition, IllegalTransition> {
    let answer = ProviderAnswer::Declined {
        code: UNREACHABLE.to_owned(),
        message: "the provider could not be reached in time; nothing was sent".to_owned(),
    };
    outcome(payment, operation, &answer, now)
}
