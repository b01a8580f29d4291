//! `simpul.operate.v1.OperatorService`: what whoever runs or supports a cluster
//! asks of it.
//!
//! Explaining a message or a payment reads the store, so any node answers for
//! all. A bundle, the log's level and a profile are of the node that answers.
//! Nothing in here hands out what was written: no text of a message, no
//! description or metadata of a payment, no token, no secret. The contracts say
//! who may call; each call is in the audit log, those that only read too.

mod bundle;
mod chunks;
mod level;
mod message;
mod payment;
mod profile;

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use futures_util::Stream;
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use crate::chat::inspect::Inspector;
use crate::cluster::service::ClusterView;
use crate::config::Setting;
use crate::drain;
use crate::proto::operate::v1 as pb;
use crate::proto::operate::v1::operator_service_server::{OperatorService, OperatorServiceServer};
use crate::readiness::Readiness;
use crate::refusal::{Reason, Refusal};
use crate::security::accounts::Accounts;
use crate::security::audit::AuditSubject;
use crate::security::permit::Permit;
use crate::store::Store;
use crate::store::chat::RoomId;
use crate::telemetry::{Levels, Recent};

/// Names and numbers are all that a request holds.
const MAX_REQUEST: usize = 8 * 1024;

/// Who follows a room over links.
pub trait Followers: Send + Sync + std::fmt::Debug {
    /// The nodes to which this one sends what is appended to the room.
    fn followers(&self, room: &RoomId) -> Vec<String>;
}

/// What the answers are made of.
#[derive(Debug)]
pub struct Parts {
    /// This node.
    pub node_id: String,
    /// Everything durable.
    pub store: Arc<dyn Store>,
    /// Rooms in memory.
    pub chat: Inspector,
    /// The other nodes.
    pub cluster: Arc<dyn ClusterView>,
    /// Who follows rooms of this node; `None` for a node alone.
    pub followers: Option<Arc<dyn Followers>>,
    /// Whose account is whose.
    pub accounts: Accounts,
    /// How long client message ids are remembered.
    pub message_ids_kept: Duration,
    /// What is logged.
    pub levels: Levels,
    /// The newest warnings and errors.
    pub recent: Recent,
    /// The effective configuration, secrets masked.
    pub settings: Vec<Setting>,
    /// The metrics, once all are registered.
    pub metrics: Arc<OnceLock<Arc<Registry>>>,
    /// What the node waits for.
    pub readiness: Readiness,
    /// The newest migration that this release knows.
    pub schema: u32,
    /// When the node started.
    pub started_at: SystemTime,
    /// Ends what takes long.
    pub drain: drain::Watch,
}

impl Parts {
    /// What the audit log calls this node.
    fn subject(&self) -> String {
        format!("node {}", self.node_id)
    }
}

/// Answers operators.
#[derive(Debug, Clone)]
pub struct OperatorApi {
    parts: Arc<Parts>,
    /// One bundle at a time, one profile at a time.
    collecting: Arc<Semaphore>,
    profiling: Arc<Semaphore>,
}

/// Chunks of what is too large for one message.
type Chunks<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl OperatorApi {
    /// Over the node's parts.
    pub fn new(parts: Parts) -> Self {
        let one = || Arc::new(Semaphore::new(1));
        Self { parts: Arc::new(parts), collecting: one(), profiling: one() }
    }

    /// To be put on the listener.
    pub fn service(self) -> OperatorServiceServer<Self> {
        OperatorServiceServer::new(self).max_decoding_message_size(MAX_REQUEST)
    }

    /// As [`recorded`], of what is about the node that answers.
    fn recorded<T>(&self, request: &Request<T>) -> AuditSubject {
        let subject = recorded(request);
        subject.set(&self.parts.subject());
        subject
    }
}

/// Every answer is somebody else's business: it is recorded, reading included.
fn recorded<T>(request: &Request<T>) -> AuditSubject {
    let subject = AuditSubject::of_request(request);
    subject.set_others(true);
    subject
}

fn busy(what: &str) -> Refusal {
    Refusal::new(Reason::ConcurrencyLimit, format!("the node makes another {what} now"))
        .retry_after(Duration::from_secs(5))
}

#[tonic::async_trait]
impl OperatorService for OperatorApi {
    async fn explain_message(
        &self,
        request: Request<pb::ExplainMessageRequest>,
    ) -> Result<Response<pb::ExplainMessageResponse>, Status> {
        let (subject, permit) = (recorded(&request), Permit::of(&request)?);
        let explained = message::explain(&self.parts, &permit, &subject, request.into_inner());
        Ok(Response::new(explained.await?))
    }

    async fn explain_payment(
        &self,
        request: Request<pb::ExplainPaymentRequest>,
    ) -> Result<Response<pb::ExplainPaymentResponse>, Status> {
        let (subject, permit) = (recorded(&request), Permit::of(&request)?);
        let explained = payment::explain(&self.parts, &permit, &subject, request.into_inner());
        Ok(Response::new(explained.await?))
    }

    type CollectBundleStream = Chunks<pb::CollectBundleResponse>;

    async fn collect_bundle(
        &self,
        request: Request<pb::CollectBundleRequest>,
    ) -> Result<Response<Self::CollectBundleStream>, Status> {
        self.recorded(&request);
        let wanted = bundle::Wanted::of(request.get_ref())?;
        let place = self.collecting.clone().try_acquire_owned().map_err(|_| busy("bundle"))?;
        let bytes = bundle::collect(&self.parts, wanted).await?;
        let chunk = |chunk| pb::CollectBundleResponse { chunk };
        Ok(Response::new(chunks::stream(bytes, place, chunk)))
    }

    async fn get_log_level(
        &self,
        request: Request<pb::GetLogLevelRequest>,
    ) -> Result<Response<pb::GetLogLevelResponse>, Status> {
        self.recorded(&request);
        Ok(Response::new(level::get(&self.parts)))
    }

    async fn set_log_level(
        &self,
        request: Request<pb::SetLogLevelRequest>,
    ) -> Result<Response<pb::SetLogLevelResponse>, Status> {
        let subject = recorded(&request);
        Ok(Response::new(level::set(&self.parts, &subject, request.get_ref())?))
    }

    type ProfileCpuStream = Chunks<pb::ProfileCpuResponse>;

    async fn profile_cpu(
        &self,
        request: Request<pb::ProfileCpuRequest>,
    ) -> Result<Response<Self::ProfileCpuStream>, Status> {
        self.recorded(&request);
        let wanted = profile::Wanted::of(request.get_ref())?;
        let place = self.profiling.clone().try_acquire_owned().map_err(|_| busy("profile"))?;
        let bytes = profile::take(wanted, self.parts.drain.clone()).await?;
        let chunk = |chunk| pb::ProfileCpuResponse { chunk };
        Ok(Response::new(chunks::stream(bytes, place, chunk)))
    }
}
