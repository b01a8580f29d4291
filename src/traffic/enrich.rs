//! Gives every failed status its details: the outermost layer of ours, so that
//! statuses that tonic makes itself, in the headers or at the end of a stream,
//! carry ErrorInfo as ours do. Every failure also names its trace
//! (google.rpc.RequestInfo), where there is one.
//!
//! tonic calls what it cannot decode INTERNAL, as if the node had failed; here
//! it becomes the caller's INVALID_ARGUMENT. Calls that succeed cost one look at
//! the headers and one at the trailers.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use tower::{Layer, Service};

use super::reply::status_trailers;
use crate::refusal::{DOMAIN, Reason};

/// What all details of one status may take: clients cap headers at 8 KiB.
const MAX_DETAILS: usize = 4096;

/// gRPC's binary headers: without padding when written, either way when read.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The trace of the call that is being polled, 32 hexadecimal digits. Asked for
/// only when a call fails, from within the trace layer.
pub type TraceOf = fn() -> Option<String>;

/// Puts [`Enrich`] around a service.
#[derive(Debug, Clone, Copy)]
pub struct EnrichLayer {
    trace: TraceOf,
}

impl EnrichLayer {
    /// Names the traces that `trace` tells.
    pub fn new(trace: TraceOf) -> Self {
        Self { trace }
    }
}

impl<S> Layer<S> for EnrichLayer {
    type Service = Enrich<S>;

    fn layer(&self, inner: S) -> Enrich<S> {
        Enrich { inner, trace: self.trace }
    }
}

/// Completes the failed statuses that come out of a service.
#[derive(Debug, Clone)]
pub struct Enrich<S> {
    inner: S,
    trace: TraceOf,
}

impl<S, T, B> Service<Request<T>> for Enrich<S>
where
    S: Service<Request<T>, Response = Response<B>>,
{
    type Response = Response<Enriched<B>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<T>) -> Self::Future {
        ResponseFuture { inner: self.inner.call(request), trace: self.trace }
    }
}

pin_project! {
    /// The future of [`Enrich`].
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        trace: TraceOf,
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<Enriched<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        let trace = *this.trace;
        complete(response.headers_mut(), trace);
        Poll::Ready(Ok(response.map(|body| Enriched { inner: Some(body), trace })))
    }
}

pin_project! {
    /// A response body whose failing end gets its details. A body that breaks
    /// ends with its status instead of a reset.
    #[derive(Debug)]
    pub struct Enriched<B> {
        #[pin]
        inner: Option<B>,
        trace: TraceOf,
    }
}

impl<B: Body<Data = Bytes, Error = Status>> Body for Enriched<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        let mut trailers = match ready!(inner.poll_frame(cx)) {
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    complete(trailers, *this.trace);
                }
                return Poll::Ready(Some(Ok(frame)));
            }
            None => return Poll::Ready(None),
            Some(Err(status)) => status_trailers(&status),
        };
        this.inner.set(None);
        complete(&mut trailers, *this.trace);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// Completes the status in headers or trailers, if there is one that failed.
fn complete(headers: &mut HeaderMap, trace: TraceOf) {
    let Some(status) = headers.get(Status::GRPC_STATUS) else { return };
    if status == "0" {
        return;
    }
    match headers.get(Status::GRPC_STATUS_DETAILS) {
        None => describe(headers, trace()),
        Some(details) => {
            if let Some(more) = trace().and_then(|trace| with_trace(details, trace)) {
                headers.insert(Status::GRPC_STATUS_DETAILS, more);
            }
        }
    }
}

/// Details for a status that has none.
fn describe(headers: &mut HeaderMap, trace: Option<String>) {
    let Some(status) = Status::from_header_map(headers) else { return };
    let (code, reason) = classify(status.code(), status.message());
    let mut details = ErrorDetails::new();
    if let Some(reason) = reason {
        details.set_error_info(reason.as_str(), DOMAIN, std::collections::HashMap::new());
    }
    if let Some(trace) = trace {
        details.set_request_info(trace, "");
    }
    let full = Status::with_error_details(code, status.message(), details);
    if full.details().len() <= MAX_DETAILS {
        // Only a message that no header can hold fails; it came from a header.
        let _ = full.add_header(headers);
    }
}

/// The details with the trace behind them. Encoded messages of one type that
/// stand one after another are one message with both their lists: nothing needs
/// to be decoded. `None` when they are full or not readable.
fn with_trace(details: &HeaderValue, trace: String) -> Option<HeaderValue> {
    let mut bytes = BASE64.decode(details.as_bytes()).ok()?;
    let info = ErrorDetails::with_request_info(trace, "");
    bytes.extend_from_slice(Status::with_error_details(Code::Ok, "", info).details());
    (bytes.len() <= MAX_DETAILS)
        .then(|| HeaderValue::from_maybe_shared(Bytes::from(BASE64.encode(bytes))).ok())
        .flatten()
}

/// What tonic says when a message is larger than a service takes.
const TOO_LARGE: [&str; 2] =
    ["Error, decoded message length too large", "Error decompressing: size limit"];

/// What it says when a message is not what its contract says.
const MALFORMED: [&str; 5] = [
    "failed to decode Protobuf message",
    "Unexpected EOF decoding stream",
    "protocol error: received message with invalid compression flag",
    "Error decompressing",
    "Missing request message",
];

/// Must stay INTERNAL, says gRPC's specification of compression.
const FLAG_WITHOUT_ENCODING: &str = "protocol error: received message with compressed-flag";

const NOT_COMPRESSED: &str = "Content is compressed with";

/// The reason of a status without one, and the code that goes with it.
pub(crate) fn classify(code: Code, message: &str) -> (Code, Option<Reason>) {
    let says = |texts: &[&str]| texts.iter().any(|text| message.starts_with(text));
    let reason = match code {
        Code::OutOfRange | Code::ResourceExhausted if says(&TOO_LARGE) => Reason::MessageTooLarge,
        Code::Internal if says(&[FLAG_WITHOUT_ENCODING]) => {
            return (code, Some(Reason::MalformedMessage));
        }
        Code::Internal if says(&MALFORMED) => Reason::MalformedMessage,
        Code::Unimplemented if says(&[NOT_COMPRESSED]) => Reason::CompressionUnsupported,
        Code::Unimplemented => Reason::UnknownMethod,
        Code::InvalidArgument => Reason::InvalidArgument,
        Code::NotFound => Reason::NotFound,
        Code::AlreadyExists => Reason::AlreadyExists,
        Code::PermissionDenied => Reason::NotAllowed,
        Code::DeadlineExceeded => Reason::DeadlineExceeded,
        Code::Unavailable => Reason::Overloaded,
        Code::Internal | Code::Unknown | Code::DataLoss => return (code, Some(Reason::Internal)),
        // Nothing of ours makes these without a reason of its own.
        Code::Ok
        | Code::Cancelled
        | Code::Unauthenticated
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange => return (code, None),
    };
    (reason.code(), Some(reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Refusal;

    fn completed(status: Status, trace: TraceOf) -> Status {
        let mut headers = status_trailers(&status);
        complete(&mut headers, trace);
        Status::from_header_map(&headers).expect("a status")
    }

    #[test]
    fn what_tonic_cannot_decode_is_the_callers_fault() {
        let status =
            Status::internal("failed to decode Protobuf message: Frame.body: invalid string value");
        let status = completed(status, || None);
        assert_eq!(status.code(), Code::InvalidArgument);
        let info = status.get_details_error_info().expect("error info");
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("MALFORMED_MESSAGE", "simpul"));

        let large = "Error, decoded message length too large: found 9 bytes, the limit is: 8 bytes";
        let info = completed(Status::out_of_range(large), || None).get_details_error_info();
        assert_eq!(info.map(|info| info.reason).as_deref(), Some("MESSAGE_TOO_LARGE"));
    }

    #[test]
    fn the_trace_is_added_and_what_was_there_stays() {
        let ours = Refusal::not_found("room").retry_after(std::time::Duration::from_secs(1));
        let status = completed(ours.into(), || Some("ab".repeat(16)));
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(status.message(), "no such room");
        let details = status.get_error_details();
        assert_eq!(details.error_info().map(|info| info.reason.as_str()), Some("NOT_FOUND"));
        assert!(details.retry_info().is_some());
        let id = details.request_info().map(|info| info.request_id.as_str());
        assert_eq!(id, Some("ab".repeat(16).as_str()));
    }

    #[test]
    fn details_stay_within_their_bound_and_success_is_left_alone() {
        let full = Status::with_details(Code::Internal, "x", vec![0; MAX_DETAILS].into());
        assert_eq!(completed(full, || Some("ab".repeat(16))).details().len(), MAX_DETAILS);
        let mut headers = HeaderMap::new();
        headers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
        complete(&mut headers, || Some("ab".repeat(16)));
        assert_eq!(headers.len(), 1);
    }
}
