//! Turns a panic of a handler or of its response body into INTERNAL, so that it
//! costs one call and is answered, instead of resetting the stream silently.
//!
//! The panic's own text is not logged here and never sent: it may hold values.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::reply::{refused, trailers};
use crate::refusal::{Reason, Refusal};

/// Puts [`PanicGuard`] around a service.
#[derive(Debug, Clone, Copy, Default)]
pub struct PanicLayer;

impl<S> Layer<S> for PanicLayer {
    type Service = PanicGuard<S>;

    fn layer(&self, inner: S) -> PanicGuard<S> {
        PanicGuard { inner }
    }
}

/// Catches what panics inside.
#[derive(Debug, Clone)]
pub struct PanicGuard<S> {
    inner: S,
}

/// Unwind safety: what panicked is dropped at once and never looked at again;
/// what it shared with others is guarded by locks that survive poisoning.
fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

fn panicked() -> Refusal {
    tracing::error!("a handler panicked; its call is answered with INTERNAL");
    Refusal::new(Reason::Internal, "a fault of the node ended the call")
}

impl<S, T, B> Service<Request<T>> for PanicGuard<S>
where
    S: Service<Request<T>, Response = Response<B>>,
{
    type Response = Response<Guarded<B>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<T>) -> Self::Future {
        ResponseFuture { inner: guarded(|| self.inner.call(request)) }
    }
}

pin_project! {
    /// The future of [`PanicGuard`]; without an inner one it panicked.
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: Option<F>,
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<Guarded<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut inner = self.project().inner;
        let Some(future) = inner.as_mut().as_pin_mut() else {
            return Poll::Ready(Ok(refused(panicked())));
        };
        match guarded(|| future.poll(cx)) {
            Some(poll) => {
                poll.map_ok(|response| response.map(|body| Guarded { inner: Some(body) }))
            }
            None => {
                guarded(|| inner.set(None));
                Poll::Ready(Ok(refused(panicked())))
            }
        }
    }
}

pin_project! {
    /// A response body whose panic ends it with INTERNAL.
    #[derive(Debug)]
    pub struct Guarded<B> {
        #[pin]
        inner: Option<B>,
    }
}

impl<B> Default for Guarded<B> {
    fn default() -> Self {
        Self { inner: None }
    }
}

impl<B: Body<Data = Bytes>> Body for Guarded<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut inner = self.project().inner;
        let Some(body) = inner.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        if let Some(poll) = guarded(|| body.poll_frame(cx)) {
            return poll;
        }
        guarded(|| inner.set(None));
        Poll::Ready(Some(Ok(Frame::trailers(trailers(panicked())))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
