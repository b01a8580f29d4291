//! From a path to its service.
//!
//! In place of tonic's router, which goes through a general HTTP router and
//! boxes each body twice more: here a call costs one hash look-up, since the
//! canonical layer has let only exact paths through. A single method may be
//! served apart from its generated service (`Chat` is).

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use crate::path::PathMap;
use crate::refusal::{Reason, Refusal};
use crate::traffic::reply::refused;

/// The future of a routed call.
pub type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

trait Route: Send + Sync {
    fn call(&self, request: Request<Body>) -> Answer;
}

/// A generated service: its future is boxed already.
struct Generated<S>(S);

impl<S> Route for Generated<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future = Answer>,
    S: Clone + Send + Sync + 'static,
{
    fn call(&self, request: Request<Body>) -> Answer {
        self.0.clone().call(request)
    }
}

/// One method's handler.
struct Apart<S>(S);

impl<S> Route for Apart<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    fn call(&self, request: Request<Body>) -> Answer {
        Box::pin(self.0.clone().call(request))
    }
}

/// Collects what [`Routes`] serves.
#[derive(Default)]
pub struct Builder {
    services: PathMap<&'static str, Box<dyn Route>>,
    methods: PathMap<&'static str, Box<dyn Route>>,
}

impl Builder {
    /// Mounts a generated service under its name.
    #[must_use]
    pub fn service<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future = Answer>,
        S: NamedService + Clone + Send + Sync + 'static,
    {
        self.services.insert(S::NAME, Box::new(Generated(service)));
        self
    }

    /// Serves one path by a handler of its own, before any service.
    #[must_use]
    pub fn method<S>(mut self, path: &'static str, handler: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
        S: Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        self.methods.insert(path, Box::new(Apart(handler)));
        self
    }

    /// The names of the mounted services, in order.
    pub fn names(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.services.keys().copied().collect();
        names.sort_unstable();
        names
    }

    /// Done.
    pub fn build(self) -> Routes {
        Routes { table: Arc::new(self) }
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("services", &self.names())
            .field("methods", &self.methods.keys())
            .finish()
    }
}

/// The mounted services, as one.
#[derive(Debug, Clone)]
pub struct Routes {
    table: Arc<Builder>,
}

impl Routes {
    /// Nothing yet.
    pub fn builder() -> Builder {
        Builder::default()
    }

    fn find(&self, path: &str) -> Option<&dyn Route> {
        if let Some(method) = self.table.methods.get(path) {
            return Some(method.as_ref());
        }
        let (service, _) = path.strip_prefix('/')?.split_once('/')?;
        self.table.services.get(service).map(AsRef::as_ref)
    }
}

impl Service<Request<Body>> for Routes {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        match self.find(request.uri().path()) {
            Some(route) => route.call(request),
            None => {
                let refusal = Refusal::new(Reason::UnknownMethod, "no such service");
                Box::pin(ready(Ok(refused(refusal))))
            }
        }
    }
}
