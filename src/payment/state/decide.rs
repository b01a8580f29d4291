//! What each kind of operation makes of each answer.

use super::{Follow, IllegalTransition, Transition, is_legal, postings};
use crate::payment::provider::ProviderAnswer;
use crate::store::ledger::AccountName;
use crate::store::payment::{
    Failure, Hold, OperationKind, OperationRecord, OperationStatus, PaymentRecord, Proven, Status,
};

/// What is to be decided.
pub(super) struct Decision<'a> {
    pub(super) payment: &'a PaymentRecord,
    pub(super) operation: &'a OperationRecord,
    pub(super) answer: &'a ProviderAnswer,
    pub(super) now: i64,
}

impl Decision<'_> {
    pub(super) fn charge(&self) -> Result<Transition, IllegalTransition> {
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

    pub(super) fn capture(&self) -> Result<Transition, IllegalTransition> {
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

    pub(super) fn cancel(&self) -> Result<Transition, IllegalTransition> {
        let status = self.payment.proven.status;
        match self.answer {
            ProviderAnswer::Succeeded | ProviderAnswer::Canceled | ProviderAnswer::Expired => {
                if status.ended_unpaid() {
                    return Ok(self.still(OperationStatus::Done));
                }
                let hold = if status == Status::Authorized { Hold::Release } else { Hold::Keep };
                Ok(Transition { hold, ..self.moved(Status::Canceled)? })
            }
            ProviderAnswer::Declined { .. } => Ok(self.failed()),
            _ => Ok(self.unproven()),
        }
    }

    pub(super) fn refund(&self) -> Result<Transition, IllegalTransition> {
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
        Transition { failure: Some(refused(self.answer)), ..self.still(OperationStatus::Failed) }
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
