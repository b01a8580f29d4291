//! Refusals as responses and as trailers: what the layers answer instead of
//! passing a call on.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderValue, Response};
use pin_project_lite::pin_project;
use tonic::Status;

use crate::refusal::Refusal;

/// A response that is nothing but the refusal (gRPC's trailers-only form).
pub fn refused<B: Default>(refusal: Refusal) -> Response<B> {
    Status::from(refusal).into_http()
}

/// The trailers that end a stream with a refusal.
pub fn trailers(refusal: Refusal) -> HeaderMap {
    status_trailers(&Status::from(refusal))
}

/// The trailers that end a stream with a status.
pub(crate) fn status_trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(4);
    if status.add_header(&mut trailers).is_err() {
        // Only a message that no header can hold comes here: its code goes alone.
        trailers.insert(Status::GRPC_STATUS, HeaderValue::from(status.code() as i32));
    }
    trailers
}

pin_project! {
    /// The future of a layer that answers itself or hands on the inner answer
    /// as it is.
    #[project = AnswerProject]
    #[derive(Debug)]
    #[allow(missing_docs)] // The macro takes no docs on fields.
    pub enum Answer<F, B> {
        /// The layer's own answer; taken by the first poll.
        Now {
            // The answer.
            response: Option<Response<B>>,
        },
        /// The inner service's.
        Later {
            // Its future.
            #[pin]
            inner: F,
        },
    }
}

impl<F, B> Answer<F, B> {
    /// Answers at once.
    pub(crate) fn now(response: Response<B>) -> Self {
        Self::Now { response: Some(response) }
    }
}

impl<F, B, E> Future for Answer<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            AnswerProject::Now { response } => match response.take() {
                Some(response) => Poll::Ready(Ok(response)),
                None => Poll::Pending, // Polled after it was ready.
            },
            AnswerProject::Later { inner } => inner.poll(cx),
        }
    }
}
