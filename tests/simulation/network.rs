//! Streams over the simulated network: for links, for chat, for people.

use std::convert::Infallible;
use std::future::Future;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use hyper_util::rt::{TokioIo, TokioTimer};
use simpul::chat::ChatRoute;
use simpul::clock::{Clock, System};
use simpul::cluster::link::network::{DialError, Dialed, Network, Verdict};
use simpul::principal::{Principal, Roles};
use simpul::security::permit::{Caller, Permit, Proof, Validity};
use simpul::task;
use tonic::body::Body;
use turmoil::net::{TcpListener, TcpStream};

/// Where people connect.
pub(crate) const PUBLIC: u16 = 7443;
/// Where nodes connect.
pub(crate) const MESH: u16 = 7444;
/// Who calls: proven by nothing here.
pub(crate) const WHO: &str = "x-who";

pub(crate) fn principal(name: &str) -> Principal {
    format!("user/{name}@sim").parse().expect("a principal")
}

/// Dials over the simulated network.
#[derive(Debug)]
pub(crate) struct Wires;

#[async_trait]
impl Network for Wires {
    async fn dial(&self, _node: &str, address: &str) -> Result<Dialed, DialError> {
        let dialing = TcpStream::connect(address.to_owned());
        let stream = tokio::time::timeout(Duration::from_secs(1), dialing)
            .await
            .map_err(|_| DialError::Failed("no answer".to_owned()))?
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::ConnectionRefused => DialError::Refused(address.to_owned()),
                _ => DialError::Failed(error.to_string()),
            })?;
        Ok(Dialed {
            stream: Box::new(stream),
            distrusted: Box::pin(std::future::pending()),
            verdict: Verdict::default(),
        })
    }
}

/// Accepts for ever; each stream is served by a task.
pub(crate) async fn accept<F, S>(port: u16, serve: F) -> turmoil::Result
where
    F: Fn(TcpStream) -> S,
    S: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(("0.0.0.0", port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        task::spawn("connection", serve(stream));
    }
}

/// What hyper spawns belongs to the simulated process too.
#[derive(Debug, Clone)]
struct Tasks;

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        drop(task::spawn("http", future));
    }
}

/// Serves chat on one stream; the caller is whoever it says it is.
pub(crate) async fn chat<S>(route: ChatRoute<S>, stream: TcpStream)
where
    S: tower::Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let service =
        hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let mut request = request.map(Body::new);
            let who = request.headers().get(WHO).and_then(|who| who.to_str().ok());
            if let Some(who) = who.map(principal) {
                request.extensions_mut().insert(permit(who));
            }
            tower::Service::call(&mut route.clone(), request)
        });
    let connection = hyper::server::conn::http2::Builder::new(Tasks)
        .auto_date_header(false)
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(1))
        .keep_alive_timeout(Duration::from_secs(1))
        .serve_connection(TokioIo::new(stream), service);
    // It ends with the connection, however that ends.
    let _ = connection.await;
}

fn permit(principal: Principal) -> Permit {
    let caller =
        Caller { principal, roles: Roles::NONE, acting_service: None, proof: Proof::Token };
    let end: SystemTime = System.now() + Duration::from_secs(86_400);
    Permit::new(caller, Validity::until(end, None))
}
