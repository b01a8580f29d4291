//! The task of a chat: carries frames between the core and its streams. Thin:
//! every decision is the core's.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Status;

use super::core::{Action, Core, LinkId};
use super::event::{Event, From, Why};
use super::open::{Found, Open, OpenError, Opened, anywhere, is_final};
use crate::proto::chat::v1::chat_request::Frame as Ask;
use crate::proto::chat::v1::{ChatRequest, ChatResponse, Reauthenticate, Send};

/// Events that may wait before reading stops.
const WAITING: usize = 64;

/// Frames that are read while a timer is due. What has arrived is taken before a
/// node is judged by its silence, but not for ever: a stream that always has
/// something would hold up every other one.
const OVERDUE: usize = 64;

/// What the caller asked for.
#[derive(Debug)]
pub(super) enum Command {
    Join(String, From),
    Leave(String),
    Send(Send),
    Go(Vec<String>),
}

/// A stream and the way to write to it.
struct Wire {
    frames: mpsc::Sender<ChatRequest>,
    opened: Opened,
}

/// What a stream brought; it lives for one turn of the loop.
#[allow(clippy::large_enum_variant)]
enum Brought {
    Frame(Option<Result<ChatResponse, Status>>),
    Token(SecretString),
}

/// The task's state.
pub(super) struct Driver {
    pub(super) core: Core,
    pub(super) opener: Arc<dyn Open>,
    pub(super) chance: fn() -> f64,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) events: mpsc::Sender<Event>,
    wires: BTreeMap<LinkId, Wire>,
    opening: Option<(LinkId, BoxFuture<'static, Result<Found, OpenError>>)>,
    began: Instant,
    /// Which stream is read first, so that a loud one drowns none.
    turn: usize,
}

impl Driver {
    pub(super) fn new(
        core: Core,
        opener: Arc<dyn Open>,
        chance: fn() -> f64,
        commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<Event>,
    ) -> Self {
        Self {
            core,
            opener,
            chance,
            commands,
            events,
            wires: BTreeMap::new(),
            opening: None,
            began: Instant::now(),
            turn: 0,
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Runs until the caller drops its events, or the chat has ended.
    pub(super) async fn run(mut self) {
        let mut commanded = true;
        let mut rested = false;
        let mut overdue = 0;
        let events = self.events.clone();
        loop {
            self.act();
            let quiet = self.core.events.is_empty();
            if quiet && self.core.is_ended() {
                return;
            }
            // A slow caller slows the reading, and what is not read is not judged.
            let reads = self.core.events.len() < WAITING && !self.core.is_ended();
            if reads && std::mem::take(&mut rested) {
                self.core.rested(self.now());
            }
            rested |= !reads;
            let wake = self.core.wake_at().filter(|_| reads);
            let wake = wake.map(|at| self.began + at);
            let takes = commanded && reads && self.core.takes();
            let due = wake.is_some_and(|at| at <= Instant::now());
            overdue = if due { overdue } else { 0 };
            if overdue >= OVERDUE {
                overdue = 0;
                self.core.tick(self.now());
                continue;
            }
            tokio::select! {
                biased;
                place = events.reserve(), if !quiet => match place {
                    Ok(place) => if let Some(event) = self.core.events.pop_front() {
                        place.send(event);
                    },
                    Err(_) => return,
                },
                found = opened(&mut self.opening) => self.found(found),
                command = self.commands.recv(), if takes => match command {
                    Some(command) => self.command(command),
                    None => commanded = false,
                },
                (id, brought) = brought(&mut self.wires, &mut self.turn), if reads => {
                    overdue += usize::from(due);
                    self.brought(id, brought);
                }
                () = sleep_until(wake) => {
                    let now = self.now();
                    self.core.tick(now);
                }
                () = events.closed() => return,
            }
        }
    }

    fn command(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::Join(room, from) => self.core.join(now, room, from),
            Command::Leave(room) => self.core.leave(now, &room),
            Command::Send(send) => self.core.send(now, send),
            Command::Go(to) => self.core.go(now, to),
        }
    }

    fn found(&mut self, (id, found): (LinkId, Result<Found, OpenError>)) {
        self.opening = None;
        let now = self.now();
        match found {
            Ok((server, frames, opened)) => {
                self.wires.insert(id, Wire { frames, opened });
                self.core.opened(now, id, server.to_string());
            }
            Err(OpenError { why, is_final }) => self.core.closed(now, id, why, is_final),
        }
    }

    fn brought(&mut self, id: LinkId, brought: Brought) {
        let now = self.now();
        match brought {
            Brought::Frame(Some(Ok(response))) => {
                if let Some(frame) = response.frame {
                    self.core.frame(now, id, frame);
                }
            }
            Brought::Frame(Some(Err(status))) => {
                let last = is_final(&status);
                self.core.closed(now, id, Why::Status(status), last);
            }
            Brought::Frame(None) => {
                let why = Status::unavailable("the node ended the stream");
                self.core.closed(now, id, Why::Status(why), false);
            }
            Brought::Token(token) => {
                let token = token.expose_secret().trim().to_owned();
                self.write(id, Ask::Reauthenticate(Reauthenticate { token }));
            }
        }
    }

    /// Does what the core wants done.
    fn act(&mut self) {
        while let Some(action) = self.core.actions.pop_front() {
            match action {
                Action::Open { link, prefer, avoid } => {
                    let opening = anywhere(self.opener.clone(), prefer, avoid, (self.chance)());
                    self.opening = Some((link, Box::pin(opening)));
                }
                Action::Write(id, frame) => self.write(id, frame),
                Action::Close(id) => {
                    self.wires.remove(&id);
                    self.opening.take_if(|(opening, _)| *opening == id);
                }
            }
        }
    }

    fn write(&mut self, id: LinkId, frame: Ask) {
        let Some(wire) = self.wires.get(&id) else { return };
        if wire.frames.try_send(ChatRequest { frame: Some(frame) }).is_err() {
            let why = Status::unavailable("the connection takes no more");
            let now = self.now();
            self.core.closed(now, id, Why::Status(why), false);
        }
    }
}

/// Waits for the stream that is being opened; for ever when none is. Cancel
/// safe: the opening goes on with the next call.
async fn opened(
    opening: &mut Option<(LinkId, BoxFuture<'static, Result<Found, OpenError>>)>,
) -> (LinkId, Result<Found, OpenError>) {
    match opening {
        Some((id, opening)) => {
            let found = opening.await;
            (*id, found)
        }
        None => std::future::pending().await,
    }
}

/// What any stream brings next; for ever when there is none. Cancel safe.
async fn brought(wires: &mut BTreeMap<LinkId, Wire>, turn: &mut usize) -> (LinkId, Brought) {
    *turn = turn.wrapping_add(1);
    let turn = *turn;
    std::future::poll_fn(|cx| {
        let count = wires.len();
        for at in super::super::servers::around(turn, count) {
            let Some((id, wire)) = wires.iter_mut().nth(at) else { continue };
            if let Poll::Ready(Some(token)) = wire.opened.tokens.poll_next_unpin(cx) {
                return Poll::Ready((*id, Brought::Token(token)));
            }
            if let Poll::Ready(frame) = wire.opened.incoming.poll_next_unpin(cx) {
                return Poll::Ready((*id, Brought::Frame(frame)));
            }
        }
        Poll::Pending
    })
    .await
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
