//! What becomes possible: streams opened, promoted and let go, rooms left,
//! messages sent.

use super::{Action, Core, LinkId, Move, Room, backoff};
use crate::client::chat::event::{Event, From, Why};
use crate::client::chat::link::Link;
use crate::proto::chat::v1::chat_request::Frame as Ask;
use crate::proto::chat::v1::{Join, Leave, join};
use std::time::Duration;

impl Core {
    /// No link is left, and none is on its way.
    pub(super) fn lost(&mut self, why: Why, is_final: bool) {
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
    pub(super) fn delay(&mut self) -> Duration {
        let delay = backoff(self.attempt, self.chance);
        self.attempt = self.attempt.saturating_add(1);
        delay
    }

    /// Does whatever has become possible.
    pub(super) fn settle(&mut self) {
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
                (prefer.unwrap_or_default(), self.left.clone())
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
        self.links.insert(self.last, Link::new(self.now, self.settings.quiet));
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
        self.left = None;
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
    pub(super) fn reading_links(&self) -> Vec<LinkId> {
        let ids = self.current.into_iter().chain(self.next);
        ids.filter(|id| self.links.get(id).is_some_and(Link::is_open)).collect()
    }

    pub(super) fn drop_room(&mut self, id: LinkId, room: &str) -> bool {
        self.links.get_mut(&id).is_some_and(|link| link.forget(room))
    }

    pub(super) fn ask_join(&mut self, id: LinkId, name: &str) {
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

    pub(super) fn write(&mut self, id: LinkId, frame: Ask) {
        self.actions.push_back(Action::Write(id, frame));
    }
}
