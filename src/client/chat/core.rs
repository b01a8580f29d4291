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

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::event::{Event, From, Why, status_of};
use super::link::{Link, Stage};
use super::outbox::{LIMIT, Outbox};
use crate::backoff::full_jitter;
use crate::proto::chat::v1::chat_request::Frame as Ask;
use crate::proto::chat::v1::chat_response::Frame as Tell;
use crate::proto::chat::v1::{
    Failed, Join, Joined, Leave, Message, Notice, NoticeKind, Send, join,
};

/// One stream of this chat; later ones have higher numbers.
pub(super) type LinkId = u64;

/// What the caller asked for and how patient it is.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// Ends after so long without a link that joined; never when absent.
    pub(super) patience: Option<Duration>,
    /// Whether it goes on before any node has answered at all.
    pub(super) insist: bool,
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
    /// Links that failed one after another, since when, and when to try again.
    attempt: u32,
    failing_since: Option<Duration>,
    retry: Duration,
    /// Whether a node has ever answered.
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
        self.rooms.insert(room.clone(), Room { from, cursor: None, leaving: false, told: false });
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

    /// A stream is open.
    pub(super) fn opened(&mut self, now: Duration, id: LinkId, server: String) {
        self.now = now;
        let Some(link) = self.links.get_mut(&id) else { return };
        link.open(server, now);
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
        if self.links.remove(&id).is_none() {
            return;
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
        let retry = (opening && self.current.is_none()).then_some(self.retry);
        let moving = self.moving.as_ref().filter(|_| opening).map(|going| going.due);
        links.chain(retry).chain(moving).chain(self.outbox.wake_at(self.now)).min()
    }

    /// A frame came on a stream.
    pub(super) fn frame(&mut self, now: Duration, id: LinkId, frame: Tell) {
        self.now = now;
        let Some(link) = self.links.get_mut(&id) else { return };
        link.heard(now);
        self.met = true;
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

    fn joined(&mut self, id: LinkId, joined: Joined) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.begin();
        let Some(stage) = link.answered_join(&joined.room_id) else { return };
        let Some(room) = self.rooms.get_mut(&joined.room_id) else { return };
        if room.cursor.is_some_and(|cursor| joined.cursor > cursor) {
            // Another link said first where reading begins.
            self.ask_join(id, &joined.room_id);
            return;
        }
        room.cursor.get_or_insert(joined.cursor);
        *stage = Stage::Joined;
        self.attempt = 0;
        self.failing_since = None;
        let again = std::mem::replace(&mut room.told, true);
        // A move is none of the caller's business.
        if !room.leaving && (!again || self.current == Some(id)) {
            self.events.push_back(Event::Joined { joined, again });
        }
    }

    fn message(&mut self, id: LinkId, message: Message) {
        let joined = self.links.get(&id).is_some_and(|link| link.has_joined(&message.room_id));
        let Some(room) = self.rooms.get_mut(&message.room_id).filter(|_| joined) else { return };
        let cursor = room.cursor.unwrap_or_default();
        if message.seq <= cursor {
            return;
        }
        if message.seq > cursor.saturating_add(1) {
            let why = Status::data_loss("the node left out entries of a room");
            self.closed(self.now, id, Why::Status(why), false);
            return;
        }
        room.cursor = Some(message.seq);
        if !room.leaving {
            self.events.push_back(Event::Message(message));
        }
    }

    fn failed(&mut self, id: LinkId, failed: Failed) {
        let status = status_of(&failed);
        let passing = is_passing(status.code());
        if !failed.client_message_id.is_empty() {
            return self.message_failed(id, failed, &status, passing);
        }
        if failed.room_id.is_empty() {
            // About the stream itself: a token that was refused.
            if !passing {
                self.events.push_back(Event::Failed(failed));
            }
            return;
        }
        let reason = status.get_details_error_info().map(|info| info.reason);
        if matches!(reason.as_deref(), Some("NOT_JOINED" | "JOIN_FIRST")) {
            // The answer to a Leave that came too late.
            return;
        }
        let told = status.get_details_retry_info().and_then(|info| info.retry_delay);
        let again = self.now + told.unwrap_or_default().max(backoff(2, self.chance));
        let Some(link) = self.links.get_mut(&id) else { return };
        let Some(stage) = link.answered_join(&failed.room_id) else { return };
        if passing {
            *stage = Stage::Again(again);
        } else {
            *stage = Stage::Refused;
            self.refused_room(failed);
        }
    }

    /// A room may not be read: what was said there is not sent either.
    fn refused_room(&mut self, failed: Failed) {
        self.rooms.remove(&failed.room_id);
        for id in self.outbox.remove_room(&failed.room_id) {
            self.events
                .push_back(Event::Failed(Failed { client_message_id: id, ..failed.clone() }));
        }
        for id in self.reading_links() {
            self.drop_room(id, &failed.room_id);
        }
        self.events.push_back(Event::Refused(failed));
    }

    fn message_failed(&mut self, id: LinkId, failed: Failed, status: &Status, passing: bool) {
        let (room, message) = (&failed.room_id, &failed.client_message_id);
        if passing {
            let Some((times, since)) = self.outbox.refused(id, room, message, self.now) else {
                return;
            };
            let patience = self.settings.patience.unwrap_or(Duration::MAX);
            if self.now.saturating_sub(since) < patience {
                let told = status.get_details_retry_info().and_then(|info| info.retry_delay);
                let wait = backoff(times.saturating_sub(1), self.chance);
                let until = self.now + told.unwrap_or_default().max(wait);
                self.outbox.postpone(room, message, until);
                return;
            }
        }
        if self.outbox.answered(room, message) {
            self.events.push_back(Event::Failed(failed));
        }
    }

    fn notice(&mut self, id: LinkId, notice: Notice) {
        let kind = notice.kind();
        let draining = kind == NoticeKind::Draining;
        if !draining && kind != NoticeKind::Move {
            if self.next != Some(id) {
                self.events.push_back(Event::Notice(notice));
            }
            return;
        }
        if self.next == Some(id) && draining && self.current.is_some() {
            let why = Status::unavailable("the node is stopping");
            return self.closed(self.now, id, Why::Status(why), false);
        }
        let Some(link) = self.links.get_mut(&id) else { return };
        let jitter = notice.jitter.and_then(|jitter| Duration::try_from(jitter).ok());
        let wait = jitter.unwrap_or_default().mul_f64((self.chance)().clamp(0.0, 1.0));
        link.go = Some(self.now + if draining { Duration::ZERO } else { wait });
        link.go_to = notice.addresses.clone();
        if draining && self.current == Some(id) {
            self.events.push_back(Event::Notice(notice));
        }
    }

    /// No link is left, and none is on its way.
    fn lost(&mut self, why: Why, is_final: bool) {
        if self.rooms.is_empty() {
            // Nobody needs one.
            return;
        }
        let since = *self.failing_since.get_or_insert(self.now);
        let waited = self.now.saturating_sub(since);
        let over = self.settings.patience.is_some_and(|patience| waited >= patience);
        if is_final || over || !(self.met || self.settings.insist) {
            self.ended = true;
            let unanswered = self.outbox.len();
            self.events.push_back(Event::Ended { why, unanswered });
        } else {
            self.retry = self.now + self.delay();
            self.events.push_back(Event::Lost(why));
        }
    }

    /// How long to wait before the next try, longer each time.
    fn delay(&mut self) -> Duration {
        let delay = backoff(self.attempt, self.chance);
        self.attempt = self.attempt.saturating_add(1);
        delay
    }

    /// Does whatever has become possible.
    fn settle(&mut self) {
        if self.ended {
            return;
        }
        self.depart();
        self.open();
        self.promote();
        if let Some(old) = self.old
            && !self.outbox.is_under_way(old)
        {
            self.old = None;
            self.links.remove(&old);
            self.actions.push_back(Action::Close(old));
        }
        self.pump();
    }

    /// Takes rooms off that were left and have nothing on its way.
    fn depart(&mut self) {
        let gone = |(name, room): (&String, &Room)| {
            (room.leaving && !self.outbox.has_room(name)).then(|| name.clone())
        };
        let gone: Vec<String> = self.rooms.iter().filter_map(gone).collect();
        for name in gone {
            self.rooms.remove(&name);
            for id in self.reading_links() {
                if self.drop_room(id, &name) {
                    self.write(id, Ask::Leave(Leave { room_id: name.clone() }));
                }
            }
        }
    }

    fn open(&mut self) {
        if self.next.is_some() || self.rooms.is_empty() {
            return;
        }
        let current = self.current.and_then(|id| self.links.get_mut(&id));
        let (prefer, avoid) = match current {
            None if self.now >= self.retry => {
                let prefer = self.moving.take().map(|going| going.prefer);
                (prefer.unwrap_or_default(), None)
            }
            None => return,
            Some(link) => {
                if let Some(due) = link.go.take() {
                    let prefer = std::mem::take(&mut link.go_to);
                    self.moving = Some(Move { due, prefer });
                }
                let Some(going) = self.moving.take_if(|going| going.due <= self.now) else {
                    return;
                };
                (going.prefer, Some(link.server.clone()))
            }
        };
        self.last += 1;
        self.links.insert(self.last, Link::new(self.now));
        self.next = Some(self.last);
        self.actions.push_back(Action::Open { link: self.last, prefer, avoid });
    }

    fn promote(&mut self) {
        let Some(id) = self.next else { return };
        let Some(link) = self.links.get(&id).filter(|link| link.is_open()) else { return };
        let ready = self.rooms.keys().all(|room| link.has_joined(room));
        if !ready && self.current.is_some() {
            return;
        }
        let server = link.server.clone();
        self.next = None;
        if let Some(before) = self.current.replace(id) {
            self.events.push_back(Event::Moved { server });
            if let Some(older) = self.old.replace(before) {
                // It has had its time.
                self.outbox.release(older);
                self.links.remove(&older);
                self.actions.push_back(Action::Close(older));
            }
            if let Some(link) = self.links.get_mut(&before) {
                link.retire(self.now);
            }
        } else {
            self.events.push_back(Event::Connected { server });
        }
    }

    fn pump(&mut self) {
        let Some(id) = self.current else { return };
        let now = self.now;
        loop {
            let busy = self.outbox.is_under_way(id);
            let Some(link) = self.links.get_mut(&id) else { return };
            let Some(send) = self.outbox.next(id, now, |room| link.has_joined(room)) else {
                return;
            };
            if !busy {
                link.asked(now);
            }
            self.actions.push_back(Action::Write(id, Ask::Send(send)));
        }
    }

    /// The links that read rooms: not the old one.
    fn reading_links(&self) -> Vec<LinkId> {
        let ids = self.current.into_iter().chain(self.next);
        ids.filter(|id| self.links.get(id).is_some_and(Link::is_open)).collect()
    }

    fn drop_room(&mut self, id: LinkId, room: &str) -> bool {
        self.links.get_mut(&id).is_some_and(|link| link.forget(room))
    }

    fn ask_join(&mut self, id: LinkId, name: &str) {
        let Some(room) = self.rooms.get(name) else { return };
        let from = match (room.cursor, room.from) {
            (Some(cursor), _) | (None, From::Cursor(cursor)) => join::From::Cursor(cursor),
            (None, From::Earliest) => join::From::Earliest(true),
            (None, From::Latest) => join::From::Latest(true),
            (None, From::Last(n)) => join::From::LastN(n),
        };
        let Some(link) = self.links.get_mut(&id) else { return };
        link.asked_join(name, self.now);
        self.write(id, Ask::Join(Join { room_id: name.to_owned(), from: Some(from) }));
    }

    fn write(&mut self, id: LinkId, frame: Ask) {
        self.actions.push_back(Action::Write(id, frame));
    }
}

/// Between 20 ms and 3 s.
fn backoff(attempt: u32, chance: fn() -> f64) -> Duration {
    let (base, cap) = (Duration::from_millis(100), Duration::from_secs(3));
    full_jitter(base, cap, attempt, chance()).max(Duration::from_millis(20))
}

/// Whether the same frame may be taken later.
fn is_passing(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Unknown
            | Code::Internal
            | Code::Cancelled
            | Code::DeadlineExceeded
    )
}
