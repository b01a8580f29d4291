//! Bounds what the node handles at once.
//!
//! A unary call needs one of the node's places until its answer is there. When
//! all are taken it waits a short time, and only so many wait: CONCURRENCY_LIMIT
//! when the queue is full, OVERLOADED when the wait was in vain, both with
//! RetryInfo. A stream needs a place of another kind, held to the end of its
//! body, and never waits. Health is exempt.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use pin_project_lite::pin_project;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{Layer, Service};

use super::held::Held;
use super::methods::Method;
use super::reply::refused;
use crate::refusal::{Reason, Refusal};

/// When a caller that found no place may come again.
const RETRY: Duration = Duration::from_millis(500);

/// The node's places. Clones share them.
#[derive(Debug, Clone)]
pub struct Places {
    calls: Pool,
    streams: Pool,
    waiting: Pool,
    max_wait: Duration,
}

#[derive(Debug, Clone)]
struct Pool {
    free: Arc<Semaphore>,
    size: usize,
}

impl Pool {
    fn new(size: usize) -> Self {
        let size = size.min(Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(size)), size }
    }

    fn take(&self) -> Option<OwnedSemaphorePermit> {
        self.free.clone().try_acquire_owned().ok()
    }

    fn taken(&self) -> i64 {
        i64::try_from(self.size.saturating_sub(self.free.available_permits())).unwrap_or(i64::MAX)
    }
}

impl Places {
    /// So many calls and streams at once, so many calls waiting so long.
    pub fn new(calls: usize, streams: usize, waiting: usize, max_wait: Duration) -> Self {
        let [calls, streams, waiting] = [calls, streams, waiting].map(Pool::new);
        Self { calls, streams, waiting, max_wait }
    }

    /// Waits for a place among the allowed number of those who do.
    fn wait(&self) -> Option<Wait> {
        let waiting = self.waiting.take()?;
        let place = self.calls.free.clone().acquire_owned();
        let max_wait = self.max_wait;
        Some(Box::pin(async move {
            let place = tokio::time::timeout(max_wait, place).await;
            drop(waiting);
            place.ok().and_then(Result::ok)
        }))
    }
}

/// Shows how many places are taken.
impl Collector for Places {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let gauges = [
            ("traffic_calls", "Unary calls being handled", &self.calls),
            ("traffic_streams", "Streams being served", &self.streams),
            ("traffic_waiting_calls", "Unary calls waiting for a place", &self.waiting),
        ];
        for (name, help, pool) in gauges {
            let gauge = ConstGauge::new(pool.taken());
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

type Wait = Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>;

/// Puts [`Shed`] around a service.
#[derive(Debug, Clone)]
pub struct ShedLayer {
    places: Places,
}

impl ShedLayer {
    /// With the node's places.
    pub fn new(places: Places) -> Self {
        Self { places }
    }
}

impl<S> Layer<S> for ShedLayer {
    type Service = Shed<S>;

    fn layer(&self, inner: S) -> Shed<S> {
        Shed { inner, places: self.places.clone() }
    }
}

/// Handles what there is a place for and refuses the rest.
#[derive(Debug, Clone)]
pub struct Shed<S> {
    inner: S,
    places: Places,
}

fn full(what: &str) -> Refusal {
    Refusal::new(Reason::ConcurrencyLimit, format!("the node handles as many {what} as it may"))
        .retry_after(RETRY)
}

fn overloaded() -> Refusal {
    Refusal::new(Reason::Overloaded, "the node is overloaded; nothing of this call was done")
        .retry_after(RETRY)
}

impl<S, T, B> Service<Request<T>> for Shed<S>
where
    S: Service<Request<T>, Response = Response<B>> + Clone,
    B: Default,
{
    type Response = Response<Held<B, OwnedSemaphorePermit>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, T>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<T>) -> Self::Future {
        let method = request.extensions().get::<Method>().copied();
        let streaming = method.is_some_and(|method| method.streaming);
        if method.is_some_and(|method| method.health) {
            return ResponseFuture::running(self.inner.call(request), None, streaming);
        }
        let pool = if streaming { &self.places.streams } else { &self.places.calls };
        if let Some(place) = pool.take() {
            return ResponseFuture::running(self.inner.call(request), Some(place), streaming);
        }
        if streaming {
            return ResponseFuture::Refused { refusal: Some(full("streams")) };
        }
        match self.places.wait() {
            Some(place) => {
                ResponseFuture::Waiting { place, call: Some((self.inner.clone(), request)) }
            }
            None => ResponseFuture::Refused { refusal: Some(full("calls")) },
        }
    }
}

pin_project! {
    /// The future of [`Shed`].
    #[project = ResponseProject]
    #[allow(missing_docs)] // The macro takes no docs on fields.
    pub enum ResponseFuture<S, T>
    where
        S: Service<Request<T>>,
    {
        /// No place.
        Refused {
            // Taken by the first poll.
            refusal: Option<Refusal>,
        },
        /// Waiting for one.
        Waiting {
            // The wait; boxed, since nobody is in a hurry here.
            place: Wait,
            // What is called then.
            call: Option<(S, Request<T>)>,
        },
        /// The call.
        Running {
            // The inner future.
            #[pin]
            inner: S::Future,
            // Its place.
            place: Option<OwnedSemaphorePermit>,
            // Whether the place is held to the end of the body.
            streaming: bool,
        },
    }
}

impl<S: Service<Request<T>>, T> std::fmt::Debug for ResponseFuture<S, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Refused { .. } => "Refused",
            Self::Waiting { .. } => "Waiting",
            Self::Running { .. } => "Running",
        })
    }
}

impl<S: Service<Request<T>>, T> ResponseFuture<S, T> {
    fn running(inner: S::Future, place: Option<OwnedSemaphorePermit>, streaming: bool) -> Self {
        Self::Running { inner, place, streaming }
    }
}

impl<S, T, B> Future for ResponseFuture<S, T>
where
    S: Service<Request<T>, Response = Response<B>>,
    B: Default,
{
    type Output = Result<Response<Held<B, OwnedSemaphorePermit>>, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let next = match self.as_mut().project() {
                ResponseProject::Refused { refusal } => match refusal.take() {
                    Some(refusal) => return Poll::Ready(Ok(refused(refusal))),
                    None => return Poll::Pending, // Polled after it was ready.
                },
                ResponseProject::Waiting { place, call } => {
                    let place = ready!(place.as_mut().poll(cx));
                    match (place, call.take()) {
                        (Some(place), Some((mut service, request))) => {
                            Self::running(service.call(request), Some(place), false)
                        }
                        _ => Self::Refused { refusal: Some(overloaded()) },
                    }
                }
                ResponseProject::Running { inner, place, streaming } => {
                    let response = ready!(inner.poll(cx))?;
                    let place = place.take().filter(|_| *streaming);
                    return Poll::Ready(Ok(response.map(|body| Held::new(body, place))));
                }
            };
            self.set(next);
        }
    }
}
