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

mod postings;
#[cfg(test)]
mod tests;

use super::provider::ProviderAnswer;
use crate::store::ledger::{AccountName, Transfer};
use crate::store::payment::{
    Failure, Hold, OperationKind, OperationRecord, OperationStatus, PaymentRecord, Proven, Status,
};

pub use postings::transfer_id;

/// The code of what was given up because the provider was never reached.
pub const UNREACHABLE: &str = "provider_unreachable";

/// Whether a payment may go from one status to another.
pub fn is_legal(from: Status, to: Status) -> bool {
    use Status::*;
    match from {
        Created => {
            matches!(to, RequiresAction | Pending | Authorized | Succeeded | Failed | Canceled | Expired)
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
        OperationKind::Cancel => (
            status.is_open() || status == Status::Authorized,
            payment.amount.minor_units,
        ),
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

struct Decision<'a> {
    payment: &'a PaymentRecord,
    operation: &'a OperationRecord,
    answer: &'a ProviderAnswer,
    now: i64,
}

impl Decision<'_> {
    fn charge(&self) -> Result<Transition, IllegalTransition> {
        let status = self.payment.proven.status;
        if status.ended_unpaid() {
            return self.charge_after_end();
        }
        if !status.is_open() {
            return self.charge_after_success();
        }
        let total = self.payment.amount.minor_units;
        match self.answer {
            ProviderAnswer::Succeeded => self.captured(total),
            ProviderAnswer::Authorized => Ok(Transition {
                hold: Hold::Put {
                    account: AccountName::of(&self.payment.payee),
                    currency: self.payment.amount.currency,
                    minor_units: total,
                },
                ..self.moved(Status::Authorized)?
            }),
            ProviderAnswer::RequiresAction(action) => {
                // A payment that the payer confirmed may be told about late.
                let to = if status == Status::Pending { status } else { Status::RequiresAction };
                let mut transition = self.moved(to)?;
                if to == Status::RequiresAction {
                    transition.proven.next_action = Some(action.clone());
                }
                Ok(Transition { follow: Follow::AwaitAction, ..transition })
            }
            ProviderAnswer::Pending => {
                Ok(Transition { follow: Follow::AwaitDecision, ..self.moved(Status::Pending)? })
            }
            ProviderAnswer::Declined { code, message } => {
                let failure = Failure { code: code.clone(), message: message.clone() };
                let mut transition = self.moved(Status::Failed)?;
                transition.proven.failure = Some(failure.clone());
                Ok(Transition {
                    operation: OperationStatus::Failed,
                    failure: Some(failure),
                    ..transition
                })
            }
            ProviderAnswer::Canceled => self.moved(Status::Canceled),
            ProviderAnswer::Expired => self.moved(Status::Expired),
            ProviderAnswer::NotSent | ProviderAnswer::NotFound | ProviderAnswer::Unknown => {
                Ok(self.unproven())
            }
        }
    }

    /// The charge of a payment that ended unpaid: what the provider took all
    /// the same is kept in suspense.
    fn charge_after_end(&self) -> Result<Transition, IllegalTransition> {
        let still = self.still(OperationStatus::Done);
        Ok(match self.answer {
            ProviderAnswer::Succeeded => self.suspended(self.payment.amount.minor_units),
            ProviderAnswer::Authorized => Transition {
                alarm: Some("the provider holds money for a payment that has ended"),
                ..still
            },
            ProviderAnswer::Declined { .. }
            | ProviderAnswer::Canceled
            | ProviderAnswer::Expired
            | ProviderAnswer::NotFound => still,
            ProviderAnswer::RequiresAction(_) => {
                Transition { follow: Follow::AwaitAction, ..still }
            }
            ProviderAnswer::Pending | ProviderAnswer::NotSent | ProviderAnswer::Unknown => {
                Transition { follow: Follow::AwaitDecision, ..still }
            }
        })
    }

    /// The charge of a payment that was charged already: told again.
    fn charge_after_success(&self) -> Result<Transition, IllegalTransition> {
        let authorized = self.payment.proven.status == Status::Authorized;
        match self.answer {
            ProviderAnswer::Succeeded if !authorized => Ok(self.still(OperationStatus::Done)),
            ProviderAnswer::Authorized if authorized => Ok(self.still(OperationStatus::Done)),
            _ => Err(self.illegal()),
        }
    }

    fn capture(&self) -> Result<Transition, IllegalTransition> {
        match self.answer {
            ProviderAnswer::Succeeded if self.payment.proven.status.ended_unpaid() => {
                Ok(self.suspended(self.operation.minor_units))
            }
            ProviderAnswer::Succeeded if self.payment.proven.status == Status::Authorized => {
                let captured = self.captured(self.operation.minor_units)?;
                Ok(Transition { hold: Hold::Release, ..captured })
            }
            ProviderAnswer::Expired if self.payment.proven.status == Status::Authorized => {
                let failure = refused(self.answer);
                Ok(Transition {
                    operation: OperationStatus::Failed,
                    failure: Some(failure),
                    hold: Hold::Release,
                    ..self.moved(Status::Expired)?
                })
            }
            ProviderAnswer::Succeeded => Err(self.illegal()),
            ProviderAnswer::Declined { .. }
            | ProviderAnswer::Canceled
            | ProviderAnswer::Expired => Ok(self.failed()),
            _ => Ok(self.unproven()),
        }
    }

    fn cancel(&self) -> Result<Transition, IllegalTransition> {
        let status = self.payment.proven.status;
        match self.answer {
            ProviderAnswer::Succeeded | ProviderAnswer::Canceled | ProviderAnswer::Expired => {
                if status.ended_unpaid() {
                    return Ok(self.still(OperationStatus::Done));
                }
                let hold =
                    if status == Status::Authorized { Hold::Release } else { Hold::Keep };
                Ok(Transition { hold, ..self.moved(Status::Canceled)? })
            }
            ProviderAnswer::Declined { .. } => Ok(self.failed()),
            _ => Ok(self.unproven()),
        }
    }

    fn refund(&self) -> Result<Transition, IllegalTransition> {
        let Proven { captured, refunded, .. } = self.payment.proven;
        match self.answer {
            ProviderAnswer::Succeeded => {
                let refunded = refunded + self.operation.minor_units;
                if refunded > captured {
                    return Err(self.illegal());
                }
                let whole = refunded == captured;
                let to = if whole { Status::Refunded } else { Status::PartiallyRefunded };
                let mut transition = self.moved(to)?;
                transition.proven.refunded = refunded;
                transition.transfers = vec![self.posting(self.operation.minor_units).refund()];
                Ok(transition)
            }
            ProviderAnswer::Declined { .. }
            | ProviderAnswer::Canceled
            | ProviderAnswer::Expired => Ok(Transition {
                transfers: vec![self.posting(self.operation.minor_units).release_refund()],
                ..self.failed()
            }),
            _ => Ok(self.unproven()),
        }
    }

    /// The money moved: payer and payee both see it.
    fn captured(&self, minor_units: i64) -> Result<Transition, IllegalTransition> {
        let mut transition = self.moved(Status::Succeeded)?;
        transition.proven.captured = minor_units;
        transition.transfers = vec![self.posting(minor_units).payment()];
        transition.receipt = !self.payment.room_id.is_empty();
        Ok(transition)
    }

    fn suspended(&self, minor_units: i64) -> Transition {
        Transition {
            transfers: vec![self.posting(minor_units).suspense()],
            alarm: Some("money came for a payment that has ended; it is in suspense"),
            ..self.still(OperationStatus::Done)
        }
    }

    /// The answer proves nothing yet, or that nothing was sent.
    fn unproven(&self) -> Transition {
        let charged = self.operation.kind == OperationKind::Charge
            && self.operation.status == OperationStatus::Done;
        let (operation, follow) = match self.answer {
            // The provider took it before: it decides later, whatever this was.
            _ if charged => (OperationStatus::Done, Follow::AwaitDecision),
            ProviderAnswer::NotSent => (OperationStatus::New, Follow::SendLater),
            ProviderAnswer::NotFound => (OperationStatus::New, Follow::SendNow),
            _ => (OperationStatus::Unknown, Follow::Resolve),
        };
        let mut transition = Transition { follow, ..self.still(operation) };
        if charged && *self.answer == ProviderAnswer::NotFound {
            transition.alarm = Some("the provider no longer knows a charge that it took");
        }
        transition
    }

    /// The operation is refused; the payment stays what it is.
    fn failed(&self) -> Transition {
        Transition {
            failure: Some(refused(self.answer)),
            ..self.still(OperationStatus::Failed)
        }
    }

    fn still(&self, operation: OperationStatus) -> Transition {
        let mut proven = self.payment.proven.clone();
        // News of a charge that is over says nothing of the operation under way.
        if self.operation.status.is_live() {
            proven.unknown = operation == OperationStatus::Unknown;
        }
        Transition {
            proven,
            operation,
            failure: None,
            transfers: Vec::new(),
            hold: Hold::Keep,
            receipt: false,
            follow: Follow::Done,
            alarm: None,
        }
    }

    fn moved(&self, to: Status) -> Result<Transition, IllegalTransition> {
        let from = self.payment.proven.status;
        if from != to && !is_legal(from, to) || (from == to && from.is_final()) {
            return Err(self.illegal());
        }
        let mut transition = self.still(OperationStatus::Done);
        transition.proven.status = to;
        transition.proven.next_action = None;
        Ok(transition)
    }

    fn posting(&self, minor_units: i64) -> postings::Posting<'_> {
        postings::Posting {
            payment: self.payment,
            operation: self.operation.id,
            minor_units,
            now: self.now,
        }
    }

    fn illegal(&self) -> IllegalTransition {
        IllegalTransition {
            kind: self.operation.kind,
            status: self.payment.proven.status,
            answer: self.answer.as_str(),
        }
    }
}

fn refused(answer: &ProviderAnswer) -> Failure {
    match answer {
        ProviderAnswer::Declined { code, message } => {
            Failure { code: code.clone(), message: message.clone() }
        }
        other => Failure {
            code: other.as_str().to_owned(),
            message: "the provider has ended the charge".to_owned(),
        },
    }
}
