//! A connected node: one channel, the caller's proof on every request, and the
//! generated clients on top. Idempotent unary calls go to another node of the
//! list when this one cannot serve.

use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Status};
use tonic_health::pb::health_client::HealthClient;

use super::failover::Failover;
use super::servers::Servers;
use crate::proto::chat::v1::chat_service_client::ChatServiceClient;
use crate::proto::cluster::v1::cluster_service_client::ClusterServiceClient;
use crate::proto::identity::v1::identity_service_client::IdentityServiceClient;
use crate::proto::operate::v1::operator_service_client::OperatorServiceClient;
use crate::proto::payment::v1::payment_service_client::PaymentServiceClient;
use crate::proto::sandbox::v1::sandbox_service_client::SandboxServiceClient;
use crate::proto::transaction::v1::transaction_service_client::TransactionServiceClient;

/// A channel that proves its caller.
pub type Proven = InterceptedService<Failover, Proof>;

/// Puts the caller's proof on each request.
#[derive(Clone)]
pub struct Proof {
    bearer: Option<MetadataValue<Ascii>>,
    on_behalf_of: Option<MetadataValue<Ascii>>,
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proof").field("bearer", &self.bearer.is_some()).finish_non_exhaustive()
    }
}

impl Interceptor for Proof {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(bearer) = &self.bearer {
            request.metadata_mut().insert("authorization", bearer.clone());
        }
        if let Some(user) = &self.on_behalf_of {
            request.metadata_mut().insert("simpul-on-behalf-of", user.clone());
        }
        Ok(request)
    }
}

/// The clients of one node, or of one node at a time.
#[derive(Debug, Clone)]
pub struct Client {
    failover: Failover,
    proof: Proof,
    timeout: Duration,
}

impl Client {
    /// Over one of several nodes, with what proves the caller and the time that a unary
    /// call may take.
    pub fn new(
        servers: Servers,
        bearer: Option<MetadataValue<Ascii>>,
        on_behalf_of: Option<MetadataValue<Ascii>>,
        timeout: Duration,
    ) -> Self {
        let failover = Failover::new(servers);
        Self { failover, proof: Proof { bearer, on_behalf_of }, timeout }
    }

    /// A unary request with its deadline.
    pub fn unary<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        request
    }

    /// How long a unary call may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Rooms and messages.
    pub fn chat(&self) -> ChatServiceClient<Proven> {
        ChatServiceClient::new(self.proven())
    }

    /// Payments.
    pub fn payment(&self) -> PaymentServiceClient<Proven> {
        PaymentServiceClient::new(self.proven())
    }

    /// Histories and balances.
    pub fn transaction(&self) -> TransactionServiceClient<Proven> {
        TransactionServiceClient::new(self.proven())
    }

    /// Who the caller is.
    pub fn identity(&self) -> IdentityServiceClient<Proven> {
        IdentityServiceClient::new(self.proven())
    }

    /// The cluster, for operators.
    pub fn cluster(&self) -> ClusterServiceClient<Proven> {
        ClusterServiceClient::new(self.proven())
    }

    /// What operators ask.
    pub fn operator(&self) -> OperatorServiceClient<Proven> {
        OperatorServiceClient::new(self.proven())
    }

    /// The sandbox's side of a payment.
    pub fn sandbox(&self) -> SandboxServiceClient<Proven> {
        SandboxServiceClient::new(self.proven())
    }

    /// Whether the node serves.
    pub fn health(&self) -> HealthClient<Proven> {
        HealthClient::new(self.proven())
    }

    fn proven(&self) -> Proven {
        InterceptedService::new(self.failover.clone(), self.proof.clone())
    }
}
