//! grpc.health.v1 over the node's readiness.
//!
//! The generated trait is implemented here over [`Readiness`] itself: tonic's
//! own reporter begins as SERVING and is told of changes later, this one cannot
//! disagree with what the node knows. All services go up and down together.
//! With the drain everything is NOT_SERVING first, then the Watch streams end.
//!
//! [`LIVE`] is no service: it asks about the process alone, for a liveness probe,
//! which must not restart a node because its store is away.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::drain::{self, Phase};
use crate::readiness::Readiness;
use crate::refusal::Refusal;

/// The name under which the process itself is asked for: SERVING as long as it
/// answers, whatever is pending.
pub const LIVE: &str = "live";

/// A service's name is all that a request holds.
const MAX_REQUEST: usize = 1024;

/// The health of the node and of its services.
#[derive(Debug, Clone)]
pub struct NodeHealth {
    readiness: Readiness,
    drain: drain::Watch,
    services: Arc<[Box<str>]>,
}

/// Serves health for the node (the empty name) and the named services. The
/// drain is that of the listener that it is mounted on.
pub fn server(
    readiness: Readiness,
    drain: drain::Watch,
    services: &[&str],
) -> HealthServer<NodeHealth> {
    let services = services.iter().copied().map(Into::into).collect();
    HealthServer::new(NodeHealth { readiness, drain, services })
        .max_decoding_message_size(MAX_REQUEST)
}

impl NodeHealth {
    fn knows(&self, name: &str) -> bool {
        name.is_empty() || name == LIVE || self.services.iter().any(|service| **service == *name)
    }

    fn status(&self, name: &str) -> ServingStatus {
        if name == LIVE {
            return ServingStatus::Serving;
        }
        if self.readiness.is_ready() && self.drain.phase() == Phase::Running {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        }
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

/// A Watch's answers.
pub type Answers = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Health for NodeHealth {
    type WatchStream = Answers;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !self.knows(&request.get_ref().service) {
            return Err(Refusal::not_found("service").into());
        }
        Ok(Response::new(answer(self.status(&request.get_ref().service))))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Answers>, Status> {
        let service = request.into_inner().service;
        let watching = Watching {
            known: self.knows(&service),
            service,
            changes: self.readiness.subscribe(),
            drain: self.drain.clone(),
            health: self.clone(),
            told: None,
        };
        Ok(Response::new(Box::pin(unfold(watching, Watching::next))))
    }
}

/// One Watch stream.
struct Watching {
    service: String,
    known: bool,
    health: NodeHealth,
    changes: watch::Receiver<BTreeMap<&'static str, usize>>,
    drain: drain::Watch,
    told: Option<ServingStatus>,
}

impl Watching {
    async fn next(mut self) -> Option<(Result<HealthCheckResponse, Status>, Self)> {
        loop {
            self.changes.mark_unchanged();
            let now = match self.known {
                true => self.health.status(&self.service),
                // The protocol keeps such a stream open: the service may come.
                false => ServingStatus::ServiceUnknown,
            };
            if self.told != Some(now) {
                self.told = Some(now);
                return Some((Ok(answer(now)), self));
            }
            if self.drain.phase() > Phase::Running {
                return None;
            }
            tokio::select! {
                changed = self.changes.changed() => changed.ok()?,
                () = self.drain.graceful() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::StreamExt;

    use super::*;

    fn ask(service: &str) -> Request<HealthCheckRequest> {
        Request::new(HealthCheckRequest { service: service.to_owned() })
    }

    #[tokio::test]
    async fn it_follows_readiness_and_the_drain_and_then_ends() {
        let readiness = Readiness::new();
        let starting = readiness.hold("store open");
        let (stop, drain) = drain::channel();
        let services = ["simpul.chat.v1.ChatService"].map(Into::into).into();
        let health = NodeHealth { readiness: readiness.clone(), drain, services };

        let check = health.check(ask("simpul.chat.v1.ChatService")).await.expect("known");
        assert_eq!(check.get_ref().status(), ServingStatus::NotServing);
        let stranger = health.check(ask("other.Service")).await.expect_err("unknown");
        assert_eq!(stranger.code(), tonic::Code::NotFound);
        let live = health.check(ask(LIVE)).await.expect("known");
        assert_eq!(live.get_ref().status(), ServingStatus::Serving, "whatever is pending");

        let mut watch = health.watch(ask("")).await.expect("watch").into_inner();
        let mut unknown = health.watch(ask("other.Service")).await.expect("watch").into_inner();
        let mut next = async || watch.next().await.map(|it| it.expect("status").status());
        assert_eq!(next().await, Some(ServingStatus::NotServing));
        drop(starting);
        assert_eq!(next().await, Some(ServingStatus::Serving));
        assert!(stop.drain(Duration::from_millis(1)).await);
        assert_eq!(next().await, Some(ServingStatus::NotServing));
        assert_eq!(next().await, None);
        let first = unknown.next().await.expect("a status").expect("a status");
        assert_eq!(first.status(), ServingStatus::ServiceUnknown);
        assert!(unknown.next().await.is_none());
    }
}
