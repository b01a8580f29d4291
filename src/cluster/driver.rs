//! The loop around the two pure cores: it beats, reads, and does what they
//! conclude.
//!
//! *One life* (`life`) is one incarnation: it joins, and ends when it leaves by
//! itself or learns that it was declared dead. Then everything that it owned is
//! given up at once, and the process joins again as a new incarnation; the dead
//! one can never come back.
//!
//! *What is safe whatever happens here:* every step is a compare-and-set in the
//! store, and every append is fenced there. A step whose outcome is not known, a
//! task that is stopped between two steps, a read that is late: each costs time
//! and no more. What a row says and memory does not is repaired by the next
//! read: a row that names this node without chat ordering it is taken anew.
//!
//! *Nothing waits for anything slow:* the beat is a task of its own, the read a
//! future beside the loop, and so is each step; eight takes run at once, since
//! one may have to wait for the hanging append of a frozen owner.
//!
//! Time is the boot clock's and tokio's, randomness is `chance`'s: a simulation
//! runs this very loop.

mod balance;
mod beat;
mod drain;
mod ended;
mod inbox;
mod join;
mod life;
mod metrics;
mod pace;
mod read;
mod seams;
mod seen;
mod step;
mod table;
#[cfg(all(test, feature = "fault"))]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::chance;
use crate::chat::Partitions;
use crate::cluster::membership::Rules;
use crate::fault;
use crate::readiness::{Guard, Readiness};
use crate::store::ClusterStore;
use crate::store::cluster::{Agreement, NodeInfo, StoreIdentity};

pub use drain::{Handle, Standing};
pub use inbox::Inbox;
pub use join::JoinError;
pub use metrics::ClusterMetrics;
pub use seams::{Distrust, Incarnations, LinkState, Mesh, Recovery};
pub use seen::{Picture, Seen};

use self::drain::Orders;
use self::ended::Ended;
use self::life::{End, Life};

/// How long the driver waits before it tries to join again.
const AGAIN: Duration = Duration::from_millis(500);

/// What a driver stands on.
#[derive(Debug)]
pub struct Parts {
    /// The shared tables.
    pub store: Arc<dyn ClusterStore>,
    /// Chat's side of the partitions.
    pub partitions: Arc<dyn Partitions>,
    /// The links.
    pub mesh: Arc<dyn Mesh>,
    /// Takes up what dead nodes had under way.
    pub recovery: Arc<dyn Recovery>,
    /// What it must have alike with the others.
    pub agreement: Agreement,
    /// Which incarnations ran here before.
    pub past: Arc<dyn Incarnations>,
    /// What the node says of itself, the incarnation of its first join included;
    /// later ones are new.
    pub info: NodeInfo,
    /// Partitions handed over a second when nodes joined.
    pub moves_per_second: u32,
    /// When a node is dead.
    pub rules: Rules,
    /// What probes see.
    pub readiness: Readiness,
    /// What is counted.
    pub metrics: ClusterMetrics,
    /// What links and chat tell.
    pub inbox: Inbox,
}

/// What outlives an incarnation.
#[derive(Debug)]
struct Lasting {
    /// Which database this is.
    identity: StoreIdentity,
    /// Incarnations that are over and whose work nobody may have taken up yet.
    over: BTreeSet<String>,
    /// Since when others are over.
    ended: Ended,
    /// Held until every partition has had a live owner once.
    settling: Option<Guard>,
}

/// A node that takes part and does not act yet.
#[derive(Debug)]
pub struct Driver {
    parts: Arc<Parts>,
    seen: Arc<Seen>,
    orders: Orders,
    lasting: Lasting,
    incarnation: String,
}

impl Driver {
    /// Joins the cluster; fails when another node has the id, when the store is
    /// another cluster's, or when no living node and this one believe each other.
    /// The handle is for everyone who asks something of the driver.
    pub async fn join(parts: Parts) -> Result<(Self, Handle), JoinError> {
        let parts = Arc::new(parts);
        let joining = parts.readiness.hold("joined");
        let settling = Some(parts.readiness.hold("partitions settled"));
        let identity = parts.store.identity().await?;
        // Before anything of this node's is written.
        join::believe(parts.store.as_ref(), parts.mesh.as_ref(), &parts.info.id).await?;
        join::agree(parts.store.as_ref(), &parts.agreement).await?;
        parts.store.ensure_partitions(parts.partitions.count()).await?;
        let mut lasting =
            Lasting { identity, over: BTreeSet::new(), ended: Ended::default(), settling };
        let incarnation = parts.info.incarnation.clone();
        fault::point("cluster.agreed").await;
        join_as(&parts, &incarnation, &mut lasting).await?;
        drop(joining);
        let (handle, orders) = drain::channel();
        let seen = handle.seen.clone();
        Ok((Self { parts, seen, orders, lasting, incarnation }, handle))
    }

    /// Runs until the node has left.
    pub async fn run(self) {
        let Self { parts, seen, mut orders, mut lasting, mut incarnation } = self;
        fault::point("cluster.joined").await;
        loop {
            let life = Life::new(parts.clone(), seen.clone(), &incarnation, &mut lasting);
            match life.run(&mut orders).await {
                End::Left => return,
                End::Died => {}
            }
            let joining = parts.readiness.hold("joined");
            tracing::error!(incarnation, "this node was declared dead; it joins as a new one");
            parts.metrics.died.inc();
            give_up(&parts);
            loop {
                incarnation = chance::uuid().to_string();
                match join_as(&parts, &incarnation, &mut lasting).await {
                    Ok(()) => break,
                    Err(error) => tracing::error!(%error, "this node could not join again yet"),
                }
                tokio::select! {
                    biased;
                    () = orders.leaving() => return orders.left(),
                    () = tokio::time::sleep(AGAIN) => {}
                }
            }
            drop(joining);
        }
    }
}

/// An incarnation of this node takes part.
async fn join_as(parts: &Parts, incarnation: &str, lasting: &mut Lasting) -> Result<(), JoinError> {
    let info = NodeInfo { incarnation: incarnation.to_owned(), ..parts.info.clone() };
    let replaced = join::join(parts.store.as_ref(), &info, parts.past.as_ref()).await?;
    lasting.over.extend(replaced);
    parts.mesh.joined(&info, &lasting.identity);
    tracing::info!(incarnation, id = info.id, "joined the cluster");
    Ok(())
}

/// Nothing is this node's any more.
fn give_up(parts: &Parts) {
    for at in parts.partitions.positions() {
        parts.partitions.lose(at.partition);
        parts.mesh.lost(at.partition, at.epoch);
        parts.metrics.lost.inc();
    }
    parts.metrics.owned.set(0);
}
