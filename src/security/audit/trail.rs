//! Records of a stream's frames, which come after the call itself was recorded.

use std::net::IpAddr;
use std::sync::Arc;

use tonic::Code;

use super::{AuditSubject, Record};
use crate::refusal::Refusal;
use crate::security::authenticate::Authenticator;
use crate::security::permit::Caller;
use crate::security::policy::Method;
use crate::trace_context;

/// The audit log of one stream. The authorize layer puts one into the
/// extensions of requests whose stream can change something.
#[derive(Debug, Clone, Default)]
pub struct AuditTrail(Option<Arc<Stream>>);

#[derive(Debug)]
struct Stream {
    authenticator: Arc<Authenticator>,
    caller: Option<Arc<Caller>>,
    address: Option<IpAddr>,
    method: Arc<Method>,
    // Frames are also decided on tasks that belong to no trace of the caller.
    trace_id: Option<String>,
}

impl AuditTrail {
    pub(in crate::security) fn new(
        authenticator: Arc<Authenticator>,
        caller: Option<Arc<Caller>>,
        address: Option<IpAddr>,
        method: Arc<Method>,
    ) -> Self {
        let trace_id = trace_context::trace_id();
        Self(Some(Arc::new(Stream { authenticator, caller, address, method, trace_id })))
    }

    /// The request's; one that records nothing where there is none, in tests.
    pub fn of(extensions: &http::Extensions) -> Self {
        extensions.get::<Self>().cloned().unwrap_or_default()
    }

    /// Records a frame: its kind, what it is about, and why it was refused.
    pub fn frame(&self, kind: &'static str, subject: &str, refusal: Option<&Refusal>) {
        let Some(stream) = &self.0 else { return };
        let about = AuditSubject::default();
        about.set(subject);
        stream.authenticator.audit.record(Record {
            at: stream.authenticator.clock.now(),
            caller: stream.caller.clone(),
            address: stream.address,
            method: stream.method.clone(),
            frame: Some(kind),
            subject: about,
            code: refusal.map_or(Code::Ok, |refusal| refusal.reason.code()),
            why: refusal.map(ToString::to_string),
            trace_id: stream.trace_id.clone(),
        });
    }
}
