//! Asking the driver to hand over and to leave.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::seen::Seen;

/// What is asked of the driver; each includes those before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Order {
    #[default]
    Work,
    /// Hand everything over.
    HandOver,
    /// Leave the cluster.
    Leave,
}

/// How far the node is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// It hands over, because it stops or because an operator wants it.
    pub draining: bool,
    /// It drains and nothing is its own any more, or there is nobody to have it.
    pub free: bool,
    /// It has left the cluster.
    pub left: bool,
    /// This run of the node.
    pub incarnation: String,
    /// Where clients may go instead: the addresses of nodes that live and do not
    /// drain.
    pub elsewhere: Vec<String>,
}

/// What the node, its services and its metrics have of the driver. Clones share
/// it.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) seen: Arc<Seen>,
    orders: Arc<watch::Sender<Order>>,
    standing: watch::Receiver<Standing>,
}

/// The driver's end.
#[derive(Debug)]
pub(super) struct Orders {
    orders: watch::Receiver<Order>,
    told: watch::Sender<Standing>,
}

pub(super) fn channel() -> (Handle, Orders) {
    let (orders, ordered) = watch::channel(Order::Work);
    let (told, standing) = watch::channel(Standing::default());
    let handle = Handle { seen: Arc::default(), orders: Arc::new(orders), standing };
    (handle, Orders { orders: ordered, told })
}

impl Handle {
    /// The cluster as of the newest read.
    pub fn seen(&self) -> Arc<Seen> {
        self.seen.clone()
    }

    /// How far the node is, and every change of it.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Begins to hand everything over; returns when nothing is left, there is
    /// nobody to have it, or the time is over. True in the first two cases.
    pub async fn hand_over(&self, within: Duration) -> bool {
        self.order(Order::HandOver);
        let mut standing = self.standing.clone();
        let free = standing.wait_for(|now| now.free || now.left);
        matches!(tokio::time::timeout(within, free).await, Ok(Ok(_)))
    }

    /// Leaves the cluster: the row says so, and others take at once what is
    /// still this node's. Returns when that is done or the time is over.
    pub async fn leave(&self, within: Duration) {
        self.order(Order::Leave);
        let mut standing = self.standing.clone();
        // An error means that the driver is gone.
        let _ = tokio::time::timeout(within, standing.wait_for(|now| now.left)).await;
    }

    fn order(&self, order: Order) {
        self.orders.send_if_modified(|now| {
            let more = order > *now;
            *now = (*now).max(order);
            more
        });
    }
}

impl Orders {
    /// Waits until more is asked than is known, and gives it. Cancel safe.
    pub(super) async fn more_than(&mut self, known: Order) -> Order {
        let order = self.orders.wait_for(|now| *now > known).await.map(|order| *order);
        match order {
            Ok(order) => order,
            // Without anybody who could ask, nobody asks.
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits for the wish to leave. Cancel safe.
    pub(super) async fn leaving(&mut self) {
        self.more_than(Order::HandOver).await;
    }

    /// Tells how far the node is.
    pub(super) fn tell(&self, standing: Standing) {
        self.told.send_if_modified(|now| {
            let changed = *now != standing;
            *now = standing;
            changed
        });
    }

    /// The node has left.
    pub(super) fn left(&self) {
        self.told.send_modify(|now| now.left = true);
    }
}
