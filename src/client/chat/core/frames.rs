//! What each frame of a node means.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{Core, LinkId, backoff};
use crate::client::chat::event::{Event, Why, status_of};
use crate::client::chat::link::Stage;
use crate::proto::chat::v1::{Failed, Joined, Message, Notice, NoticeKind};

impl Core {
    pub(super) fn joined(&mut self, id: LinkId, joined: Joined) {
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
        room.refused_since = None;
        let again = std::mem::replace(&mut room.told, true);
        // A move is none of the caller's business.
        if !room.leaving && (!again || self.current == Some(id)) {
            self.events.push_back(Event::Joined { joined, again });
        }
    }

    pub(super) fn message(&mut self, id: LinkId, message: Message) {
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

    pub(super) fn failed(&mut self, id: LinkId, failed: Failed) {
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
        let again = self.now + bounded(told).max(backoff(2, self.chance));
        let Some(link) = self.links.get_mut(&id) else { return };
        let Some(stage) = link.answered_join(&failed.room_id) else { return };
        let Some(room) = self.rooms.get_mut(&failed.room_id) else { return };
        let first = room.refused_since.is_none();
        let since = *room.refused_since.get_or_insert(self.now);
        let patience = self.settings.patience.unwrap_or(Duration::MAX);
        if passing && self.now.saturating_sub(since) < patience {
            *stage = Stage::Again(again);
            if first {
                self.events.push_back(Event::Waiting(failed));
            }
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
                let until = self.now + bounded(told).max(wait);
                self.outbox.postpone(room, message, until);
                return;
            }
        }
        if self.outbox.answered(room, message) {
            self.events.push_back(Event::Failed(failed));
        }
    }

    pub(super) fn notice(&mut self, id: LinkId, notice: Notice) {
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
        let jitter = notice.jitter.filter(|jitter| jitter.seconds >= 0);
        let jitter = jitter.and_then(|jitter| Duration::try_from(jitter).ok());
        let wait = bounded(jitter).mul_f64((self.chance)().clamp(0.0, 1.0));
        link.go = Some(self.now + if draining { Duration::ZERO } else { wait });
        link.go_to = notice.addresses.clone();
        if draining && self.current == Some(id) {
            self.events.push_back(Event::Notice(notice));
        }
    }
}

/// How long a node wants to be waited for: it may say anything, and an hour can
/// still be added to a time.
fn bounded(told: Option<Duration>) -> Duration {
    told.unwrap_or_default().min(Duration::from_secs(3_600))
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
