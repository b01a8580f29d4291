//! What a chat does, without doing it: frames, commands and time in; frames to
//! write, streams to open or close, and events for the caller out.
//!
//! **Links.** A stream to a node is a *link*. There are at most three. The
//! *current* one takes what is sent. The *next* one is being opened or joins
//! its rooms; it becomes current when it has joined them all, or at once when
//! there is no other. The *old* one has been left and is closed when it has
//! answered what was sent on it.
//!
//! ```text
//!   (none) ──open──▶ next ──all rooms joined, or no current──▶ current
//!                     │                                          │ another became current
//!                     └──lost: try again later                   ▼
//!                                                  closed ◀──── old
//!                                                       last answer
//! ```
//!
//! **Exactly once, in order.** Every room has a cursor, the seq that the caller
//! was last given. Whatever link an entry comes by: the one after the cursor is
//! given and moves it, one at or before it is dropped, and one beyond it means
//! that the link left something out, so that it is closed and the room joined
//! anew from the cursor. A message goes out again until it was answered, under
//! its one id; an answer to what does not wait is dropped.
//!
//! **Bounds.** The caller stops taking commands while [`Core::takes`] is false
//! and stops reading links while events wait.

mod frames;
mod settle;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tonic::{Code, Status};

use super::event::{Event, From, Why};
use super::link::Link;
use super::outbox::{LIMIT, Outbox};
use crate::backoff::full_jitter;
use crate::proto::chat::v1::chat_request::Frame as Ask;
use crate::proto::chat::v1::chat_response::Frame as Tell;
use crate::proto::chat::v1::{Failed, Leave, Send};

/// One stream of this chat; later ones have higher numbers.
pub(super) type LinkId = u64;

/// What the caller asked for and how patient it is.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// Ends after so long without a link that joined, and gives up a room or a
    /// message that was refused for passing reasons for so long; never when absent.
    pub(super) patience: Option<Duration>,
    /// Whether it goes on before any node has answered at all.
    pub(super) insist: bool,
    /// The longest silence before a node is asked whether it is there.
    pub(super) quiet: Duration,
}

/// What is to be done, in order.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    /// Open a stream: at one of these addresses if any can be reached, at one
    /// of the chat's own otherwise, at `avoid` last.
    Open { link: LinkId, prefer: Vec<String>, avoid: Option<String> },
    /// Write a frame.
    Write(LinkId, Ask),
    /// Let a stream go.
    Close(LinkId),
}

/// A room that the caller reads.
#[derive(Debug)]
pub(super) struct Room {
    from: From,
    cursor: Option<u64>,
    /// The caller has left; what it said before is still on its way.
    leaving: bool,
    /// Whether the caller was told that it is joined.
    told: bool,
    /// Since when it cannot be joined, for passing reasons.
    refused_since: Option<Duration>,
}

/// Going to another node while there is a current one.
#[derive(Debug)]
struct Move {
    due: Duration,
    prefer: Vec<String>,
}

/// The state of a chat.
#[derive(Debug)]
pub(super) struct Core {
    settings: Settings,
    chance: fn() -> f64,
    now: Duration,
    pub(super) rooms: BTreeMap<String, Room>,
    pub(super) outbox: Outbox,
    pub(super) links: BTreeMap<LinkId, Link>,
    last: LinkId,
    pub(super) current: Option<LinkId>,
    pub(super) next: Option<LinkId>,
    pub(super) old: Option<LinkId>,
    moving: Option<Move>,
    /// The node that was lost last, until another stream stands: it is tried last.
    left: Option<String>,
    /// Links that failed one after another, since when, and when to try again.
    attempt: u32,
    failing_since: Option<Duration>,
    retry: Duration,
    /// Whether a node has ever taken a stream. One that dies before its first frame
    /// is a node that was lost, not an address where nobody is.
    met: bool,
    ended: bool,
    pub(super) actions: VecDeque<Action>,
    pub(super) events: VecDeque<Event>,
}

impl Core {
    /// A chat of no rooms. `chance` is uniform in [0, 1).
    pub(super) fn new(settings: Settings, chance: fn() -> f64) -> Self {
        Self {
            settings,
            chance,
            now: Duration::ZERO,
            rooms: BTreeMap::new(),
            outbox: Outbox::default(),
            links: BTreeMap::new(),
            last: 0,
            current: None,
            next: None,
            old: None,
            moving: None,
            left: None,
            attempt: 0,
            failing_since: None,
            retry: Duration::ZERO,
            met: false,
            ended: false,
            actions: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Whether another command may come in.
    pub(super) fn takes(&self) -> bool {
        self.outbox.len() < LIMIT
    }

    /// Whether nothing more will come of it.
    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// The caller reads a room. One that is read already goes on as it is.
    pub(super) fn join(&mut self, now: Duration, room: String, from: From) {
        self.now = now;
        let again = match self.rooms.get_mut(&room) {
            Some(there) if !there.leaving => return,
            there => there.is_some(),
        };
        let entered = Room { from, cursor: None, leaving: false, told: false, refused_since: None };
        self.rooms.insert(room.clone(), entered);
        for id in self.reading_links() {
            if again {
                self.write(id, Ask::Leave(Leave { room_id: room.clone() }));
            }
            self.ask_join(id, &room);
        }
        self.settle();
    }

    /// The caller reads a room no more. What it said there is still answered.
    pub(super) fn leave(&mut self, now: Duration, room: &str) {
        self.now = now;
        if let Some(room) = self.rooms.get_mut(room) {
            room.leaving = true;
        }
        self.settle();
    }

    /// The caller says something in a room that it has joined.
    pub(super) fn send(&mut self, now: Duration, send: Send) {
        self.now = now;
        if self.rooms.get(&send.room_id).is_some_and(|room| !room.leaving) {
            self.outbox.push(send);
        } else {
            self.events.push_back(Event::Failed(Failed {
                room_id: send.room_id,
                client_message_id: send.client_message_id,
                code: Code::FailedPrecondition.into(),
                message: "the room was not joined".to_owned(),
                details: Vec::new(),
            }));
        }
        self.settle();
    }

    /// The caller wants to be at one of these nodes rather: as if its own had told
    /// it to move there.
    pub(super) fn go(&mut self, now: Duration, to: Vec<String>) {
        self.now = now;
        let current = self.current.and_then(|id| self.links.get_mut(&id));
        if let Some(link) = current.filter(|link| !to.contains(&link.server)) {
            link.go = Some(now);
            link.go_to = to;
        }
        self.settle();
    }

    /// A stream is open.
    pub(super) fn opened(&mut self, now: Duration, id: LinkId, server: String) {
        self.now = now;
        let Some(link) = self.links.get_mut(&id) else { return };
        link.open(server, now);
        self.met = true;
        let wanted: Vec<String> = self.rooms.keys().cloned().collect();
        for room in wanted {
            self.ask_join(id, &room);
        }
        self.settle();
    }

    /// A stream could not be opened, or is over. `is_final`: another one would
    /// get no further.
    pub(super) fn closed(&mut self, now: Duration, id: LinkId, why: Why, is_final: bool) {
        self.now = now;
        let Some(link) = self.links.remove(&id) else { return };
        if link.is_open() && self.current == Some(id) {
            self.left = Some(link.server);
        }
        self.actions.push_back(Action::Close(id));
        self.outbox.release(id);
        if self.old == Some(id) {
            self.old = None;
        } else if self.current == Some(id) {
            self.current = None;
            if self.next.is_none() {
                self.lost(why, is_final);
            }
        } else if self.next == Some(id) {
            self.next = None;
            match self.current {
                None => self.lost(why, is_final),
                Some(_) => {
                    let due = now + self.delay();
                    self.moving = Some(Move { due, prefer: Vec::new() });
                }
            }
        }
        self.settle();
    }

    /// Nothing was read for a while, because the caller was slow: what the
    /// links said meanwhile is not known.
    pub(super) fn rested(&mut self, now: Duration) {
        self.links.values_mut().for_each(|link| link.heard(now));
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Duration) {
        self.now = now;
        let ids: Vec<LinkId> = self.links.keys().copied().collect();
        for id in ids {
            let busy = self.outbox.is_under_way(id);
            let Some(link) = self.links.get_mut(&id) else { continue };
            for room in link.rejoin_due(now) {
                self.ask_join(id, &room);
            }
            let Some(link) = self.links.get_mut(&id) else { continue };
            if link.is_dead(now) {
                let why = Status::unavailable("the node does not answer");
                self.closed(now, id, Why::Status(why), false);
            } else if let Some(ping) = link.ping(now, busy) {
                self.write(id, Ask::Ping(ping));
            }
        }
        self.settle();
    }

    /// When [`Core::tick`] is due.
    pub(super) fn wake_at(&self) -> Option<Duration> {
        let links = self.links.iter();
        let links = links.filter_map(|(id, link)| link.wake_at(self.outbox.is_under_way(*id)));
        let opening = self.next.is_none() && !self.rooms.is_empty();
        // Without a current link a move waits for the next try, as the try does.
        let (moving, retry) = match self.current {
            Some(_) => (self.moving.as_ref().map(|going| going.due), None),
            None => (None, Some(self.retry)),
        };
        let moving = moving.filter(|_| opening);
        let retry = retry.filter(|_| opening);
        links.chain(retry).chain(moving).chain(self.outbox.wake_at(self.now)).min()
    }

    /// A frame came on a stream.
    pub(super) fn frame(&mut self, now: Duration, id: LinkId, frame: Tell) {
        self.now = now;
        let Some(link) = self.links.get_mut(&id) else { return };
        link.heard(now);
        if !matches!(frame, Tell::Pong(_)) {
            link.spoke(now);
        }
        match frame {
            Tell::Joined(joined) => self.joined(id, joined),
            Tell::Message(message) => self.message(id, message),
            Tell::Sent(sent) => {
                if self.outbox.answered(&sent.room_id, &sent.client_message_id) {
                    self.events.push_back(Event::Sent(sent));
                }
            }
            Tell::Failed(failed) => self.failed(id, failed),
            Tell::Notice(notice) => self.notice(id, notice),
            Tell::Pong(_) => {}
        }
        self.settle();
    }
}

/// Between 20 ms and 3 s.
fn backoff(attempt: u32, chance: fn() -> f64) -> Duration {
    let (base, cap) = (Duration::from_millis(100), Duration::from_secs(3));
    full_jitter(base, cap, attempt, chance()).max(Duration::from_millis(20))
}
