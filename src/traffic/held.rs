//! A response body that holds a permit until its end.
//!
//! tower's own concurrency limit lets go when the response's headers are there,
//! which for a stream is its beginning.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// A body and what is given back when it ends or is dropped.
    #[derive(Debug)]
    pub struct Held<B, P> {
        #[pin]
        inner: B,
        permit: Option<P>,
    }
}

impl<B, P> Held<B, P> {
    /// Holds `permit`, if there is one, as long as the body goes on.
    pub fn new(inner: B, permit: Option<P>) -> Self {
        Self { inner, permit }
    }
}

impl<B: Default, P> Default for Held<B, P> {
    fn default() -> Self {
        Self::new(B::default(), None)
    }
}

impl<B: Body<Data = Bytes>, P> Body for Held<B, P> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let frame = ready!(this.inner.poll_frame(cx));
        if frame.as_ref().is_none_or(|frame| frame.as_ref().map_or(true, Frame::is_trailers)) {
            this.permit.take();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
