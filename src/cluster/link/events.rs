//! What links tell whoever drives the cluster.
//!
//! The queue is bounded by what it says: a partition or a node appears at most
//! once with each sort of news, newer news in the place of older.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

/// One piece of news. Times are the boot clock's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// The first link to a node stands.
    Up {
        /// The node.
        node: String,
        /// Its run.
        incarnation: String,
        /// Since when.
        at: Duration,
    },
    /// The last link to a node is gone.
    Down {
        /// The node.
        node: String,
        /// Its run.
        incarnation: String,
        /// Since when.
        at: Duration,
    },
    /// Dialing a node was refused: nothing listens there, or a firewall says
    /// so.
    Refused {
        /// The node.
        node: String,
        /// Its run.
        incarnation: String,
        /// When it was tried.
        at: Duration,
    },
    /// A node released a partition and named this one in the store.
    Handover {
        /// The partition.
        partition: u16,
        /// The epoch of the release.
        epoch: u64,
        /// Who released it.
        from: String,
    },
    /// A node is stopping: it is given nothing more.
    Draining {
        /// The node.
        node: String,
    },
    /// An append was fenced or its outcome is not known: the partition is to be
    /// looked at and taken anew if it is still this node's.
    Lost {
        /// The partition.
        partition: u16,
        /// The epoch under which it was owned.
        epoch: u64,
    },
    /// A node showed a newer timeline of the database than was known here.
    Timeline {
        /// The newest seen.
        timeline: u64,
    },
}

impl LinkEvent {
    /// Whether this takes the place of older news.
    fn replaces(&self, older: &Self) -> bool {
        use LinkEvent::{Down, Draining, Handover, Lost, Refused, Timeline, Up};
        match (self, older) {
            (
                Up { node: new, .. } | Down { node: new, .. } | Refused { node: new, .. },
                Refused { node: old, .. },
            ) => new == old,
            (Up { node: new, .. }, Up { node: old, .. })
            | (Down { node: new, .. }, Down { node: old, .. })
            | (Draining { node: new }, Draining { node: old }) => new == old,
            (Handover { partition: new, .. }, Handover { partition: old, .. })
            | (Lost { partition: new, .. }, Lost { partition: old, .. }) => new == old,
            (Timeline { .. }, Timeline { .. }) => true,
            _ => false,
        }
    }
}

/// The queue.
#[derive(Debug, Default)]
pub struct Events {
    queue: Mutex<VecDeque<LinkEvent>>,
    filled: Notify,
}

impl Events {
    /// Adds news. Never blocks.
    pub(crate) fn tell(&self, event: LinkEvent) {
        {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.retain(|older| !event.replaces(older));
            queue.push_back(event);
        }
        self.filled.notify_one();
    }

    /// The next piece of news, in the order in which they came. For one reader;
    /// cancel safe.
    pub async fn next(&self) -> LinkEvent {
        loop {
            if let Some(event) = self.try_next() {
                return event;
            }
            self.filled.notified().await;
        }
    }

    /// The next piece of news, if there is one.
    pub fn try_next(&self) -> Option<LinkEvent> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn newer_news_of_the_same_thing_takes_the_place_of_older() {
        let events = Events::default();
        let lost = |partition, epoch| LinkEvent::Lost { partition, epoch };
        events.tell(lost(1, 3));
        events.tell(lost(2, 3));
        events.tell(lost(1, 4));
        events.tell(LinkEvent::Draining { node: "b".into() });
        assert_eq!(events.next().await, lost(2, 3));
        assert_eq!(events.next().await, lost(1, 4));
        assert_eq!(events.next().await, LinkEvent::Draining { node: "b".into() });
        assert_eq!(events.try_next(), None);
    }
}
