//! Unary calls that go to another node when one cannot serve.
//!
//! Only a call that may be made twice is made twice: reads, and writes that
//! carry a key of their own (`AGAIN`). A call is tried again when the node
//! answered UNAVAILABLE or its connection broke, after a wait with full jitter,
//! at another node where there is one, within the call's own deadline and a
//! budget: calls that fail may cause at most a tenth of the calls that succeed
//! again, and a few to begin with, so that clients do not finish off a cluster
//! that is going down.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tower::{Service, ServiceExt};

use super::servers::Servers;
use crate::backoff::full_jitter;

/// Unary methods that do nothing the second time: they read, or a key in them
/// is remembered by the node.
const AGAIN: [&str; 17] = [
    "/simpul.chat.v1.ChatService/SendMessage",
    "/simpul.chat.v1.ChatService/GetRoom",
    "/simpul.chat.v1.ChatService/ListRooms",
    "/simpul.chat.v1.ChatService/ListMembers",
    "/simpul.cluster.v1.ClusterService/GetCluster",
    "/simpul.cluster.v1.ClusterService/DrainNode",
    "/simpul.identity.v1.IdentityService/WhoAmI",
    "/simpul.operate.v1.OperatorService/ExplainMessage",
    "/simpul.operate.v1.OperatorService/ExplainPayment",
    "/simpul.payment.v1.PaymentService/ProcessPayment",
    "/simpul.payment.v1.PaymentService/GetPayment",
    "/simpul.payment.v1.PaymentService/ListPayments",
    "/simpul.payment.v1.PaymentService/CapturePayment",
    "/simpul.payment.v1.PaymentService/CancelPayment",
    "/simpul.payment.v1.PaymentService/RefundPayment",
    "/simpul.transaction.v1.TransactionService/GetTransaction",
    "/simpul.transaction.v1.TransactionService/GetBalance",
];

/// How often one call is made at most, beside once at each node.
const TRIES: u32 = 3;

/// What one more try costs, in what one success gives.
const COST: u32 = 10;

/// What the budget holds at most, and to begin with.
const BUDGET: u32 = 10 * COST;

/// A channel to one of several nodes that moves when it must.
#[derive(Debug, Clone)]
pub struct Failover {
    servers: Servers,
    budget: Arc<Budget>,
}

impl Failover {
    /// Over these nodes.
    pub fn new(servers: Servers) -> Self {
        Self { servers, budget: Arc::new(Budget(AtomicU32::new(BUDGET))) }
    }
}

/// What may still be tried again.
#[derive(Debug)]
struct Budget(AtomicU32);

impl Budget {
    fn deposit(&self) {
        let more = |held: u32| Some((held + 1).min(BUDGET));
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    fn withdraw(&self) -> bool {
        let less = |held: u32| held.checked_sub(COST);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

impl Service<Request<Body>> for Failover {
    type Response = Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<Body>, Status>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        // Each try waits for its own channel.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            if AGAIN.contains(&request.uri().path()) {
                this.again(request).await
            } else {
                this.once(request).await
            }
        })
    }
}

impl Failover {
    async fn once(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let mut channel =
            self.servers.channel().map_err(|error| Status::unavailable(error.to_string()))?;
        let ready = channel.ready().await.map_err(|error| Status::from_error(error.into()))?;
        ready.call(request).await.map_err(|error| Status::from_error(error.into()))
    }

    async fn again(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (parts, body) = request.into_parts();
        // The message of a unary call: the whole of it is there already.
        let body = body.collect().await?.to_bytes();
        let ends = deadline(&parts.headers).map(|left| Instant::now() + left);
        let tries = TRIES.max(u32::try_from(self.servers.count()).unwrap_or(TRIES));
        let mut attempt = 0;
        loop {
            let copy = Request::from_parts(parts.clone(), Body::new(Full::new(body.clone())));
            let answer = self.once(copy).await;
            if !is_unavailable(&answer) {
                self.budget.deposit();
                return answer;
            }
            let wait = full_jitter(
                Duration::from_millis(50),
                Duration::from_secs(1),
                attempt,
                crate::chance::unit(),
            );
            attempt += 1;
            let late = ends.is_some_and(|ends| Instant::now() + wait >= ends);
            if attempt >= tries || late || !self.budget.withdraw() {
                return answer;
            }
            self.servers.elsewhere();
            tokio::time::sleep(wait).await;
        }
    }
}

/// Whether the node answered that it cannot serve now, or the connection broke.
fn is_unavailable(answer: &Result<Response<Body>, Status>) -> bool {
    match answer {
        Ok(response) => {
            response.headers().get("grpc-status").is_some_and(|code| code.as_bytes() == b"14")
        }
        // The transport's own words, never the node's: HTTP/2 that ends under a call,
        // as with a GOAWAY that crosses it, is INTERNAL to tonic.
        Err(status) => {
            use tonic::Code::{Internal, Unavailable, Unknown};
            matches!(status.code(), Unavailable | Unknown | Internal)
        }
    }
}

/// What `grpc-timeout` says.
fn deadline(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count.saturating_mul(3600)),
        "M" => Duration::from_secs(count.saturating_mul(60)),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_called_again_is_a_unary_method_that_there_is() {
        use prost::Message;
        let set = prost_types::FileDescriptorSet::decode(crate::proto::DESCRIPTORS).expect("set");
        let mut unary = Vec::new();
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    if !method.client_streaming() && !method.server_streaming() {
                        let (package, name) = (file.package(), service.name());
                        unary.push(format!("/{package}.{name}/{}", method.name()));
                    }
                }
            }
        }
        for path in AGAIN {
            assert!(unary.iter().any(|there| there == path), "{path}");
        }
    }

    #[test]
    fn what_the_transport_says_is_not_what_a_node_says() {
        let broke = |status| is_unavailable(&Err(status));
        assert!(broke(Status::internal("h2 protocol error: http2 error")));
        assert!(broke(Status::unknown("transport error")));
        assert!(!broke(Status::cancelled("given up")));
        let said = |code: &str| {
            let mut response = Response::new(Body::empty());
            response.headers_mut().insert("grpc-status", code.parse().expect("ASCII"));
            is_unavailable(&Ok(response))
        };
        assert!(said("14") && !said("13"));
    }

    #[test]
    fn the_budget_ends_and_successes_fill_it() {
        let budget = Budget(AtomicU32::new(BUDGET));
        assert_eq!((0..100).filter(|_| budget.withdraw()).count(), 10);
        for _ in 0..COST {
            budget.deposit();
        }
        assert!(budget.withdraw() && !budget.withdraw());
    }

    #[test]
    fn a_deadline_is_read_as_grpc_writes_it() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().expect("ASCII"));
            deadline(&headers)
        };
        assert_eq!(read("30S"), Some(Duration::from_secs(30)));
        assert_eq!(read("1500m"), Some(Duration::from_millis(1500)));
        assert_eq!((read("S"), read("5"), read("")), (None, None, None));
    }
}
