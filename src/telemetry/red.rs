//! Rate, errors and duration of calls, per method and role class.
//!
//! The counters are plain atomics in a fixed table: a call costs no lock, no
//! allocation and no hash of labels, and nobody can make the table grow.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Request;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tonic::Code;
use tower::{Layer, Service};

use super::context::TraceContext;
use super::latency::Latency;
use super::methods::{self, Method};
use crate::principal::Role;
use crate::security::permit::Permit;

/// Seconds: from what a cached answer takes to what a deadline allows.
static BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// The status codes by number.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The name of a code, as the wire's documents write it.
pub(super) fn code_name(code: Code) -> &'static str {
    CODES.get(code as usize).copied().unwrap_or("UNKNOWN")
}

/// Who calls, coarsely.
const CLASSES: [&str; 4] = ["none", "user", "staff", "service"];

thread_local! {
    /// The class of the call that is being polled here, once it is known.
    static CLASS: Cell<u8> = const { Cell::new(0) };
}

/// The role class of one call. It is the thread's own while the call is polled,
/// so that telling it costs neither an allocation nor a place in the request.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RoleClass(u8);

impl RoleClass {
    fn of(permit: &Permit) -> Self {
        let any = |roles: &[Role]| roles.iter().any(|role| permit.has(*role));
        if any(&[Role::Backend, Role::Node]) {
            Self(3)
        } else if any(&[Role::Support, Role::Auditor, Role::Operator]) {
            Self(2)
        } else {
            Self(1)
        }
    }

    /// Runs what may tell the class, and takes it over.
    pub(super) fn during<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let outer = Outer(CLASS.replace(self.0));
        let done = work();
        self.0 = CLASS.get();
        drop(outer);
        done
    }

    fn index(self) -> usize {
        usize::from(self.0).min(CLASSES.len() - 1)
    }
}

/// Puts back what was there, a panic inside or not.
struct Outer(u8);

impl Drop for Outer {
    fn drop(&mut self) {
        CLASS.set(self.0);
    }
}

/// The counts of every method. Shared by all connections.
pub struct Red(Vec<Row>);

#[derive(Default)]
struct Row {
    open: AtomicI64,
    calls: [[AtomicU64; CODES.len()]; CLASSES.len()],
    durations: [OnceLock<Latency>; CLASSES.len()],
}

impl fmt::Debug for Red {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Red").field("methods", &self.0.len()).finish()
    }
}

impl Red {
    /// Empty counts, put into the registry.
    pub fn registered(registry: &mut Registry) -> Arc<Self> {
        let red = Arc::new(Self(methods::all().iter().map(|_| Row::default()).collect()));
        registry.register_collector(Box::new(Counts(red.clone())));
        red
    }

    pub(super) fn began(&self, method: &Method) {
        if let Some(row) = self.0.get(method.index) {
            row.open.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn ended(
        &self,
        method: &Method,
        role: RoleClass,
        code: Code,
        took: Duration,
        place: Option<TraceContext>,
    ) {
        let Some(row) = self.0.get(method.index) else { return };
        let class = role.index();
        row.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(count) = row.calls.get(class).and_then(|codes| codes.get(code as usize)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        // How long a stream was open is no latency.
        if !method.streaming
            && let Some(histogram) = row.durations.get(class)
        {
            histogram.get_or_init(|| Latency::new(&BUCKETS)).observe_in(took, place);
        }
    }
}

/// Reads the counts at each scrape.
#[derive(Debug)]
struct Counts(Arc<Red>);

impl Counts {
    fn rows(&self) -> impl Iterator<Item = (&'static str, &Row)> {
        methods::all().iter().map(|method| method.name).zip(&self.0.0)
    }
}

impl Collector for Counts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut calls = encoder.encode_descriptor(
            "rpc_calls",
            "Calls that are over",
            None,
            MetricType::Counter,
        )?;
        for (method, row) in self.rows() {
            for (role, codes) in CLASSES.iter().zip(&row.calls) {
                for (code, count) in CODES.iter().zip(codes) {
                    let count = count.load(Ordering::Relaxed);
                    if count > 0 {
                        let labels = [("method", method), ("role", *role), ("code", *code)];
                        ConstCounter::new(count).encode(calls.encode_family(&labels)?)?;
                    }
                }
            }
        }
        let help = "Duration of unary calls, to the last byte, in seconds";
        let mut durations =
            encoder.encode_descriptor("rpc_duration_seconds", help, None, MetricType::Histogram)?;
        for (method, row) in self.rows() {
            for (role, histogram) in CLASSES.iter().zip(&row.durations) {
                if let Some(histogram) = histogram.get() {
                    let labels = [("method", method), ("role", *role)];
                    histogram.encode(durations.encode_family(&labels)?)?;
                }
            }
        }
        let help = "Calls and streams that are open";
        let mut open = encoder.encode_descriptor("rpc_open", help, None, MetricType::Gauge)?;
        for (method, row) in self.rows() {
            let count = row.open.load(Ordering::Relaxed);
            ConstGauge::new(count).encode(open.encode_family(&[("method", method)])?)?;
        }
        Ok(())
    }
}

/// Stands inside the authorize layer and tells the outermost one which role
/// class the caller has.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoteRoleLayer;

impl<S> Layer<S> for NoteRoleLayer {
    type Service = NoteRole<S>;

    fn layer(&self, inner: S) -> Self::Service {
        NoteRole { inner }
    }
}

/// The service of [`NoteRoleLayer`].
#[derive(Debug, Clone)]
pub struct NoteRole<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for NoteRole<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, task: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if let Some(permit) = request.extensions().get() {
            CLASS.set(RoleClass::of(permit).0);
        }
        self.inner.call(request)
    }
}
