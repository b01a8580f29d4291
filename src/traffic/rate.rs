//! Bounds what one principal asks for: calls, frames inside streams, and open
//! streams. Stands behind authentication, so that nobody uses up another's
//! share. Calls without a principal (public methods) pass.
//!
//! Memory: one small entry for each principal that was active lately. The table
//! is swept when it has doubled since the last sweep; beyond
//! [`MAX_PRINCIPALS`] active ones, new ones are told to come again.

use std::collections::HashMap;
use std::future::Future;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::{Extensions, Request, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::held::Held;
use super::methods::Method;
use super::reply::refused;
use crate::principal::Principal;
use crate::refusal::{Reason, Refusal};

/// How many principals may be active at once.
pub const MAX_PRINCIPALS: usize = 65_536;

const FIRST_SWEEP: usize = 1024;

/// What one principal may do.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// Calls a second, in the long run.
    pub calls: u32,
    /// Calls at once, beyond the rate.
    pub call_burst: u32,
    /// Frames a second inside streams, in the long run.
    pub frames: u32,
    /// Frames at once, beyond the rate.
    pub frame_burst: u32,
    /// Streams open at once.
    pub streams: usize,
}

impl Share {
    fn quota(rate: u32, burst: u32) -> Quota {
        let atleast_one = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Quota::per_second(atleast_one(rate)).allow_burst(atleast_one(burst))
    }

    /// After so long an idle principal has its whole burst again: forgetting it
    /// then gives it nothing.
    fn refill(&self) -> Duration {
        let seconds = |burst: u32, rate: u32| u64::from(burst / rate.max(1)) + 1;
        let calls = seconds(self.call_burst, self.calls);
        Duration::from_secs(calls.max(seconds(self.frame_burst, self.frames)))
    }
}

/// What is left of one principal's share.
#[derive(Debug)]
struct Entry {
    calls: DefaultDirectRateLimiter,
    frames: DefaultDirectRateLimiter,
    streams: AtomicUsize,
    /// Milliseconds since the table was made.
    used: AtomicU64,
}

/// Everyone's shares. Clones share them.
#[derive(Debug, Clone)]
pub struct FrameLimits {
    table: Arc<Table>,
}

#[derive(Debug)]
struct Table {
    share: Share,
    since: Instant,
    entries: Mutex<Entries>,
}

#[derive(Debug)]
struct Entries {
    map: HashMap<Principal, Arc<Entry>>,
    sweep_at: usize,
}

impl FrameLimits {
    /// The same share for each principal.
    pub fn new(share: Share) -> Self {
        let entries = Mutex::new(Entries { map: HashMap::new(), sweep_at: FIRST_SWEEP });
        Self { table: Arc::new(Table { share, since: Instant::now(), entries }) }
    }

    /// Takes one frame of the principal's share; else says how long to wait
    /// before the next try.
    pub fn take(&self, principal: &Principal) -> Result<(), Duration> {
        match self.table.entry(principal) {
            Some(entry) => check(&entry.frames),
            None => Err(self.table.share.refill()),
        }
    }

    fn take_call(&self, principal: &Principal) -> Result<Arc<Entry>, Refusal> {
        let limited = |wait| {
            let message = "the caller has sent too many requests; RetryInfo says when to go on";
            Refusal::new(Reason::RateLimited, message).retry_after(wait)
        };
        let entry =
            self.table.entry(principal).ok_or_else(|| limited(self.table.share.refill()))?;
        check(&entry.calls).map_err(limited)?;
        Ok(entry)
    }

    fn take_stream(&self, entry: Arc<Entry>) -> Result<StreamPermit, Refusal> {
        let max = self.table.share.streams;
        let more = |open| (open < max).then_some(open + 1);
        match entry.streams.fetch_update(Ordering::AcqRel, Ordering::Acquire, more) {
            Ok(_) => Ok(StreamPermit { entry }),
            Err(_) => Err(Refusal::new(
                Reason::TooManyStreams,
                "the caller has as many open streams as it may",
            )),
        }
    }
}

fn check(limiter: &DefaultDirectRateLimiter) -> Result<(), Duration> {
    limiter.check().map_err(|until| until.wait_time_from(DefaultClock::default().now()))
}

impl Table {
    fn entry(&self, principal: &Principal) -> Option<Arc<Entry>> {
        let now = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.map.get(principal) {
            entry.used.store(now, Ordering::Relaxed);
            return Some(entry.clone());
        }
        if entries.map.len() >= entries.sweep_at {
            self.sweep(&mut entries, now);
        }
        if entries.map.len() >= MAX_PRINCIPALS {
            return None;
        }
        let share = &self.share;
        let entry = Arc::new(Entry {
            calls: RateLimiter::direct(Share::quota(share.calls, share.call_burst)),
            frames: RateLimiter::direct(Share::quota(share.frames, share.frame_burst)),
            streams: AtomicUsize::new(0),
            used: AtomicU64::new(now),
        });
        entries.map.insert(principal.clone(), entry.clone());
        Some(entry)
    }

    /// Forgets who has no stream open and has its whole share again.
    fn sweep(&self, entries: &mut Entries, now: u64) {
        let refill = u64::try_from(self.share.refill().as_millis()).unwrap_or(u64::MAX);
        entries.map.retain(|_, entry| {
            Arc::strong_count(entry) > 1
                || now.saturating_sub(entry.used.load(Ordering::Relaxed)) < refill
        });
        let next = entries.map.len().saturating_mul(2);
        entries.sweep_at = next.clamp(FIRST_SWEEP, MAX_PRINCIPALS);
        entries.map.shrink_to(entries.sweep_at);
    }
}

/// One open stream of a principal.
#[derive(Debug)]
pub struct StreamPermit {
    entry: Arc<Entry>,
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.entry.streams.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Finds the proven principal that authentication left in the extensions.
pub type PrincipalOf = for<'a> fn(&'a Extensions) -> Option<&'a Principal>;

/// Puts [`Rate`] around a service.
#[derive(Debug, Clone)]
pub struct RateLayer {
    limits: FrameLimits,
    principal: PrincipalOf,
}

impl RateLayer {
    /// With everyone's shares, and who is calling.
    pub fn new(limits: FrameLimits, principal: PrincipalOf) -> Self {
        Self { limits, principal }
    }
}

impl<S> Layer<S> for RateLayer {
    type Service = Rate<S>;

    fn layer(&self, inner: S) -> Rate<S> {
        Rate { inner, layer: self.clone() }
    }
}

/// Passes on what is within the caller's share.
#[derive(Debug, Clone)]
pub struct Rate<S> {
    inner: S,
    layer: RateLayer,
}

impl<S> Rate<S> {
    fn admit(&self, extensions: &Extensions) -> Result<Option<StreamPermit>, Refusal> {
        let method = extensions.get::<Method>().copied();
        if method.is_some_and(|method| method.health) {
            return Ok(None);
        }
        let Some(principal) = (self.layer.principal)(extensions) else { return Ok(None) };
        let entry = self.layer.limits.take_call(principal)?;
        if method.is_some_and(|method| method.streaming) {
            return self.layer.limits.take_stream(entry).map(Some);
        }
        Ok(None)
    }
}

impl<S, T, B> Service<Request<T>> for Rate<S>
where
    S: Service<Request<T>, Response = Response<B>>,
    B: Default,
{
    type Response = Response<Held<B, StreamPermit>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<T>) -> Self::Future {
        match self.admit(request.extensions()) {
            Ok(permit) => ResponseFuture::Running { inner: self.inner.call(request), permit },
            Err(refusal) => ResponseFuture::Refused { refusal: Some(refusal) },
        }
    }
}

pin_project! {
    /// The future of [`Rate`].
    #[project = ResponseProject]
    #[derive(Debug)]
    #[allow(missing_docs)] // The macro takes no docs on fields.
    pub enum ResponseFuture<F> {
        /// Beyond the share.
        Refused {
            // Taken by the first poll.
            refusal: Option<Refusal>,
        },
        /// Within it.
        Running {
            // The inner future.
            #[pin]
            inner: F,
            // Held to the end of a stream.
            permit: Option<StreamPermit>,
        },
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Default,
{
    type Output = Result<Response<Held<B, StreamPermit>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            ResponseProject::Refused { refusal } => match refusal.take() {
                Some(refusal) => Poll::Ready(Ok(refused(refusal))),
                None => Poll::Pending, // Polled after it was ready.
            },
            ResponseProject::Running { inner, permit } => {
                let response = ready!(inner.poll(cx))?;
                let permit = permit.take();
                Poll::Ready(Ok(response.map(|body| Held::new(body, permit))))
            }
        }
    }
}

#[cfg(test)]
#[path = "rate/tests.rs"]
mod tests;
