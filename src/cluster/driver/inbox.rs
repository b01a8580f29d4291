//! What the driver is told between its reads. It is bounded by the numbers of
//! partitions and nodes; all of it hastens what the next reads would show.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

/// What was told since it was last looked at.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Partitions that chat lost, with the epoch under which it had them.
    pub(super) lost: BTreeMap<u16, u64>,
    /// Partitions that were released to this node, with the epoch of the
    /// release.
    pub(super) released: BTreeMap<u16, u64>,
    /// Links that came (`None`) or were refused (when, on the boot clock), by
    /// node, with the incarnation.
    pub(super) links: BTreeMap<String, (String, Option<Duration>)>,
    /// Another node says that it drains, or knows a newer database: the next
    /// read is due now.
    pub(super) look: bool,
}

impl News {
    fn is_empty(&self) -> bool {
        self.lost.is_empty() && self.released.is_empty() && self.links.is_empty() && !self.look
    }
}

/// Where links and chat tell the driver something. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Inbox {
    news: Arc<Mutex<News>>,
    told: Arc<Notify>,
}

impl Inbox {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// An append of this node's was fenced, or its outcome is not known.
    pub fn lost(&self, partition: u16, epoch: u64) {
        self.tell(|news| {
            news.lost.insert(partition, epoch);
        });
    }

    /// Another node released a partition to this one.
    pub fn released(&self, partition: u16, epoch: u64) {
        self.tell(|news| {
            news.released.insert(partition, epoch);
        });
    }

    /// There is a link to an incarnation of a node.
    pub fn link_up(&self, node: &str, incarnation: &str) {
        self.link(node, incarnation, None);
    }

    /// The link to an incarnation of a node broke, and a redial was refused at
    /// this time of the boot clock.
    pub fn link_refused(&self, node: &str, incarnation: &str, at: Duration) {
        self.link(node, incarnation, Some(at));
    }

    /// Something else changed: the tables are worth a look.
    pub fn look(&self) {
        self.tell(|news| news.look = true);
    }

    fn link(&self, node: &str, incarnation: &str, refused: Option<Duration>) {
        self.tell(|news| {
            news.links.insert(node.to_owned(), (incarnation.to_owned(), refused));
        });
    }

    fn tell(&self, tell: impl FnOnce(&mut News)) {
        tell(&mut self.news.lock().unwrap_or_else(PoisonError::into_inner));
        self.told.notify_one();
    }

    /// Waits for something and takes it. Cancel safe.
    pub(super) async fn news(&self) -> News {
        loop {
            let told = self.told.notified();
            let news =
                std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner));
            if !news.is_empty() {
                return news;
            }
            told.await;
        }
    }
}
