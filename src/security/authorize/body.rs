//! A response body that ends with its permit.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::task::AbortHandle;
use tonic::{Code, Status};

use crate::cut::Cut;
use crate::refusal::Refusal;
use crate::security::permit::Validity;
use crate::task;

type Ended = Pin<Box<dyn Future<Output = Refusal> + Send>>;

/// How long a client may take to read how its stream ended.
const LAST_MOMENT: Duration = Duration::from_millis(500);

pin_project! {
    /// Passes a body on; that of a stream until its permit ends, then the
    /// refusal's status as trailers. It cuts between frames of the inner body,
    /// which holds whole messages in each.
    pub struct PermitBody<B> {
        #[pin]
        inner: B,
        // Boxed, for it has no name; only streams have one.
        ended: Option<Ended>,
        // Ends the stream when the client takes nothing any more.
        cutter: Option<Cutter>,
        over: bool,
    }
}

impl<B> PermitBody<B> {
    /// Ends with the validity, if there is one.
    pub(super) fn new(inner: B, validity: Option<Validity>) -> Self {
        let cutter = validity.as_ref().and_then(Cutter::watch);
        let ended =
            validity.map(|validity| -> Ended { Box::pin(async move { validity.ended().await }) });
        Self { inner, ended, cutter, over: false }
    }
}

/// A task that cuts the stream soon after its permit's end; it ends with the
/// body.
struct Cutter(AbortHandle);

impl Cutter {
    /// `None` where no stream is served, in tests.
    fn watch(validity: &Validity) -> Option<Self> {
        let (cut, validity) = (Cut::current()?, validity.clone());
        let watching = async move {
            validity.ended().await;
            tokio::time::sleep(LAST_MOMENT).await;
            cut.now();
        };
        Some(Self(task::spawn("end of a permit", watching).abort_handle()))
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<B: Default> Default for PermitBody<B> {
    fn default() -> Self {
        Self { inner: B::default(), ended: None, cutter: None, over: false }
    }
}

impl<B: std::fmt::Debug> std::fmt::Debug for PermitBody<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PermitBody").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<B: Body> Body for PermitBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.project();
        if *this.over {
            return Poll::Ready(None);
        }
        if let Some(ended) = this.ended
            && let Poll::Ready(refusal) = ended.as_mut().poll(cx)
        {
            *this.over = true;
            *this.ended = None;
            *this.cutter = None;
            let mut trailers = HeaderMap::new();
            if Status::from(refusal).add_header(&mut trailers).is_err() {
                trailers.insert("grpc-status", HeaderValue::from(i32::from(Code::Unauthenticated)));
            }
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        this.inner.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.ended.is_some() { SizeHint::default() } else { self.inner.size_hint() }
    }
}
