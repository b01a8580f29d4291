//! A cluster's node: links and driver, and what stands between them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::database::Database;
use crate::chat::peers::Position;
use crate::cluster::driver::{Distrust, Inbox, Incarnations, LinkState, Mesh, Recovery};
use crate::cluster::link::{LinkEvent, Links, OnTouched};
use crate::payment::Payments;
use crate::store::chat::PartitionState;
use crate::store::cluster::{NodeInfo, NodeRecord, StoreIdentity};
use crate::store::datadir::DataDir;
use crate::store::ledger::AccountName;
use crate::transaction::Touched;

/// The links, as the driver sees them, and who else goes by the incarnation.
#[derive(Debug)]
pub(super) struct Linked {
    pub(super) links: Arc<Links>,
    pub(super) payments: Payments,
}

#[async_trait]
impl Mesh for Linked {
    async fn distrust(&self, nodes: &[NodeInfo]) -> Vec<Distrust> {
        self.links.distrust(nodes).await
    }

    fn joined(&self, node: &NodeInfo, store: &StoreIdentity) {
        self.links.joined(&node.incarnation);
        self.payments.runs_as(&node.incarnation);
        self.links.timeline(store.timeline);
    }

    fn observed(&self, alive: &[NodeRecord], partitions: &[PartitionState], _: Duration) {
        let nodes: Vec<NodeInfo> = alive.iter().map(|node| node.info.clone()).collect();
        self.links.peers_are(&nodes);
        self.links.directory(partitions);
    }

    fn owning(&self, positions: &[Position]) {
        self.links.own(positions);
    }

    fn lost(&self, partition: u16, epoch: u64) {
        self.links.disown(partition, epoch);
    }

    fn hand_over(&self, to: &str, partition: u16, epoch: u64) {
        self.links.handover(partition, epoch, to);
    }

    fn draining(&self) {
        self.links.draining();
    }

    fn links(&self) -> Vec<LinkState> {
        self.links.status()
    }
}

/// Brings the links' news to the driver, for ever.
pub(super) async fn tell(links: Arc<Links>, inbox: Inbox, database: Database) {
    loop {
        match links.events().next().await {
            LinkEvent::Up { node, incarnation, .. } => inbox.link_up(&node, &incarnation),
            LinkEvent::Refused { node, incarnation, at } => {
                inbox.link_refused(&node, &incarnation, at);
            }
            LinkEvent::Handover { partition, epoch, .. } => inbox.released(partition, epoch),
            LinkEvent::Lost { partition, epoch } => inbox.lost(partition, epoch),
            LinkEvent::Down { .. } | LinkEvent::Draining { .. } => inbox.look(),
            LinkEvent::Timeline { timeline } => {
                database.saw_timeline(timeline);
                inbox.look();
            }
        }
    }
}

/// What another node touched wakes those who wait here.
#[derive(Debug)]
pub(super) struct Elsewhere {
    pub(super) histories: Touched,
    /// Set once payments have started: they are told of by links, which chat
    /// needs first.
    pub(super) payments: Arc<std::sync::OnceLock<Payments>>,
}

impl OnTouched for Elsewhere {
    fn touched(&self, accounts: &[String], payments: &[Vec<u8>]) {
        for account in accounts {
            self.histories.touched(&AccountName::from_stored(account.clone()));
        }
        let Some(hub) = self.payments.get() else { return };
        for payment in payments {
            if let Ok(payment) = uuid::Uuid::from_slice(payment) {
                hub.touched(payment);
            }
        }
    }
}

/// A dead node's payments are taken up by the living.
#[derive(Debug)]
pub(super) struct DeadOnes(pub(super) Arc<std::sync::OnceLock<Payments>>);

#[async_trait]
impl Recovery for DeadOnes {
    async fn recover_of(&self, incarnation: &str) -> Result<(), String> {
        let Some(payments) = self.0.get() else { return Err("payments start".to_owned()) };
        payments.recover_of(incarnation).await.map(drop).map_err(|error| error.to_string())
    }
}

/// The data directory remembers incarnations.
#[derive(Debug)]
pub(super) struct Remembered(pub(super) Arc<DataDir>);

impl Incarnations for Remembered {
    fn known(&self) -> Vec<String> {
        self.0.incarnations().unwrap_or_else(|error| {
            tracing::warn!(%error, "earlier incarnations are not known");
            Vec::new()
        })
    }

    fn begin(&self, incarnation: &str) -> std::io::Result<()> {
        self.0.remember(incarnation).map_err(std::io::Error::other)
    }
}
