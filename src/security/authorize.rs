//! The layer that decides whether a caller may call a method: denied by
//! default, by the policy alone.
//!
//! What may go on gets a [`Permit`] into its request. A response that streams
//! ends within a second of its permit, with the refusal's status as trailers,
//! unless its body sees to that itself ([`EndsWithPermit`]). What came of a call
//! goes into the audit log ([`super::audit`] says of which).

mod body;

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use tower::{Layer, Service};

pub use self::body::PermitBody;
use super::audit::{self, AuditSubject, AuditTrail, Record};
use super::authenticate::{Authenticated, Authenticator};
use super::connection::Connection;
use super::permit::{Caller, EndsWithPermit, Permit, Validity};
use super::policy::{Decision, Method};
use crate::refusal::{Reason, Refusal};
use crate::trace_context;
use crate::traffic::enrich::classify;

/// Makes [`Authorize`].
#[derive(Debug, Clone)]
pub struct AuthorizeLayer {
    pub(super) authenticator: Arc<Authenticator>,
}

impl<S> Layer<S> for AuthorizeLayer {
    type Service = Authorize<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Authorize { inner, authenticator: self.authenticator.clone() }
    }
}

/// Lets through what the policy allows.
#[derive(Debug, Clone)]
pub struct Authorize<S> {
    inner: S,
    authenticator: Arc<Authenticator>,
}

impl<S, B, ResBody> Service<Request<B>> for Authorize<S>
where
    S: Service<Request<B>, Response = Response<ResBody>, Error = Infallible>,
    ResBody: Default,
{
    type Response = Response<PermitBody<ResBody>>;
    type Error = Infallible;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let Some(authenticated) = request.extensions_mut().remove::<Authenticated>() else {
            let fault = Refusal::new(Reason::Internal, "nobody has asked who calls");
            return ResponseFuture::refused(fault);
        };
        let Authenticated { method, proven } = authenticated;
        let Some(method) = method else {
            let unknown = Refusal::new(Reason::UnknownMethod, "there is no such method");
            return ResponseFuture::refused(unknown);
        };
        let address = request.extensions().get::<Connection>().map(|c| c.remote.ip());
        let caller = proven.as_ref().map(|(caller, _)| caller.clone());
        let subject = AuditSubject::default();
        let mut call = Call { authenticator: None, caller, address, method, subject, over: false };
        if let Decision::Denied(_, refusal) = call.method.decide(call.caller.as_deref()) {
            call.authenticator = Some(self.authenticator.clone());
            call.denied(&refusal);
            return ResponseFuture::refused(refusal);
        }
        if call.method.audited {
            call.authenticator = Some(self.authenticator.clone());
            request.extensions_mut().insert(call.subject.clone());
            if call.method.streams && call.method.mutates {
                let (caller, method) = (call.caller.clone(), call.method.clone());
                let trail = AuditTrail::new(self.authenticator.clone(), caller, address, method);
                request.extensions_mut().insert(trail);
            }
        }
        let mut validity = None;
        if let Some((caller, until)) = proven {
            validity = call.method.streams.then(|| until.clone());
            request.extensions_mut().insert(Permit::shared(caller, until));
        }
        let future = self.inner.call(request);
        ResponseFuture { state: State::Inner { future, call, validity } }
    }
}

/// One call, for the audit log.
#[derive(Debug)]
struct Call {
    /// `None` for what is not recorded.
    authenticator: Option<Arc<Authenticator>>,
    caller: Option<Arc<Caller>>,
    address: Option<IpAddr>,
    method: Arc<Method>,
    subject: AuditSubject,
    /// Whether its end was seen.
    over: bool,
}

impl Drop for Call {
    /// A caller that went away before the answer may have changed something.
    fn drop(&mut self) {
        if !self.over && self.method.mutates {
            self.record(Code::Cancelled, None);
        }
    }
}

impl Call {
    fn denied(&mut self, refusal: &Refusal) {
        self.over = true;
        let Some(authenticator) = &self.authenticator else { return };
        authenticator.denials.get_or_create(&[("reason", refusal.reason.as_str())]).inc();
        tracing::debug!(
            method = %self.method.path, rule = %self.method.rule, %refusal, "call denied"
        );
        if self.method.audited {
            self.record(refusal.reason.code(), Some(refusal.to_string()));
        }
    }

    /// Records what came of it, where that is of interest.
    fn answered<B>(&mut self, response: &Response<B>) {
        self.over = true;
        if self.authenticator.is_none() {
            return;
        }
        let (code, why) = outcome(response);
        if self.method.mutates || audit::is_denial(code) || self.subject.is_others() {
            self.record(code, why);
        }
    }

    fn record(&self, code: Code, why: Option<String>) {
        let Some(authenticator) = &self.authenticator else { return };
        authenticator.audit.record(Record {
            at: authenticator.clock.now(),
            caller: self.caller.clone(),
            address: self.address,
            method: self.method.clone(),
            frame: None,
            subject: self.subject.clone(),
            code,
            why,
            trace_id: trace_context::trace_id(),
        });
    }
}

/// What the caller is told: the code, and why the call was refused.
fn outcome<B>(response: &Response<B>) -> (Code, Option<String>) {
    let header = response.headers().get(Status::GRPC_STATUS);
    let code = header.map_or(Code::Ok, |value| Code::from_bytes(value.as_bytes()));
    let Some(status) = response.extensions().get::<Status>().filter(|_| code != Code::Ok) else {
        return (code, None);
    };
    let (code, reason) = match status.get_details_error_info() {
        Some(info) => (code, info.reason),
        // tonic's own: it is told with another code.
        None => {
            let (code, reason) = classify(code, status.message());
            (code, reason.map_or_else(|| format!("{code:?}"), |reason| reason.as_str().to_owned()))
        }
    };
    (code, Some(format!("{reason}: {}", status.message())))
}

pin_project! {
    /// The response of [`Authorize`].
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProjection]
    #[derive(Debug)]
    enum State<F> {
        // Allowed. The validity is that of a stream.
        Inner { #[pin] future: F, call: Call, validity: Option<Validity> },
        // Denied. The refusal is taken when polled.
        Refused { refusal: Option<Refusal> },
    }
}

impl<F> ResponseFuture<F> {
    fn refused(refusal: Refusal) -> Self {
        Self { state: State::Refused { refusal: Some(refusal) } }
    }
}

impl<F, ResBody> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<ResBody>, Infallible>>,
    ResBody: Default,
{
    type Output = Result<Response<PermitBody<ResBody>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Inner { future, call, validity } => {
                let Ok(response) = ready!(future.poll(cx));
                call.answered(&response);
                let own_end = response.extensions().get::<EndsWithPermit>().is_some();
                let validity = validity.take().filter(|_| !own_end);
                Poll::Ready(Ok(response.map(|body| PermitBody::new(body, validity))))
            }
            StateProjection::Refused { refusal } => match refusal.take() {
                Some(refusal) => Poll::Ready(Ok(Status::from(refusal).into_http())),
                None => Poll::Pending,
            },
        }
    }
}
