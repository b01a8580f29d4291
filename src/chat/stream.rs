//! The route of `ChatService.Chat`, beside the generated services: they would
//! encode every message for every reader.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use tonic::body::Body;
use tonic::codec::BufferSettings;
use tonic::{Status, Streaming};
use tonic_prost::ProstDecoder;
use tower::Service;

use super::FrameLimit;
use super::owner::Owner;
use super::session::{Input, Session, SessionBody};
use crate::proto::chat::v1 as pb;
use crate::refusal::{Reason, Refusal};
use crate::security::audit::AuditTrail;
use crate::security::permit::{EndsWithPermit, Permit};
use crate::telemetry::context::{self, TraceContext};
use crate::{drain, task};

/// The one path that is served here.
pub const PATH: &str = "/simpul.chat.v1.ChatService/Chat";

/// An idle stream's buffer, bytes; it grows when a message needs it.
const BUFFER: usize = 256;

/// What a stream needs of the service.
#[derive(Debug, Clone)]
pub(crate) struct Streams {
    pub(crate) owner: Owner,
    pub(crate) max_message_bytes: usize,
    pub(crate) drain: drain::Watch,
    pub(crate) frame_limit: Option<Arc<dyn FrameLimit>>,
}

impl Streams {
    /// Opens a session; its input runs until it ends. Must be called within a
    /// runtime.
    pub(crate) fn open<B>(&self, permit: Permit, audit: AuditTrail, body: B) -> SessionBody
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<tonic::codegen::StdError>,
    {
        let decoder = ProstDecoder::<pb::ChatRequest>::new(BufferSettings::new(BUFFER, BUFFER));
        let frames = Streaming::new_request(decoder, body, None, Some(self.max_message_bytes));
        let session = Session::new(permit.principal().clone(), audit);
        let output =
            SessionBody::new(session.clone(), self.owner.shared().clone(), self.drain.guard());
        let input = Input {
            session,
            owner: self.owner.clone(),
            permit,
            frame_limit: self.frame_limit.clone(),
            trace: context::current().filter(TraceContext::is_recorded),
        };
        task::spawn("chat session", input.run(frames, self.drain.clone()));
        output
    }
}

/// Serves `Chat` and passes everything else on.
#[derive(Debug, Clone)]
pub struct ChatRoute<S> {
    inner: S,
    streams: Arc<Streams>,
}

impl<S> ChatRoute<S> {
    pub(crate) fn new(inner: S, streams: Arc<Streams>) -> Self {
        Self { inner, streams }
    }
}

/// The response: made here at once, or the inner service's.
type Answer<F, E> = futures_util::future::Either<std::future::Ready<Result<Response<Body>, E>>, F>;

impl<S, B> Service<Request<B>> for ChatRoute<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<tonic::codegen::StdError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer<S::Future, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if request.uri().path() != PATH {
            return Answer::Right(self.inner.call(request));
        }
        let (parts, body) = request.into_parts();
        let response = match parts.extensions.get::<Permit>() {
            Some(permit) => {
                let audit = AuditTrail::of(&parts.extensions);
                respond(self.streams.open(permit.clone(), audit, body))
            }
            // The layers always insert one.
            None => {
                let refusal = Refusal::new(Reason::Internal, "the call has no permit");
                Status::from(refusal).into_http()
            }
        };
        Answer::Left(std::future::ready(Ok(response)))
    }
}

fn respond(body: SessionBody) -> Response<Body> {
    let mut response = Response::new(Body::new(body));
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE, grpc);
    // The body ends itself between whole messages.
    response.extensions_mut().insert(EndsWithPermit);
    response
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::chat::testing::{World, permit};

    #[tokio::test]
    async fn chat_alone_is_served_and_not_without_a_permit() {
        let world = World::new().await;
        let others = tower::service_fn(async |request: Request<Body>| {
            let mut response = Response::new(Body::empty());
            response.headers_mut().insert("path", request.uri().path().parse().expect("a path"));
            Ok::<_, Infallible>(response)
        });
        let route = world.chat.route(others);
        let ask = async |path: &str, permit: Option<Permit>| {
            let mut request = Request::new(Body::empty());
            *request.uri_mut() = path.parse().expect("a path");
            permit.map(|permit| request.extensions_mut().insert(permit));
            route.clone().oneshot(request).await.expect("infallible")
        };
        let other = ask("/simpul.chat.v1.ChatService/Chats", None).await;
        assert_eq!(other.headers()["path"], "/simpul.chat.v1.ChatService/Chats");
        let nobody = ask(PATH, None).await;
        assert_eq!(nobody.headers()["grpc-status"], "13");
        let served = ask(PATH, Some(permit("bob"))).await;
        assert_eq!(served.headers()[CONTENT_TYPE], "application/grpc");
        assert!(served.extensions().get::<EndsWithPermit>().is_some());
        assert!(!served.body().is_end_stream());
    }
}
