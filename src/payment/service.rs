//! The payment service: what is asked for is checked, claimed and waited for.
//!
//! Order of every call: the request's form (all violations at once), whether
//! the payment is the caller's to see, what already stands under the key, the
//! caller's part in the payment, the payment's state, the claim. A replay of a
//! key therefore answers although the state has moved on.

mod convert;
mod request;
mod sandbox;
mod wait;
mod watch;

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use tonic::{Request, Response, Status as RpcStatus};
use uuid::Uuid;

use self::request::Wanted;
use self::wait::Until;
use super::{Core, state};
use crate::id;
use crate::principal::{Role, Roles};
use crate::proto::payment::v1 as pb;
use crate::proto::payment::v1::payment_service_server::PaymentService;
use crate::refusal::{Reason, Refusal, Violations};
use crate::security::audit::AuditSubject;
use crate::security::permit::Permit;
use crate::store::ledger::Transfer;
use crate::store::payment::{
    Claim, Claimed, Key, KeyRecord, Listing, OperationKind, OperationStatus, PaymentRecord, Status,
    Work,
};
use crate::telemetry::context;

pub use sandbox::SandboxHandler;

/// How often a claim is decided anew when the payment moved meanwhile.
const DECISIONS: u32 = 8;

/// `PaymentService` behind the layers.
#[derive(Debug, Clone)]
pub struct PaymentHandler {
    core: Arc<Core>,
}

/// A further operation, its form checked.
struct Asked {
    payment_id: Uuid,
    key: Key,
    kind: OperationKind,
    minor_units: i64,
    hash: [u8; 32],
    until: Until,
}

impl PaymentHandler {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    async fn process(&self, permit: &Permit, wanted: Wanted, until: Until) -> Answer {
        let core = &self.core;
        if let Some(known) = core.store().key(&wanted.key).await? {
            return self.known(&known, &wanted.hash, until).await;
        }
        if !wanted.payment.room_id.is_empty() {
            let (room, payer) = (&wanted.payment.room_id, &wanted.payment.payer);
            let membership = &core.parts.membership;
            // The receipt is posted in the payer's name, which is that of an
            // account that others may share: they must be members themselves.
            if !membership.is_member(room, payer).await?
                || !membership.is_member(room, permit.principal()).await?
            {
                let mut violations = Violations::new();
                violations.add("room_id", "must name a room of which the payer is a member");
                violations.finish()?;
            }
        }
        let hash = wanted.hash;
        let claim = Claim {
            key: wanted.key,
            request_hash: hash,
            payment_id: id::fresh(),
            operation_id: id::fresh(),
            work: Work::Pay(Box::new(wanted.payment)),
            trace: context::current_traceparent().unwrap_or_default(),
            now: core.now(),
        };
        let ids = (claim.payment_id, claim.operation_id);
        let subscription = core.hub.subscribe(ids.0);
        match core.store().claim(claim).await? {
            Claimed::New => {
                core.work.notify_one();
                wait::settled(core, ids, subscription, until).await
            }
            Claimed::Known(known) => self.known(&known, &hash, until).await,
            Claimed::Moved | Claimed::InsufficientBalance => {
                Err(Refusal::new(Reason::Internal, "a new payment cannot be claimed"))
            }
        }
    }

    /// Answers a replay with what its payment has become.
    async fn known(&self, known: &KeyRecord, hash: &[u8; 32], until: Until) -> Answer {
        if known.request_hash != *hash {
            let message = "the idempotency key was used with another request";
            return Err(Refusal::new(Reason::KeyReused, message));
        }
        let subscription = self.core.hub.subscribe(known.payment_id);
        let ids = (known.payment_id, known.operation_id);
        wait::settled(&self.core, ids, subscription, until).await
    }

    async fn operate(&self, permit: &Permit, subject: &AuditSubject, asked: Asked) -> Answer {
        let core = &self.core;
        for _ in 0..DECISIONS {
            let payment = self.visible(permit, subject, asked.payment_id).await?;
            if let Some(known) = core.store().key(&asked.key).await? {
                return self.known(&known, &asked.hash, asked.until).await;
            }
            self.entitled(permit, &payment, asked.kind)?;
            let withdrawal = state::withdraws(&payment, asked.kind);
            let minor_units = match state::begin(&payment, asked.kind, asked.minor_units) {
                Ok(minor_units) => minor_units,
                Err(state::Barred::Busy) if withdrawal => payment.amount.minor_units,
                // The same key may have been claimed since it was looked up.
                Err(barred) => match core.store().key(&asked.key).await? {
                    Some(known) => return self.known(&known, &asked.hash, asked.until).await,
                    None => return Err(barred_refusal(barred)),
                },
            };
            let subscription = core.hub.subscribe(payment.id);
            let (claim, reservation) = self.claim(&asked, &payment, minor_units);
            let ids = (claim.payment_id, claim.operation_id);
            match core.store().claim(claim).await? {
                Claimed::New => {
                    core.tell(payment.id, reservation.as_slice(), None);
                    core.work.notify_one();
                    return wait::settled(core, ids, subscription, asked.until).await;
                }
                Claimed::Known(known) => {
                    return self.known(&known, &asked.hash, asked.until).await;
                }
                Claimed::Moved => {}
                Claimed::InsufficientBalance => {
                    let message = "the payee's balance is below the refund";
                    return Err(Refusal::new(Reason::InsufficientBalance, message));
                }
            }
        }
        Err(Refusal::new(Reason::OperationPending, "the payment keeps changing; try again"))
    }

    fn claim(
        &self,
        asked: &Asked,
        payment: &PaymentRecord,
        minor_units: i64,
    ) -> (Claim, Option<Transfer>) {
        let (operation_id, now) = (id::fresh(), self.core.now());
        let below_zero = self.core.parts.config.refund_below_zero;
        let reservation = (asked.kind == OperationKind::Refund)
            .then(|| state::reservation(payment, operation_id, minor_units, below_zero, now));
        let version = payment.version;
        let work = if state::withdraws(payment, asked.kind) {
            Work::Withdraw { version, minor_units, failure: state::withdrawn() }
        } else {
            let reservation = reservation.clone();
            Work::Operate { version, kind: asked.kind, minor_units, reservation }
        };
        let claim = Claim {
            key: asked.key.clone(),
            request_hash: asked.hash,
            payment_id: payment.id,
            operation_id,
            work,
            trace: context::current_traceparent().unwrap_or_default(),
            now,
        };
        (claim, reservation)
    }

    /// A payment that the caller may see; else there is none. The audit log is
    /// told whose it is in either case.
    async fn visible(&self, permit: &Permit, subject: &AuditSubject, payment: Uuid) -> Answer {
        let accounts = &self.core.parts.accounts;
        subject.set(&format!("payment {payment}"));
        let found = self.core.store().payment(payment).await?;
        let found = found.ok_or_else(|| Refusal::not_found("payment"))?;
        name(subject, &found);
        let own = accounts.owns(permit, &found.payer) || accounts.owns(permit, &found.payee);
        subject.set_others(!own);
        if own || permit.caller().roles.intersects(readers()) {
            Ok(found)
        } else {
            Err(Refusal::not_found("payment"))
        }
    }

    /// Whether the caller's part in the payment allows the operation.
    fn entitled(
        &self,
        permit: &Permit,
        payment: &PaymentRecord,
        kind: OperationKind,
    ) -> Result<(), Refusal> {
        let accounts = &self.core.parts.accounts;
        let payer = accounts.owns(permit, &payment.payer);
        let payee = accounts.owns(permit, &payment.payee);
        let (allowed, rule) = match kind {
            OperationKind::Charge => (false, "a payment is charged once"),
            OperationKind::Capture | OperationKind::Refund => (
                permit.has(Role::Operator) || payee && permit.has(Role::Merchant),
                "only the payee, as a merchant, or an operator may do this",
            ),
            OperationKind::Cancel if payment.proven.status.is_open() => {
                (payer, "only the payer may cancel a payment that is not authorized yet")
            }
            OperationKind::Cancel if payment.proven.status == Status::Authorized => {
                (payee, "only the payee may cancel an authorized payment")
            }
            // Its state refuses it anyway: both sides may learn so.
            OperationKind::Cancel => (payer || payee, "only payer and payee may cancel a payment"),
        };
        if allowed { Ok(()) } else { Err(Refusal::new(Reason::NotAllowed, rule)) }
    }

    async fn list(
        &self,
        permit: &Permit,
        subject: &AuditSubject,
        request: pb::ListPaymentsRequest,
    ) -> ListAnswer {
        let accounts = &self.core.parts.accounts;
        let page = request::page(&request)?;
        let account = accounts.resolve(permit, subject, "account", &request.account, readers())?;
        let listing = Listing {
            account,
            statuses: page.statuses,
            before: page.before,
            // One more tells whether there is a next page.
            limit: page.size + 1,
        };
        let mut found = self.core.store().list(&listing).await?;
        let more = found.len() > page.size as usize;
        found.truncate(page.size as usize);
        let next_page_token = match found.last() {
            Some(last) if more => last.id.simple().to_string(),
            _ => String::new(),
        };
        let payments = found.into_iter().map(convert::payment).collect();
        Ok(pb::ListPaymentsResponse { payments, next_page_token })
    }
}

fn name(subject: &AuditSubject, payment: &PaymentRecord) {
    subject.set(&format!("payment {} of {}", payment.id, payment.payer));
}

type Answer = Result<PaymentRecord, Refusal>;
type ListAnswer = Result<pb::ListPaymentsResponse, Refusal>;

/// Who may read anyone's payments.
fn readers() -> Roles {
    [Role::Support, Role::Auditor, Role::Operator].into_iter().collect()
}

fn barred_refusal(barred: state::Barred) -> Refusal {
    match barred {
        state::Barred::Busy => {
            Refusal::new(Reason::OperationPending, "another operation of the payment is under way")
        }
        state::Barred::Status(status) => Refusal::new(
            Reason::PaymentState,
            format!("a payment that is {} does not allow this", status.as_str()),
        ),
        state::Barred::Amount(most) => {
            let mut violations = Violations::new();
            violations.add("minor_units", format!("must be 0 to {most}"));
            violations.finish().err().unwrap_or_else(|| Refusal::new(Reason::Internal, "amount"))
        }
    }
}

/// A refused operation of a payment that stands: the payment alone would look
/// as if nothing had been asked.
fn refused_operation(operation: &crate::store::payment::OperationRecord) -> Option<Refusal> {
    let refused =
        operation.status == OperationStatus::Failed && operation.kind != OperationKind::Charge;
    let failure = operation.failure.as_ref().filter(|_| refused)?;
    let message = format!("the provider refused it: {} ({})", failure.message, failure.code);
    Some(Refusal::new(Reason::PaymentState, message))
}

#[tonic::async_trait]
impl PaymentService for PaymentHandler {
    async fn process_payment(
        &self,
        request: Request<pb::ProcessPaymentRequest>,
    ) -> Result<Response<pb::ProcessPaymentResponse>, RpcStatus> {
        let permit = Permit::of(&request)?;
        let until = Until::of(&request, &self.core.parts.config);
        let subject = AuditSubject::of_request(&request);
        let payer = self.core.parts.accounts.of(permit.principal());
        subject.set(&format!("account {payer}"));
        let wanted = request::pay(&self.core, &permit, request.into_inner())?;
        let payment = self.process(&permit, wanted, until).await?;
        name(&subject, &payment);
        Ok(Response::new(pb::ProcessPaymentResponse { payment: Some(convert::payment(payment)) }))
    }

    async fn get_payment(
        &self,
        request: Request<pb::GetPaymentRequest>,
    ) -> Result<Response<pb::GetPaymentResponse>, RpcStatus> {
        let permit = Permit::of(&request)?;
        let id = request::payment_id(&request.get_ref().payment_id)?;
        let payment = self.visible(&permit, &AuditSubject::of_request(&request), id).await?;
        Ok(Response::new(pb::GetPaymentResponse { payment: Some(convert::payment(payment)) }))
    }

    async fn list_payments(
        &self,
        request: Request<pb::ListPaymentsRequest>,
    ) -> Result<Response<pb::ListPaymentsResponse>, RpcStatus> {
        let permit = Permit::of(&request)?;
        let subject = AuditSubject::of_request(&request);
        Ok(Response::new(self.list(&permit, &subject, request.into_inner()).await?))
    }

    async fn capture_payment(
        &self,
        request: Request<pb::CapturePaymentRequest>,
    ) -> Result<Response<pb::CapturePaymentResponse>, RpcStatus> {
        let permit = Permit::of(&request)?;
        let until = Until::of(&request, &self.core.parts.config);
        let asked = request::capture(&self.core, &permit, request.get_ref(), until)?;
        let subject = AuditSubject::of_request(&request);
        let payment = self.operate(&permit, &subject, asked).await?;
        Ok(Response::new(pb::CapturePaymentResponse { payment: Some(convert::payment(payment)) }))
    }

    async fn cancel_payment(
        &self,
        request: Request<pb::CancelPaymentRequest>,
    ) -> Result<Response<pb::CancelPaymentResponse>, RpcStatus> {
        let permit = Permit::of(&request)?;
        let until = Until::of(&request, &self.core.parts.config);
        let asked = request::cancel(&self.core, &permit, request.get_ref(), until)?;
        let subject = AuditSubject::of_request(&request);
        let payment = self.operate(&permit, &subject, asked).await?;
        Ok(Response::new(pb::CancelPaymentResponse { payment: Some(convert::payment(payment)) }))
    }

    async fn refund_payment(
        &self,
        request: Request<pb::RefundPaymentRequest>,
    ) -> Result<Response<pb::RefundPaymentResponse>, RpcStatus> {
        let permit = Permit::of(&request)?;
        let until = Until::of(&request, &self.core.parts.config);
        let asked = request::refund(&self.core, &permit, request.get_ref(), until)?;
        let subject = AuditSubject::of_request(&request);
        let payment = self.operate(&permit, &subject, asked).await?;
        Ok(Response::new(pb::RefundPaymentResponse { payment: Some(convert::payment(payment)) }))
    }

    type WatchPaymentStream =
        Pin<Box<dyn Stream<Item = Result<pb::WatchPaymentResponse, RpcStatus>> + Send>>;

    async fn watch_payment(
        &self,
        request: Request<pb::WatchPaymentRequest>,
    ) -> Result<Response<Self::WatchPaymentStream>, RpcStatus> {
        let permit = Permit::of(&request)?;
        let asked = request.get_ref();
        let id = request::payment_id(&asked.payment_id)?;
        let subscription = self.core.hub.subscribe(id);
        self.visible(&permit, &AuditSubject::of_request(&request), id).await?;
        let stream = watch::stream(self.core.clone(), id, asked.until_settled, subscription);
        Ok(Response::new(Box::pin(stream)))
    }
}
