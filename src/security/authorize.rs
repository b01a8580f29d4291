//! The layer that decides whether a caller may call a method: denied by
//! default, by the policy alone.
//!
//! What may go on gets a [`Permit`] into its request. A response that streams
//! ends within a second of its permit, with the refusal's status as trailers,
//! unless its body sees to that itself ([`EndsWithPermit`]). What can change
//! something, and what is denied here or by the service, goes into the audit
//! log.

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
use tower::{Layer, Service};

pub use self::body::PermitBody;
use super::audit::{self, AuditSubject, Record};
use super::authenticate::{Authenticated, Authenticator};
use super::connection::Connection;
use super::permit::{Caller, EndsWithPermit, Permit, Validity};
use super::policy::{Decision, Method};
use crate::principal::{Role, Roles};
use crate::refusal::{Reason, Refusal};

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
        let mut call =
            Call { authenticator: None, caller, address, method, subject: None, over: false };
        if let Decision::Denied(_, refusal) = call.method.decide(call.caller.as_deref()) {
            call.authenticator = Some(self.authenticator.clone());
            call.denied(&refusal);
            return ResponseFuture::refused(refusal);
        }
        if call.method.audited {
            call.authenticator = Some(self.authenticator.clone());
            if call.is_of_interest() {
                let subject = AuditSubject::default();
                request.extensions_mut().insert(subject.clone());
                call.subject = Some(subject);
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
    subject: Option<AuditSubject>,
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
    /// Whether the service is asked whose thing it is: for changes, and for
    /// those who may read what is not theirs.
    fn is_of_interest(&self) -> bool {
        let reads_others: Roles =
            [Role::Support, Role::Auditor, Role::Operator].into_iter().collect();
        let roles = self.caller.as_ref().map_or(Roles::NONE, |caller| caller.roles);
        self.method.mutates || roles.intersects(reads_others)
    }

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
        let status = response.headers().get("grpc-status");
        let code = status.map_or(Code::Ok, |value| Code::from_bytes(value.as_bytes()));
        let denied = matches!(code, Code::Unauthenticated | Code::PermissionDenied);
        let named = self.subject.as_ref().is_some_and(|subject| subject.get().is_some());
        if self.method.mutates || denied || named {
            let status = response.extensions().get::<Status>();
            self.record(code, status.map(|status| status.message().to_owned()));
        }
    }

    fn record(&self, code: Code, why: Option<String>) {
        let Some(authenticator) = &self.authenticator else { return };
        authenticator.audit.record(Record {
            at: authenticator.clock.now(),
            caller: self.caller.clone(),
            address: self.address,
            method: self.method.clone(),
            subject: self.subject.clone().unwrap_or_default(),
            code,
            why,
            trace_id: audit::trace_id(),
        });
    }
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
