//! Lets only calls through that are written as gRPC writes them.
//!
//! The router and the generated services look at the path alone: without this
//! layer a GET, a `post` or a query string would execute a call, past whatever
//! a proxy in front of the node believes it lets through. So: POST, the exact
//! path of a mounted method, no query, gRPC's content type, `te: trailers`, and
//! headers within their bound. HTTP/2 itself takes twice as many, so that what
//! is somewhat too large gets an answer that says so.
//!
//! A fragment (`#` and what follows) cannot be refused here: the HTTP/2 layer
//! reads `:path` as a URI and drops it before anything of the node sees the
//! request. It does no harm, since routing, rights and telemetry all go by the
//! path that is left, and that must still be exact.
//!
//! Methods that take one message get a body that holds none after it.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use tonic::body::Body;
use tower::{Layer, Service};

use super::methods::{Method, Methods};
use super::one::OneMessage;
use super::reply::{Answer, refused};
use crate::refusal::{Reason, Refusal};

/// Puts [`Canonical`] around a service.
#[derive(Debug, Clone)]
pub struct CanonicalLayer {
    methods: Arc<Methods>,
    header_bytes: usize,
}

impl CanonicalLayer {
    /// Only these methods exist; the headers of a call have at most so many
    /// bytes, counted as HTTP/2 counts them.
    pub fn new(methods: Arc<Methods>, header_bytes: usize) -> Self {
        Self { methods, header_bytes }
    }
}

impl<S> Layer<S> for CanonicalLayer {
    type Service = Canonical<S>;

    fn layer(&self, inner: S) -> Canonical<S> {
        Canonical { inner, methods: self.methods.clone(), header_bytes: self.header_bytes }
    }
}

/// Refuses what is not a call; puts the [`Method`] into the extensions of what
/// is.
#[derive(Debug, Clone)]
pub struct Canonical<S> {
    inner: S,
    methods: Arc<Methods>,
    header_bytes: usize,
}

/// Why a request is not a call.
enum NotACall {
    Refused(Refusal),
    WrongContentType,
}

impl<S> Canonical<S> {
    fn check<T>(&self, request: &Request<T>) -> Result<Method, NotACall> {
        let uri = request.uri();
        let posted = request.method() == http::Method::POST && uri.query().is_none();
        let method = posted.then(|| self.methods.get(uri.path())).flatten().ok_or_else(|| {
            NotACall::Refused(Refusal::new(
                Reason::UnknownMethod,
                "no such method; gRPC calls are POST on /package.Service/Method, exactly",
            ))
        })?;
        if !is_grpc(request.headers()) {
            return Err(NotACall::WrongContentType);
        }
        if request.headers().get(TE).is_none_or(|te| te != "trailers") {
            return Err(NotACall::Refused(Refusal::new(
                Reason::MissingTe,
                "gRPC needs the header `te: trailers`",
            )));
        }
        if size(request.headers()) > self.header_bytes {
            return Err(NotACall::Refused(Refusal::new(
                Reason::HeadersTooLarge,
                format!("the headers may have {} bytes", self.header_bytes),
            )));
        }
        Ok(method)
    }
}

/// The size of a list of headers, as HTTP/2 counts it: 32 bytes for each beside
/// its name and value.
fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
}

/// Exactly one content type, and messages in Protocol Buffers' form.
fn is_grpc(headers: &HeaderMap) -> bool {
    let mut given = headers.get_all(CONTENT_TYPE).iter().map(HeaderValue::as_bytes);
    let (Some(only), None) = (given.next(), given.next()) else { return false };
    let Some(rest) = only.strip_prefix(b"application/grpc") else { return false };
    let rest = rest.strip_prefix(b"+proto").unwrap_or(rest);
    rest.is_empty() || rest.starts_with(b";")
}

impl<S, T, B> Service<Request<T>> for Canonical<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    T: http_body::Body<Data = Bytes> + Send + 'static,
    T::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Default,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Answer<S::Future, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<T>) -> Self::Future {
        match self.check(&request) {
            Ok(method) => {
                // The one place where a request's body is boxed.
                let mut request = match method.takes_many {
                    true => request.map(Body::new),
                    false => request.map(|body| Body::new(OneMessage::new(body))),
                };
                request.extensions_mut().insert(method);
                Answer::Later { inner: self.inner.call(request) }
            }
            Err(NotACall::Refused(refusal)) => Answer::now(refused(refusal)),
            Err(NotACall::WrongContentType) => {
                let mut response = Response::new(B::default());
                *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
                Answer::now(response)
            }
        }
    }
}
