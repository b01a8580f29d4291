//! The outermost layer of every call: its span, its place in a trace, its
//! counts.
//!
//! A unary call is one span. A stream's span ends when the stream is open,
//! since one that lived as long would be seen by nobody until then, and would
//! keep what hangs on it; a second span, below it, tells how the stream ended.
//! What runs inside the stream still knows its trace by [`super::context`].
//!
//! Nothing of a request is taken but its path, looked up among the known
//! methods, and `traceparent`/`tracestate`.

mod call;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use opentelemetry_sdk::trace::SdkTracer;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::red::Red;
use call::Call;

/// How calls are traced. [`super::Telemetry::calls`] says it.
#[derive(Debug, Clone)]
pub struct Calls {
    /// Makes their spans, when they are exported.
    pub(super) tracer: Option<SdkTracer>,
    /// Whether a caller's traceparent is taken.
    pub(super) propagate: bool,
}

/// Makes [`Trace`] services.
#[derive(Debug, Clone)]
pub struct TraceLayer {
    red: Arc<Red>,
    calls: Calls,
}

impl TraceLayer {
    /// Counts into `red`.
    pub fn new(red: Arc<Red>, calls: Calls) -> Self {
        Self { red, calls }
    }
}

impl<S> Layer<S> for TraceLayer {
    type Service = Trace<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Trace { inner, red: self.red.clone(), calls: self.calls.clone() }
    }
}

/// The service of [`TraceLayer`].
#[derive(Debug, Clone)]
pub struct Trace<S> {
    inner: S,
    red: Arc<Red>,
    calls: Calls,
}

impl<S, B, R> Service<Request<B>> for Trace<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body,
{
    type Response = Response<TraceBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, task: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut call =
            Call::begin(self.red.clone(), request.uri().path(), request.headers(), &self.calls);
        let inner = call.run(|| self.inner.call(request));
        ResponseFuture { inner, call: Some(call) }
    }
}

pin_project! {
    /// Waits for a response's headers inside the call's span.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        call: Option<Call>,
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body,
{
    type Output = Result<Response<TraceBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(match this.call {
            Some(call) => call.run(|| this.inner.poll(task)),
            None => this.inner.poll(task),
        });
        let mut call = this.call.take();
        Poll::Ready(match response {
            Ok(response) => {
                if let Some(call) = &mut call {
                    call.opened(response.status(), response.headers());
                }
                Ok(response.map(|inner| TraceBody { inner, call }))
            }
            Err(error) => {
                if let Some(call) = &mut call {
                    call.failed();
                }
                Err(error)
            }
        })
    }
}

pin_project! {
    /// A response's body that ends the call with its trailers.
    #[derive(Debug)]
    pub struct TraceBody<B> {
        #[pin]
        inner: B,
        call: Option<Call>,
    }
}

impl<B: Body> Body for TraceBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.project();
        let frame = ready!(match this.call {
            Some(call) => call.run(|| this.inner.poll_frame(task)),
            None => this.inner.poll_frame(task),
        });
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref()
                    && let Some(mut call) = this.call.take()
                {
                    call.trailers(trailers);
                }
            }
            Some(Err(_)) => {
                if let Some(mut call) = this.call.take() {
                    call.failed();
                }
            }
            None => *this.call = None,
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
