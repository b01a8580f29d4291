//! All layers in their order around the services:
//!
//! ```text
//! connection info   (the accept loop puts it into the extensions)
//!   trace           (telemetry; goes around what is made here)
//!     enrich → panic → canonical → deadline → shed
//!       authenticate     (security)
//!         rate
//!           authorize    (security)
//!             routes
//! ```
//!
//! What a layer learns it leaves in the request's extensions for those inside
//! of it: `Connection`, `Method`, `Deadline`, the caller, the
//! `Permit`.

use std::sync::Arc;

use tower::Layer;

use crate::config::schema::Traffic;
use crate::traffic::canonical::{Canonical, CanonicalLayer};
use crate::traffic::deadline::{DeadlineLayer, Timeout};
use crate::traffic::enrich::{Enrich, EnrichLayer, TraceOf};
use crate::traffic::methods::Methods;
use crate::traffic::panic::{PanicGuard, PanicLayer};
use crate::traffic::rate::{FrameLimits, PrincipalOf, Rate, RateLayer, Share};
use crate::traffic::shed::{Places, Shed, ShedLayer};

/// What stands between the trace layer and authentication.
pub type Outer<S> = Enrich<PanicGuard<Canonical<Timeout<Shed<S>>>>>;

/// The layers of `traffic` with what they share.
#[derive(Debug, Clone)]
pub struct Layers {
    /// What is served.
    pub methods: Arc<Methods>,
    /// The most bytes of a call's headers.
    pub header_bytes: usize,
    /// The bounds of unary calls' deadlines.
    pub deadline: DeadlineLayer,
    /// The node's places; also a metrics collector.
    pub places: Places,
    /// Everyone's shares, those of frames too: chat takes from them.
    pub shares: FrameLimits,
    /// How the proven principal is found behind authentication.
    pub principal: PrincipalOf,
    /// Tells the trace of the call that is being polled.
    pub trace: TraceOf,
}

impl Layers {
    /// As configured.
    pub fn new(
        traffic: &Traffic,
        methods: Arc<Methods>,
        principal: PrincipalOf,
        trace: TraceOf,
    ) -> Self {
        let places = Places::new(
            traffic.max_concurrent_calls,
            traffic.max_concurrent_streams,
            traffic.max_waiting_calls,
            traffic.max_wait,
        );
        let shares = FrameLimits::new(Share {
            calls: traffic.rate_per_principal,
            call_burst: traffic.burst_per_principal,
            frames: traffic.frame_rate_per_principal,
            frame_burst: traffic.frame_burst_per_principal,
            streams: traffic.max_streams_per_principal,
        });
        let deadline = DeadlineLayer::new(traffic.default_deadline, traffic.max_deadline);
        let header_bytes = usize::try_from(traffic.max_header_bytes).unwrap_or(usize::MAX);
        Self { methods, header_bytes, deadline, places, shares, principal, trace }
    }

    /// Puts them and the two of `security` around the services. The trace layer
    /// goes around the result.
    pub fn around<A, Z, S>(&self, authenticate: &A, authorize: &Z, routes: S) -> Outer<A::Service>
    where
        Z: Layer<S>,
        A: Layer<Rate<Z::Service>>,
    {
        let authorized = authorize.layer(routes);
        let rated = RateLayer::new(self.shares.clone(), self.principal).layer(authorized);
        let authenticated = authenticate.layer(rated);
        let shed = ShedLayer::new(self.places.clone()).layer(authenticated);
        let timed = self.deadline.layer(shed);
        let canonical = CanonicalLayer::new(self.methods.clone(), self.header_bytes).layer(timed);
        EnrichLayer::new(self.trace).layer(PanicLayer.layer(canonical))
    }
}
