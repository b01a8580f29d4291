//! What a payer would do on a provider's page, for the sandbox.

use std::sync::Arc;

use tonic::{Request, Response, Status as RpcStatus};

use super::wait::Until;
use super::{Answer, convert, request};
use crate::payment::Core;
use crate::payment::provider::sandbox::Sandbox;
use crate::proto::sandbox::v1 as pb;
use crate::proto::sandbox::v1::sandbox_service_server::SandboxService;
use crate::refusal::{Reason, Refusal, Violations};
use crate::security::audit::AuditSubject;
use crate::security::permit::Permit;
use crate::store::payment::Status;

/// `SandboxService` behind the layers.
#[derive(Debug, Clone)]
pub struct SandboxHandler {
    core: Arc<Core>,
    sandbox: Sandbox,
}

impl SandboxHandler {
    pub(in crate::payment) fn new(core: Arc<Core>, sandbox: Sandbox) -> Self {
        Self { core, sandbox }
    }

    async fn complete(
        &self,
        permit: &Permit,
        subject: &AuditSubject,
        asked: &pb::CompleteActionRequest,
        until: Until,
    ) -> Answer {
        let core = &self.core;
        let (id, approve) = read(asked)?;
        let subscription = core.hub.subscribe(id);
        subject.set(&format!("payment {id}"));
        let payment = core.store().payment(id).await?;
        payment.iter().for_each(|payment| super::name(subject, payment));
        let payment = payment
            .filter(|payment| core.parts.accounts.owns(permit, &payment.payer))
            .ok_or_else(|| Refusal::not_found("payment"))?;
        let charge = core.store().charge(id).await?;
        let charge = charge.ok_or_else(|| Refusal::not_found("payment"))?;
        let waiting = payment.proven.status == Status::RequiresAction
            && self.sandbox.complete_action(&charge.provider_key, approve).await?;
        if !waiting {
            let message = "the payment does not wait for its payer";
            return Err(Refusal::new(Reason::PaymentState, message));
        }
        core.store().hasten(id, core.now()).await?;
        core.work.notify_one();
        super::wait::confirmed(core, id, subscription, until).await
    }
}

fn read(asked: &pb::CompleteActionRequest) -> Result<(uuid::Uuid, bool), Refusal> {
    let mut violations = Violations::new();
    let id = violations.take("payment_id", request::parse_id(&asked.payment_id));
    let approve = match asked.decision() {
        pb::ActionDecision::Approve => Some(true),
        pb::ActionDecision::Decline => Some(false),
        pb::ActionDecision::Unspecified => {
            violations.add("decision", "must be APPROVE or DECLINE");
            None
        }
    };
    violations.finish()?;
    id.zip(approve).ok_or_else(|| Refusal::new(Reason::Internal, "a checked field is missing"))
}

#[tonic::async_trait]
impl SandboxService for SandboxHandler {
    async fn complete_action(
        &self,
        request: Request<pb::CompleteActionRequest>,
    ) -> Result<Response<pb::CompleteActionResponse>, RpcStatus> {
        let permit = Permit::of(&request)?;
        let until = Until::of(&request, &self.core.parts.config);
        let subject = AuditSubject::of_request(&request);
        let payment = self.complete(&permit, &subject, request.get_ref(), until).await?;
        Ok(Response::new(pb::CompleteActionResponse { payment: Some(convert::payment(payment)) }))
    }
}
