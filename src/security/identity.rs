//! Tells callers who the node takes them for.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::permit::{self, Permit};
use crate::clock;
use crate::principal::Role;
use crate::proto::identity::v1 as pb;
use crate::proto::identity::v1::identity_service_server::IdentityServiceServer;

/// `simpul.identity.v1.IdentityService`.
#[derive(Debug, Clone)]
pub struct IdentityService {
    node_id: Arc<str>,
}

impl IdentityService {
    /// Of the node with this id.
    pub fn new(node_id: impl Into<Arc<str>>) -> Self {
        Self { node_id: node_id.into() }
    }

    /// To be put on the listener.
    pub fn service(self) -> IdentityServiceServer<Self> {
        IdentityServiceServer::new(self)
    }
}

#[tonic::async_trait]
impl pb::identity_service_server::IdentityService for IdentityService {
    async fn who_am_i(
        &self,
        request: Request<pb::WhoAmIRequest>,
    ) -> Result<Response<pb::WhoAmIResponse>, Status> {
        let permit = Permit::of(&request)?;
        let caller = permit.caller();
        let proof = match caller.proof {
            permit::Proof::Certificate => pb::Proof::Certificate,
            permit::Proof::Token => pb::Proof::Token,
            permit::Proof::TokenAndCertificate => pb::Proof::TokenAndCertificate,
        };
        let expires_at = clock::micros(permit.validity().expires_at());
        Ok(Response::new(pb::WhoAmIResponse {
            principal: caller.principal.to_string(),
            roles: caller.roles.iter().map(|role: Role| role.to_proto().into()).collect(),
            proof: proof.into(),
            expires_at: Some(clock::timestamp(expires_at)),
            acting_service: caller
                .acting_service
                .as_ref()
                .map(|s| s.to_string())
                .unwrap_or_default(),
            node_id: self.node_id.to_string(),
        }))
    }
}
