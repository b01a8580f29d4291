//! The layer that finds out who calls.
//!
//! It looks at the connection's certificate, the `authorization` header and
//! `simpul-on-behalf-of`, and puts [`Authenticated`] into the request's
//! extensions. It refuses bad proof even where none is needed: a caller who
//! believes to be known must learn that it is not. Whether a proven caller may
//! go on is the authorize layer's to say.
//!
//! A known token costs a look into a table and a look at the clock; nothing is
//! allocated for the usual unary call.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime};

use http::{HeaderMap, Request, Response, header};
use pin_project_lite::pin_project;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tonic::Status;
use tower::{Layer, Service};

use super::audit::{AuditLog, AuditSubject, Record};
use super::belief::Belief;
use super::connection::{Connection, PeerCertificate};
use super::failures::Failures;
use super::permit::{Caller, Reauthenticator, Renewed, Validity};
use super::policy::{Method, Policy};
use super::proof::{Delegation, Presented, Proven};
use super::token::{Tokens, Verified};
use crate::clock::Clock;
use crate::principal::Principal;
use crate::refusal::{Reason, Refusal};
use crate::trace_context;

/// The metadata in which a service names the user for whom it acts.
pub const ON_BEHALF_OF: &str = "simpul-on-behalf-of";

/// Denied calls by reason.
pub(super) type Denials = Family<[(&'static str, &'static str); 1], Counter>;

/// Who calls which method, before it is decided whether that is allowed.
#[derive(Debug, Clone)]
pub struct Authenticated {
    pub(super) method: Option<Arc<Method>>,
    pub(super) proven: Option<(Arc<Caller>, Validity)>,
}

impl Authenticated {
    /// The proven caller; `None` for one without proof.
    pub fn principal(&self) -> Option<&Principal> {
        self.proven.as_ref().map(|(caller, _)| &caller.principal)
    }

    /// The method; `None` when there is no such.
    pub fn method(&self) -> Option<&Method> {
        self.method.as_deref()
    }
}

/// What the layer decides with.
#[derive(Debug)]
pub(super) struct Authenticator {
    pub(super) policy: Arc<Policy>,
    pub(super) tokens: Tokens,
    pub(super) delegation: Delegation,
    pub(super) failures: Failures,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) audit: Arc<AuditLog>,
    pub(super) denials: Denials,
}

impl Authenticator {
    fn authenticate<B>(
        self: &Arc<Self>,
        method: Option<&Arc<Method>>,
        request: &Request<B>,
    ) -> Result<Authenticated, Refusal> {
        let connection = request.extensions().get::<Connection>();
        let certificate = connection.and_then(|connection| connection.certificate.as_ref());
        let address = address(connection);
        let belief = connection.and_then(|connection| connection.belief.as_ref());
        if belief.is_some_and(Belief::is_withdrawn) {
            let rule = "the client certificate is no longer believed";
            return Err(Refusal::new(Reason::CertificateInvalid, rule));
        }
        let token = match bearer(request.headers())? {
            Some(token) => Some(self.token(token, address)?),
            None => None,
        };
        let on_behalf_of = on_behalf_of(request.headers())?;
        let method = method.cloned();
        let streams = method.as_ref().is_some_and(|method| method.streams);
        let now = self.clock.now();
        if let (Some(token), None, None, false) = (&token, certificate, on_behalf_of, streams)
            && token.bound_to.is_none()
        {
            token.check(now)?;
            let proven = Some((token.caller.clone(), token.validity.clone()));
            return Ok(Authenticated { method, proven });
        }
        let presented = Presented {
            token: token.as_deref(),
            certificate: certificate.map(Arc::as_ref),
            on_behalf_of,
        };
        let Some(proven) = self.prove(&presented, now, address)? else {
            return Ok(Authenticated { method, proven: None });
        };
        let Some(token) = token else {
            let validity = Validity::until_certificate_ends(proven.expires_at)
                .resting_on(None, belief.cloned());
            return Ok(Authenticated { method, proven: Some((proven.caller, validity)) });
        };
        let again = streams.then(|| {
            let again = Again {
                authenticator: self.clone(),
                certificate: certificate.cloned(),
                on_behalf_of: on_behalf_of.map(Box::from),
                address,
            };
            Arc::new(again) as Arc<dyn Reauthenticator>
        });
        let validity = Validity::until(proven.expires_at, again)
            .resting_on(token.key.clone(), belief.cloned());
        Ok(Authenticated { method, proven: Some((proven.caller, validity)) })
    }

    /// A token whose signature is right. An address that failed too often is
    /// refused before a signature is looked at.
    fn token(&self, token: &[u8], address: IpAddr) -> Result<Arc<Verified>, Refusal> {
        if let Some(known) = self.tokens.known(token) {
            return Ok(known);
        }
        self.failures.check(address, Instant::now())?;
        self.tokens.verify(token).inspect_err(|_| self.failures.note(address, Instant::now()))
    }

    fn prove(
        &self,
        presented: &Presented<'_>,
        now: SystemTime,
        address: IpAddr,
    ) -> Result<Option<Proven>, Refusal> {
        self.delegation.prove(presented, now).inspect_err(|refusal| {
            if refusal.reason == Reason::ProofMismatch {
                self.failures.note(address, Instant::now());
            }
        })
    }

    /// Counts a refused proof and records it.
    fn refused(&self, method: Option<&Arc<Method>>, address: Option<IpAddr>, refusal: &Refusal) {
        self.denials.get_or_create(&[("reason", refusal.reason.as_str())]).inc();
        let Some(method) = method.filter(|method| method.audited) else { return };
        tracing::debug!(method = %method.path, rule = %method.rule, %refusal, "proof refused");
        self.audit.record(Record {
            at: self.clock.now(),
            caller: None,
            address,
            method: method.clone(),
            frame: None,
            subject: AuditSubject::default(),
            code: refusal.reason.code(),
            why: Some(refusal.to_string()),
            trace_id: trace_context::trace_id(),
        });
    }
}

/// A stream's way to go on with a fresh token, beside what it began with.
#[derive(Debug)]
struct Again {
    authenticator: Arc<Authenticator>,
    certificate: Option<Arc<PeerCertificate>>,
    on_behalf_of: Option<Box<str>>,
    address: IpAddr,
}

impl Reauthenticator for Again {
    fn reauthenticate(&self, caller: &Caller, token: &str) -> Result<Renewed, Refusal> {
        let authenticator = &self.authenticator;
        let token = authenticator.token(token.as_bytes(), self.address)?;
        let presented = Presented {
            token: Some(&token),
            certificate: self.certificate.as_deref(),
            on_behalf_of: self.on_behalf_of.as_deref(),
        };
        let now = authenticator.clock.now();
        let proven = authenticator.prove(&presented, now, self.address)?;
        let mismatch = |rule: &str| Refusal::new(Reason::ProofMismatch, rule);
        let proven = proven.ok_or_else(|| mismatch("the token proves nobody"))?;
        let fresh = &proven.caller;
        if fresh.principal != caller.principal || fresh.acting_service != caller.acting_service {
            return Err(mismatch("the token is for another caller than the stream's"));
        }
        // The stream was authorized by the roles that it began with.
        if fresh.roles.intersection(caller.roles) != caller.roles {
            return Err(mismatch("the token lacks roles with which the stream began"));
        }
        Ok(Renewed { expires_at: proven.expires_at, key: token.key.clone() })
    }
}

fn address(connection: Option<&Connection>) -> IpAddr {
    let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    connection.map_or(unknown, |connection| connection.remote.ip())
}

/// The bearer token, if there is an `authorization` header; there may be one.
fn bearer(headers: &HeaderMap) -> Result<Option<&[u8]>, Refusal> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        let rule = "there must be one authorization header at most";
        return Err(Refusal::new(Reason::TokenInvalid, rule));
    }
    match value.as_bytes().split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => Ok(Some(token)),
        _ => {
            let rule = "the authorization header must be `Bearer` and a token";
            Err(Refusal::new(Reason::TokenInvalid, rule))
        }
    }
}

fn on_behalf_of(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut given = headers.get_all(ON_BEHALF_OF).iter();
    let Some(value) = given.next() else { return Ok(None) };
    match (value.to_str(), given.next()) {
        (Ok(text), None) => Ok(Some(text)),
        _ => {
            let rule = "simpul-on-behalf-of must be there once, as text";
            Err(Refusal::new(Reason::DelegationDenied, rule))
        }
    }
}

/// Makes [`Authenticate`].
#[derive(Debug, Clone)]
pub struct AuthenticateLayer {
    pub(super) authenticator: Arc<Authenticator>,
}

impl<S> Layer<S> for AuthenticateLayer {
    type Service = Authenticate<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Authenticate { inner, authenticator: self.authenticator.clone() }
    }
}

/// Finds out who calls.
#[derive(Debug, Clone)]
pub struct Authenticate<S> {
    inner: S,
    authenticator: Arc<Authenticator>,
}

impl<S, B, ResBody> Service<Request<B>> for Authenticate<S>
where
    S: Service<Request<B>, Response = Response<ResBody>, Error = Infallible>,
    ResBody: Default,
{
    type Response = Response<ResBody>;
    type Error = Infallible;
    type Future = ResponseFuture<S::Future, ResBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let authenticator = &self.authenticator;
        let method = authenticator.policy.find(request.uri().path());
        match authenticator.authenticate(method, &request) {
            Ok(authenticated) => {
                request.extensions_mut().insert(authenticated);
                ResponseFuture { state: State::Inner { future: self.inner.call(request) } }
            }
            Err(refusal) => {
                let remote = request.extensions().get::<Connection>().map(|c| c.remote.ip());
                authenticator.refused(method, remote, &refusal);
                let response = Some(Status::from(refusal).into_http());
                ResponseFuture { state: State::Refused { response } }
            }
        }
    }
}

pin_project! {
    /// The response of [`Authenticate`].
    #[derive(Debug)]
    pub struct ResponseFuture<F, ResBody> {
        #[pin]
        state: State<F, ResBody>,
    }
}

pin_project! {
    #[project = StateProjection]
    #[derive(Debug)]
    enum State<F, ResBody> {
        // The caller is known, or gave no proof.
        Inner { #[pin] future: F },
        // The proof is bad. The response is taken when polled.
        Refused { response: Option<Response<ResBody>> },
    }
}

impl<F, ResBody> Future for ResponseFuture<F, ResBody>
where
    F: Future<Output = Result<Response<ResBody>, Infallible>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Inner { future } => future.poll(cx),
            StateProjection::Refused { response } => match response.take() {
                Some(response) => Poll::Ready(Ok(response)),
                None => Poll::Pending,
            },
        }
    }
}
