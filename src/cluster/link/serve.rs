//! Answers the call `Link`.
//!
//! It is served by its own body and not by the generated service, which would
//! encode every append for every link.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Status, Streaming};
use tonic_prost::ProstDecoder;
use tower::Service;

use super::hello::{Cause, HelloRefused};
use super::http;
use super::incoming::{self, Incoming};
use super::network::Stream;
use super::outbox::{Outbox, OutboxBody};
use super::wire::Encoded;
use super::{MAX_MESSAGE, Shared};
use crate::proto::cluster::v1 as pb;
use crate::refusal::{Reason, Refusal};
use crate::security::mesh::{NodeName, node_of};
use crate::security::permit::{Permit, Validity};
use crate::task;

/// The one path.
pub(super) const PATH: &str = "/simpul.cluster.v1.LinkService/Link";

/// How long the other side may take to say Hello.
const HELLO: Duration = Duration::from_secs(2);

/// How long the membership may take to know a node that has just joined.
const MEMBERSHIP: Duration = Duration::from_secs(1);

/// Who is at the other end, where no layer proves it: of streams that were
/// given to [`serve`]. Nothing that comes over a network can make one.
#[derive(Debug, Clone)]
struct Named(NodeName);

/// Serves `LinkService` on the mesh listener, inside the layers.
#[derive(Debug, Clone)]
pub struct LinkRoute {
    shared: Arc<Shared>,
}

impl LinkRoute {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl NamedService for LinkRoute {
    const NAME: &'static str = "simpul.cluster.v1.LinkService";
}

/// The future of a call.
pub type Answering =
    Pin<Box<dyn Future<Output = Result<::http::Response<Body>, Infallible>> + Send>>;

impl<B> Service<::http::Request<B>> for LinkRoute
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<tonic::codegen::StdError>,
{
    type Response = ::http::Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: ::http::Request<B>) -> Self::Future {
        let shared = self.shared.clone();
        Box::pin(async move {
            let answered = answer(&shared, request).await;
            Ok(answered.unwrap_or_else(Status::into_http))
        })
    }
}

/// Serves one stream without the layers, until it ends: for networks that have
/// proved by themselves who is at the other end.
pub async fn serve(route: LinkRoute, stream: impl Stream + 'static, node: NodeName) {
    let service = hyper::service::service_fn(move |mut request: ::http::Request<_>| {
        request.extensions_mut().insert(Named(node.clone()));
        Service::<::http::Request<hyper::body::Incoming>>::call(&mut route.clone(), request)
    });
    if let Err(error) = http::accepting().serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a link's connection broke");
    }
}

async fn answer<B>(
    shared: &Arc<Shared>,
    request: ::http::Request<B>,
) -> Result<::http::Response<Body>, Status>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<tonic::codegen::StdError>,
{
    if request.uri().path() != PATH {
        return Err(Refusal::new(Reason::UnknownMethod, "no such method").into());
    }
    let (parts, body) = request.into_parts();
    let permit = parts.extensions.get::<Permit>();
    let named = parts.extensions.get::<Named>();
    let name = match (permit.map(|permit| node_of(permit.principal())), named) {
        (Some(Some(name)), _) => name,
        (None, Some(Named(name))) => name.clone(),
        _ => {
            let why = "the certificate is not a node's".to_owned();
            return Err(refuse(shared, "", HelloRefused { cause: Cause::Certificate, why }));
        }
    };
    if shared.partitions().is_none() {
        return Err(Refusal::new(Reason::Draining, "the node does not take part yet").into());
    }
    let decoder = ProstDecoder::<pb::LinkRequest>::default();
    let mut frames = Streaming::new_request(decoder, body, None, Some(MAX_MESSAGE));
    let message = timeout(HELLO, frames.message()).await.ok().transpose()?.flatten();
    let mut rest = message.map(|message| message.frames).unwrap_or_default().into_iter();
    let Some(pb::request_frame::Frame::Hello(hello)) = rest.next().and_then(|f| f.frame) else {
        return Err(refuse(shared, "", first()));
    };
    shared
        .me
        .check(&hello, &name, shared.newest_timeline())
        .map_err(|refused| refuse(shared, &hello.node_id, refused))?;
    is_member(shared, &hello).await.map_err(|refused| refuse(shared, &hello.node_id, refused))?;
    shared.saw_timeline(hello.timeline);
    let outbox = Outbox::new(shared.backlog, shared.metrics.backlog.clone());
    let own = shared.hello(hello.connection);
    outbox.push(Encoded::response(pb::response_frame::Frame::Hello(own)));
    let link = Incoming::new(&hello, shared.next_generation(), outbox.clone());
    let running = incoming::run(shared.clone(), link, rest.collect(), frames);
    let validity = permit.map(|permit| permit.validity().clone());
    let node = hello.node_id;
    task::spawn("incoming link", async move {
        // A link lives long: it must not outlive the certificate that it rests on.
        tokio::select! {
            biased;
            refusal = ended(validity) => tracing::info!(node, %refusal, "a link was ended"),
            () = running => {}
        }
    });
    let mut response = ::http::Response::new(Body::new(OutboxBody::response(outbox)));
    let grpc = ::http::HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(::http::header::CONTENT_TYPE, grpc);
    Ok(response)
}

/// Waits until who opened the link proves to be that node no more.
async fn ended(validity: Option<Validity>) -> Refusal {
    match validity {
        Some(validity) => validity.ended().await,
        None => std::future::pending().await,
    }
}

/// Whether the other side is the run of its node that takes part. A node that
/// has just joined is waited for: the membership may be behind by a moment.
async fn is_member(shared: &Shared, hello: &pb::Hello) -> Result<(), HelloRefused> {
    let known = || {
        let peers = shared.peers();
        peers.get(&hello.node_id).is_some_and(|peer| peer.info.incarnation == hello.incarnation)
    };
    let becomes_known = async {
        loop {
            let mut changed = pin!(shared.membership.notified());
            // Before looking: what comes after the look wakes.
            changed.as_mut().enable();
            if known() {
                return;
            }
            changed.await;
        }
    };
    timeout(MEMBERSHIP, becomes_known).await.map_err(|_| HelloRefused {
        cause: Cause::Incarnation,
        why: "it is not the run of its node that takes part".into(),
    })
}

/// Notes a refusal and makes the answer of it.
fn refuse(shared: &Shared, node: &str, refused: HelloRefused) -> Status {
    shared.metrics.refused(refused.cause);
    let node: String = node.chars().take(64).collect();
    if !shared.first_refusal(&node, &refused) {
        return refused.status();
    }
    if refused.cause == Cause::Incarnation {
        // One of the two has started or thawed and the other has not seen it yet.
        tracing::info!(node, why = %refused, "refused a link for now");
    } else {
        tracing::error!(node, why = %refused, "refused a link: the nodes do not fit");
    }
    refused.status()
}

/// The link does not begin with a Hello.
pub(super) fn first() -> HelloRefused {
    let why = "the first frame of a link must be a Hello".to_owned();
    HelloRefused { cause: Cause::Missing, why }
}
