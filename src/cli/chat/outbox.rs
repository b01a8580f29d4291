//! What was said and not yet acknowledged: pure.
//!
//! Each message has its id from the moment it was read, and keeps it however
//! often it is sent: the node appends an id once, so sending again after a lost
//! connection is safe. The box is bounded below the number of answers that a
//! node lets wait, so that neither side can block the other.

use std::collections::VecDeque;

/// Messages under way at once.
const LIMIT: usize = 128;

/// A message without its acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) id: String,
    pub(super) body: String,
}

/// The box.
#[derive(Debug)]
pub(super) struct Outbox {
    prefix: String,
    next: u32,
    waiting: VecDeque<Waiting>,
}

impl Outbox {
    /// Ids are the prefix and a number.
    pub(super) fn new(prefix: String) -> Self {
        Self { prefix, next: 1, waiting: VecDeque::new() }
    }

    /// Takes a message in and gives it its id.
    pub(super) fn push(&mut self, body: String) -> Waiting {
        let message = Waiting { id: format!("{}-{}", self.prefix, self.next), body };
        self.next = self.next.saturating_add(1);
        self.waiting.push_back(message.clone());
        message
    }

    /// The node answered for an id, well or not. False for one that does not
    /// wait (it was answered before).
    pub(super) fn answered(&mut self, id: &str) -> bool {
        let found = self.waiting.iter().position(|message| message.id == id);
        found.is_some_and(|at| self.waiting.remove(at).is_some())
    }

    /// What must be sent again on a new connection, in the order it was said.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Waiting> {
        self.waiting.iter()
    }

    /// Whether this client gave the id.
    pub(super) fn is_ours(&self, id: &str) -> bool {
        id.strip_prefix(&self.prefix).is_some_and(|rest| rest.starts_with('-'))
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether no more may be taken in now.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= LIMIT
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_kept_and_order_too() {
        let mut outbox = Outbox::new("run".into());
        for body in ["a", "b", "c"] {
            outbox.push(body.into());
        }
        assert!(outbox.answered("run-2"));
        assert!(!outbox.answered("run-2"));
        let again: Vec<_> = outbox.waiting().map(|m| (m.id.as_str(), m.body.as_str())).collect();
        assert_eq!(again, [("run-1", "a"), ("run-3", "c")]);
        assert_eq!(outbox.push("d".into()).id, "run-4");
    }

    #[test]
    fn it_is_bounded_and_knows_its_own() {
        let mut outbox = Outbox::new("run".into());
        while !outbox.is_full() {
            outbox.push("x".into());
        }
        assert_eq!(outbox.len(), LIMIT);
        assert!(outbox.is_ours("run-9") && !outbox.is_ours("runner-9"));
    }
}
