//! Keeps one connection to another node: dials, says Hello, runs the link, and
//! dials again when it ends.
//!
//! Each try runs in a task of its own: what a peer sends that makes a library
//! panic ends the try and not the dialing.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tonic::{Status, Streaming};
use tonic_prost::ProstDecoder;

use super::asking::{self, Outgoing};
use super::hello::{Cause, HelloRefused};
use super::http::{self, Connection};
use super::network::{DialError, Dialed, Verdict};
use super::outbox::{Outbox, OutboxBody};
use super::peer::Peer;
use super::serve::first;
use super::wire::Encoded;
use super::{LinkEvent, MAX_MESSAGE, Shared};
use crate::backoff::full_jitter;
use crate::proto::cluster::v1 as pb;
use crate::security::mesh::NodeName;
use crate::{chance, clock, task};

/// How long dialing may take, name look-up included.
const DIAL: Duration = Duration::from_secs(3);

/// How long the other side may take to say Hello: it may wait a moment for its
/// membership to know this node.
const HELLO: Duration = Duration::from_secs(3);

/// The first delay between tries, at most.
const BASE: Duration = Duration::from_millis(50);

/// The longest.
const CAP: Duration = Duration::from_secs(1);

/// A link that stood so long was a good one: the next try comes soon.
const GOOD: Duration = Duration::from_secs(2);

/// What a link's response is read with.
pub(super) type Answers = Streaming<pb::LinkResponse>;

/// Why a try ended.
#[derive(Debug)]
enum Ended {
    /// No link was made.
    Never(Problem),
    /// It stood, this long.
    Stood(Duration),
}

#[derive(Debug)]
enum Problem {
    /// Nothing listens there.
    Refused(String),
    /// The two nodes do not belong together.
    Hello(HelloRefused),
    /// Anything else.
    Other(String),
}

/// Dials until the peer is gone.
pub(super) async fn run(shared: Arc<Shared>, peer: Arc<Peer>, connection: u16) {
    let mut attempt = 0;
    loop {
        let tried = task::spawn("link", once(shared.clone(), peer.clone(), connection));
        let running = Aborted(tried.abort_handle());
        let ended = tokio::select! {
            biased;
            () = peer.stopped() => return,
            ended = tried => ended,
        };
        drop(running);
        attempt = match ended {
            Ok(Ended::Stood(time)) if time >= GOOD => 0,
            Ok(Ended::Stood(_)) => attempt + 1,
            Ok(Ended::Never(problem)) => {
                note(&shared, &peer, problem);
                attempt + 1
            }
            // The task has said so.
            Err(_) => attempt + 1,
        };
        tokio::select! {
            biased;
            () = peer.stopped() => return,
            () = sleep(full_jitter(BASE, CAP, attempt, chance::unit())) => {}
        }
    }
}

/// A try that is dropped ends.
struct Aborted(tokio::task::AbortHandle);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tells why there is no link; the log once for each reason.
fn note(shared: &Shared, peer: &Peer, problem: Problem) {
    let node = &peer.info.id;
    let why = match &problem {
        Problem::Refused(why) | Problem::Other(why) => why.clone(),
        Problem::Hello(refused) => {
            shared.metrics.refused(refused.cause);
            refused.to_string()
        }
    };
    let new = peer.failed(&why);
    match problem {
        Problem::Refused(_) => {
            if peer.any_link().is_none() {
                let (node, incarnation) = (node.clone(), peer.info.incarnation.clone());
                let at = clock::since_boot();
                shared.events.tell(LinkEvent::Refused { node, incarnation, at });
            }
            tracing::debug!(node, why, "a dial was refused");
        }
        // One of the two has started or thawed and the other has not seen it yet.
        Problem::Hello(refused) if new && refused.cause == Cause::Incarnation => {
            tracing::info!(node, why, "no link for now");
        }
        Problem::Hello(_) if new => tracing::error!(node, why, "no link: the nodes do not fit"),
        Problem::Other(_) if new => tracing::warn!(node, why, "no link"),
        Problem::Hello(_) | Problem::Other(_) => {}
    }
}

/// One try.
async fn once(shared: Arc<Shared>, peer: Arc<Peer>, connection: u16) -> Ended {
    let dialed = timeout(DIAL, shared.network.dial(&peer.info.id, &peer.info.mesh_address)).await;
    let Dialed { stream, distrusted, verdict } = match dialed {
        Ok(Ok(dialed)) => dialed,
        Ok(Err(DialError::Refused(_))) => {
            let why = format!("nothing listens at {}", peer.info.mesh_address);
            return Ended::Never(Problem::Refused(why));
        }
        Ok(Err(DialError::Identity(why))) => {
            let refused = HelloRefused { cause: Cause::Certificate, why };
            return Ended::Never(Problem::Hello(refused));
        }
        Ok(Err(DialError::Failed(why))) => return Ended::Never(Problem::Other(why)),
        Err(_) => {
            let why = format!("no answer from {}", peer.info.mesh_address);
            return Ended::Never(Problem::Other(why));
        }
    };
    let outbox = Outbox::new(shared.backlog, shared.metrics.backlog.clone());
    let hello = shared.hello(u32::from(connection));
    outbox.push(Encoded::request(pb::request_frame::Frame::Hello(hello)));
    let opening = http::open(stream, OutboxBody::request(outbox.clone()));
    let link = Outgoing::new(&peer, connection, shared.next_generation(), outbox);
    let greeted = timeout(HELLO, async {
        let opened = opening.await.map_err(|error| broken(&error))?;
        greet(&shared, &peer, opened).await
    });
    let (mut answers, rest, _connection) = match greeted.await {
        Ok(Ok(greeted)) => greeted,
        Ok(Err(problem)) => return Ended::Never(judged(problem, &verdict)),
        Err(_) => return Ended::Never(Problem::Other("the other node says no Hello".into())),
    };
    let began = Instant::now();
    let mut standing =
        Standing { shared: &shared, peer: &peer, link: &link, why: "it was ended".into() };
    shared.link_up(&peer, &link);
    if shared.is_draining() {
        link.outbox().push(super::peers::draining());
    }
    standing.why = tokio::select! {
        biased;
        () = distrusted => "its certificate is no longer believed".to_owned(),
        why = asking::run(&shared, &link, rest, &mut answers) => why,
    };
    drop(standing);
    Ended::Stood(began.elapsed())
}

/// A link that stands; it is taken down however its task ends.
struct Standing<'a> {
    shared: &'a Shared,
    peer: &'a Peer,
    link: &'a Arc<Outgoing>,
    why: String,
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.link.outbox().close();
        self.shared.link_down(self.peer, self.link, &self.why);
    }
}

type Greeted = (Answers, Vec<pb::ResponseFrame>, Connection);

/// Reads and judges the other side's Hello; gives what came behind it.
async fn greet(shared: &Shared, peer: &Peer, opened: http::Opened) -> Result<Greeted, Problem> {
    let http::Opened { response, connection } = opened;
    if let Some(status) = Status::from_header_map(response.headers()) {
        return Err(refused(&status));
    }
    if response.status() != ::http::StatusCode::OK {
        return Err(Problem::Other(format!("the other node answers HTTP {}", response.status())));
    }
    let status = response.status();
    let decoder = ProstDecoder::<pb::LinkResponse>::default();
    let mut answers =
        Streaming::new_response(decoder, response.into_body(), status, None, Some(MAX_MESSAGE));
    let message = answers.message().await.map_err(|status| refused(&status))?;
    let mut frames = message.map(|message| message.frames).unwrap_or_default().into_iter();
    let Some(pb::response_frame::Frame::Hello(hello)) = frames.next().and_then(|f| f.frame) else {
        return Err(Problem::Hello(first()));
    };
    let expected = NodeName::One(peer.info.id.as_str().into());
    let timeline = shared.newest_timeline();
    shared.me.check(&hello, &expected, timeline).map_err(Problem::Hello)?;
    if hello.incarnation != peer.info.incarnation {
        let why = "the node that answers is another run than the membership's".to_owned();
        return Err(Problem::Hello(HelloRefused { cause: Cause::Incarnation, why }));
    }
    shared.saw_timeline(hello.timeline);
    Ok((answers, frames.collect(), connection))
}

fn refused(status: &Status) -> Problem {
    match HelloRefused::of(status) {
        Some(refused) => Problem::Hello(refused),
        None => Problem::Other(format!("{}: {}", status.code(), status.message())),
    }
}

/// The other side's view of this node's certificate comes only after the
/// handshake, and HTTP/2 makes something else of it.
fn judged(problem: Problem, verdict: &Verdict) -> Problem {
    match (problem, verdict.refused()) {
        (Problem::Other(_), Some(said)) => {
            let why = format!("the other node refuses this one's: {said}");
            Problem::Hello(HelloRefused { cause: Cause::Certificate, why })
        }
        (problem, _) => problem,
    }
}

/// hyper says the interesting part in the source.
fn broken(error: &hyper::Error) -> Problem {
    Problem::Other(match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    })
}
