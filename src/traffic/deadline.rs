//! Stops work whose time is over.
//!
//! A unary call has the deadline that its caller gave, cut to a maximum, or a
//! default. A stream lives as long as it likes unless its caller gave a
//! deadline. When it passes, the handler or the response body is dropped and
//! the caller gets DEADLINE_EXCEEDED. The timer is only registered when a call
//! has to wait at all.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Extensions, HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower::{Layer, Service};

use super::methods::Method;
use super::reply::{refused, trailers};
use crate::refusal::{Reason, Refusal};

/// Less than it takes to get here, or not much more.
const SHORT: Duration = Duration::from_millis(1);

/// When a call must be over; in the request's extensions when it has an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub Instant);

impl Deadline {
    /// The deadline of a request.
    pub fn of(extensions: &Extensions) -> Option<Self> {
        extensions.get().copied()
    }

    /// What is left of it.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// Puts [`Timeout`] around a service.
#[derive(Debug, Clone, Copy)]
pub struct DeadlineLayer {
    default: Duration,
    max: Duration,
}

impl DeadlineLayer {
    /// For unary calls: the deadline of those that bring none, and the longest.
    pub fn new(default: Duration, max: Duration) -> Self {
        Self { default: default.min(max), max }
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Timeout<S>;

    fn layer(&self, inner: S) -> Timeout<S> {
        Timeout { inner, limits: *self }
    }
}

/// Gives each call its deadline and ends it there.
#[derive(Debug, Clone)]
pub struct Timeout<S> {
    inner: S,
    limits: DeadlineLayer,
}

impl DeadlineLayer {
    fn allowed(&self, given: Option<Duration>, streaming: bool) -> Option<Duration> {
        if streaming { given } else { Some(given.map_or(self.default, |it| it.min(self.max))) }
    }
}

/// Reads `grpc-timeout`: one to eight digits and a unit, once.
fn given(headers: &HeaderMap) -> Result<Option<Duration>, Refusal> {
    let mut values = headers.get_all("grpc-timeout").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let parsed = if values.next().is_none() { parse(value.as_bytes()) } else { None };
    parsed.map(Some).ok_or_else(|| {
        Refusal::new(
            Reason::InvalidArgument,
            "grpc-timeout must be one to eight digits and one of the units H M S m u n, once",
        )
    })
}

fn parse(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

fn exceeded() -> Refusal {
    Refusal::new(Reason::DeadlineExceeded, "the deadline passed before the call was done")
}

impl<S, T, B> Service<Request<T>> for Timeout<S>
where
    S: Service<Request<T>, Response = Response<B>>,
{
    type Response = Response<Timed<B>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<T>) -> Self::Future {
        let streaming = request.extensions().get::<Method>().is_some_and(|m| m.streaming);
        let timeout = match given(request.headers()) {
            Ok(given) => self.limits.allowed(given, streaming),
            Err(refusal) => return ResponseFuture::Refused { refusal: Some(refusal) },
        };
        // 99,999,999 hours are in range of the clock: no overflow to look after.
        let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        // Nobody waits any more: the handler must not begin. The clock is only
        // asked where the little time that was given may be over by now.
        let short = timeout.is_some_and(|timeout| timeout < SHORT);
        if short && end.is_some_and(|end| Instant::now() >= end) {
            return ResponseFuture::Refused { refusal: Some(exceeded()) };
        }
        if let Some(end) = end {
            request.extensions_mut().insert(Deadline(end));
        }
        let inner = self.inner.call(request);
        ResponseFuture::Running { inner, streaming, timer: Timer::new(end) }
    }
}

pin_project! {
    /// The future of [`Timeout`].
    #[project = ResponseProject]
    #[derive(Debug)]
    #[allow(missing_docs)] // The macro takes no docs on fields.
    pub enum ResponseFuture<F> {
        /// The given deadline cannot be read, or is over.
        Refused {
            // Taken by the first poll.
            refusal: Option<Refusal>,
        },
        /// The call.
        Running {
            // The inner future.
            #[pin]
            inner: F,
            // Whether the response is a stream.
            streaming: bool,
            // Ends it.
            #[pin]
            timer: Timer,
        },
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<Timed<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            ResponseProject::Refused { refusal } => match refusal.take() {
                Some(refusal) => Poll::Ready(Ok(refused(refusal))),
                None => Poll::Pending, // Polled after it was ready.
            },
            ResponseProject::Running { inner, streaming, timer } => {
                if let Poll::Ready(answer) = inner.poll(cx) {
                    let (streaming, end) = (*streaming, timer.end);
                    return Poll::Ready(answer.map(|response| {
                        response.map(|body| Timed {
                            inner: Some(body),
                            timer: Timer::new(end),
                            streaming,
                        })
                    }));
                }
                match timer.poll(cx) {
                    Poll::Ready(()) => Poll::Ready(Ok(refused(exceeded()))),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }
}

pin_project! {
    /// A time, and a timer for it that is made when it is first waited for:
    /// most calls are over before.
    #[derive(Debug)]
    struct Timer {
        end: Option<Instant>,
        #[pin]
        sleep: Option<Sleep>,
    }
}

impl Timer {
    fn new(end: Option<Instant>) -> Self {
        Self { end, sleep: None }
    }

    fn is_over(&self) -> bool {
        self.end.is_some_and(|end| Instant::now() >= end)
    }

    /// Never ready without a time.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let Some(end) = *this.end else { return Poll::Pending };
        if this.sleep.is_none() {
            this.sleep.set(Some(sleep_until(end)));
        }
        this.sleep.as_pin_mut().map_or(Poll::Pending, |sleep| sleep.poll(cx))
    }
}

pin_project! {
    /// A response body that ends with DEADLINE_EXCEEDED when its time is over.
    #[derive(Debug)]
    pub struct Timed<B> {
        #[pin]
        inner: Option<B>,
        #[pin]
        timer: Timer,
        streaming: bool,
    }
}

impl<B> Default for Timed<B> {
    fn default() -> Self {
        Self { inner: None, timer: Timer::new(None), streaming: false }
    }
}

impl<B: Body<Data = Bytes>> Body for Timed<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        let frame = inner.poll_frame(cx);
        // A stream that always has something to say must still see its end.
        let over = match &frame {
            Poll::Ready(_) => *this.streaming && this.timer.is_over(),
            Poll::Pending => this.timer.as_mut().poll(cx).is_ready(),
        };
        if !over {
            return frame;
        }
        this.inner.set(None);
        this.timer.set(Timer::new(None));
        Poll::Ready(Some(Ok(Frame::trailers(trailers(exceeded())))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_is_read_strictly() {
        assert_eq!(parse(b"1S"), Some(Duration::from_secs(1)));
        assert_eq!(parse(b"00000250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse(b"99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for bad in ["", "S", "1", "1s", "-1S", "+1S", "1.5S", "123456789S", " 1S", "1S "] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
        }
        let mut twice = HeaderMap::new();
        twice.append("grpc-timeout", "1S".parse().expect("value"));
        assert_eq!(given(&twice), Ok(Some(Duration::from_secs(1))));
        twice.append("grpc-timeout", "2S".parse().expect("value"));
        assert!(given(&twice).is_err());
    }

    #[test]
    fn calls_are_cut_to_the_maximum_and_streams_only_end_when_asked() {
        let second = Duration::from_secs(1);
        let limits = DeadlineLayer::new(30 * second, 300 * second);
        assert_eq!(limits.allowed(None, false), Some(30 * second));
        assert_eq!(limits.allowed(Some(900 * second), false), Some(300 * second));
        assert_eq!(limits.allowed(None, true), None);
        assert_eq!(limits.allowed(Some(900 * second), true), Some(900 * second));
    }
}
