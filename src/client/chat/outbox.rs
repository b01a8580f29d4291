//! What was said and not yet answered: pure.
//!
//! Each message keeps its id however often it is sent: the node appends an id
//! once, so that sending again is safe. Messages of one room are sent in the
//! order in which they were said, and each names the one before it that has no
//! answer yet: the owner appends it after that one or not at all. The box is
//! bounded below the number of answers that a node lets wait, so that neither side
//! can block the other.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::core::LinkId;
use crate::proto::chat::v1::Send;

/// Messages under way at once.
pub const LIMIT: usize = 128;

/// A message without its answer.
#[derive(Debug)]
struct Item {
    send: Send,
    /// The link on which its answer is awaited.
    on: Option<LinkId>,
    /// Not to be sent before.
    not_before: Duration,
    /// How often it was refused for a passing reason, and since when.
    refused: u32,
    refused_since: Option<Duration>,
}

/// The box.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    items: VecDeque<Item>,
}

impl Outbox {
    pub(super) fn push(&mut self, send: Send) {
        self.items.push_back(Item {
            send,
            on: None,
            not_before: Duration::ZERO,
            refused: 0,
            refused_since: None,
        });
    }

    /// The node answered for good. False for what does not wait: it was
    /// answered before.
    pub(super) fn answered(&mut self, room: &str, id: &str) -> bool {
        let found = self.place(room, id);
        found.is_some_and(|at| self.items.remove(at).is_some())
    }

    /// Refused for a passing reason: how often by now, and since when. None for
    /// what does not wait on this link.
    pub(super) fn refused(
        &mut self,
        link: LinkId,
        room: &str,
        id: &str,
        now: Duration,
    ) -> Option<(u32, Duration)> {
        let at = self.place(room, id)?;
        let item = self.items.get_mut(at).filter(|item| item.on == Some(link))?;
        item.on = None;
        item.refused = item.refused.saturating_add(1);
        Some((item.refused, *item.refused_since.get_or_insert(now)))
    }

    /// Waits with a refused message, and with what its room said after it.
    pub(super) fn postpone(&mut self, room: &str, id: &str, until: Duration) {
        let at = self.place(room, id);
        if let Some(item) = at.and_then(|at| self.items.get_mut(at)) {
            item.not_before = until;
        }
    }

    /// The next message that may go out on this link, in order within each
    /// room; it is under way there from now on. A room waits while something of
    /// it is under way elsewhere or postponed.
    pub(super) fn next(
        &mut self,
        link: LinkId,
        now: Duration,
        mut may: impl FnMut(&str) -> bool,
    ) -> Option<Send> {
        let mut held: BTreeSet<&str> = BTreeSet::new();
        let mut found = None;
        for (at, item) in self.items.iter().enumerate() {
            let room = item.send.room_id.as_str();
            if held.contains(room) {
                continue;
            }
            match item.on {
                Some(on) if on == link => {}
                None if item.not_before <= now && may(room) => {
                    found = Some(at);
                    break;
                }
                _ => {
                    held.insert(room);
                }
            }
        }
        let found = found?;
        let room = self.items.get(found)?.send.room_id.as_str();
        // What is not answered may yet be refused: then this one must not stand.
        let mut earlier = self.items.iter().take(found).rev();
        let before = earlier.find(|item| item.send.room_id == room);
        let after = before.map(|item| item.send.client_message_id.clone()).unwrap_or_default();
        let item = self.items.get_mut(found)?;
        item.on = Some(link);
        Some(Send { after, ..item.send.clone() })
    }

    /// A link is gone: what was under way on it is sent again.
    pub(super) fn release(&mut self, link: LinkId) {
        for item in self.items.iter_mut().filter(|item| item.on == Some(link)) {
            item.on = None;
        }
    }

    /// Whether anything is under way on the link.
    pub(super) fn is_under_way(&self, link: LinkId) -> bool {
        self.items.iter().any(|item| item.on == Some(link))
    }

    /// When the next postponed message may go.
    pub(super) fn wake_at(&self, now: Duration) -> Option<Duration> {
        let later = self.items.iter().filter(|item| item.on.is_none() && item.not_before > now);
        later.map(|item| item.not_before).min()
    }

    /// Takes out everything of a room; the ids.
    pub(super) fn remove_room(&mut self, room: &str) -> Vec<String> {
        let (out, kept) = self.items.drain(..).partition(|item: &Item| item.send.room_id == room);
        let out: VecDeque<Item> = out;
        self.items = kept;
        out.into_iter().map(|item| item.send.client_message_id).collect()
    }

    pub(super) fn has_room(&self, room: &str) -> bool {
        self.items.iter().any(|item| item.send.room_id == room)
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    fn place(&self, room: &str, id: &str) -> Option<usize> {
        self.items.iter().position(|item| {
            item.send.client_message_id == id && (room.is_empty() || item.send.room_id == room)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(room: &str, id: &str) -> Send {
        Send { room_id: room.into(), client_message_id: id.into(), ..Send::default() }
    }

    fn ids(outbox: &mut Outbox, link: LinkId) -> Vec<String> {
        std::iter::from_fn(|| outbox.next(link, Duration::ZERO, |_| true))
            .map(|send| send.client_message_id)
            .collect()
    }

    #[test]
    fn what_a_lost_link_did_not_answer_goes_again_in_order() {
        let mut outbox = Outbox::default();
        for id in ["1", "2", "3"] {
            outbox.push(send("r", id));
        }
        assert_eq!(ids(&mut outbox, 1), ["1", "2", "3"]);
        assert!(outbox.answered("r", "2") && !outbox.answered("r", "2"));
        outbox.release(1);
        outbox.push(send("r", "4"));
        assert_eq!(ids(&mut outbox, 2), ["1", "3", "4"]);
    }

    #[test]
    fn a_message_names_the_one_before_it_that_has_no_answer() {
        let mut outbox = Outbox::default();
        let afters = |outbox: &mut Outbox, link| -> Vec<String> {
            std::iter::from_fn(|| outbox.next(link, Duration::ZERO, |_| true))
                .map(|send| send.after)
                .collect()
        };
        for (room, id) in [("a", "1"), ("b", "2"), ("a", "3"), ("a", "4")] {
            outbox.push(send(room, id));
        }
        assert_eq!(afters(&mut outbox, 1), ["", "", "1", "3"]);
        // What stands, or was refused for good, is named no more.
        assert!(outbox.answered("a", "3"));
        outbox.release(1);
        assert_eq!(afters(&mut outbox, 2), ["", "", "1"]);
    }

    #[test]
    fn a_room_waits_for_what_is_under_way_elsewhere_and_others_do_not() {
        let mut outbox = Outbox::default();
        outbox.push(send("a", "1"));
        assert_eq!(ids(&mut outbox, 1), ["1"]);
        outbox.push(send("a", "2"));
        outbox.push(send("b", "3"));
        assert_eq!(ids(&mut outbox, 2), ["3"]);
        assert!(outbox.answered("a", "1"));
        assert_eq!(ids(&mut outbox, 2), ["2"]);
    }

    #[test]
    fn what_is_postponed_holds_what_its_room_said_after_it() {
        let mut outbox = Outbox::default();
        outbox.push(send("a", "1"));
        assert_eq!(ids(&mut outbox, 1), ["1"]);
        let since = Duration::from_secs(1);
        assert_eq!(outbox.refused(1, "a", "1", since), Some((1, since)));
        assert_eq!(outbox.refused(1, "a", "1", since), None, "told once");
        outbox.postpone("a", "1", Duration::from_secs(2));
        outbox.push(send("a", "2"));
        assert!(ids(&mut outbox, 1).is_empty());
        assert_eq!(outbox.wake_at(since), Some(Duration::from_secs(2)));
        let late = outbox.next(1, Duration::from_secs(2), |_| true).expect("due");
        assert_eq!(late.client_message_id, "1");
        assert_eq!(outbox.remove_room("a"), ["1", "2"]);
        assert_eq!(outbox.len(), 0);
    }
}
