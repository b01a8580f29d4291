//! A node's part in its cluster: made, joined, and left again.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::mesh::{DeadOnes, Elsewhere, Linked, Remembered, tell};
use super::{Bound, MeshEnd, StartError};
use crate::chat::Partitions;
use crate::cluster::driver::{self, ClusterMetrics, Driver, Handle, Inbox};
use crate::cluster::link::network::TlsNetwork;
use crate::cluster::link::{self, Identity, LinkMetrics, Links};
use crate::cluster::membership::Rules;
use crate::cluster::service::{Alone, ClusterView, Together};
use crate::drain::Watch;
use crate::payment::Payments;
use crate::readiness::Readiness;
use crate::store::ClusterStore;
use crate::store::cluster::{Agreement, NodeInfo};
use crate::transaction::Touched;
use crate::{clock, task};

/// What the release is called.
const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// How long sessions have to hear where they may go when the node stops.
const JITTER: Duration = Duration::from_secs(1);

/// How long the row may take to say that the node has left.
pub(super) const LEAVE: Duration = Duration::from_secs(2);

/// Links and store of a node that has others, before chat stands.
#[derive(Debug)]
pub(super) struct Joining {
    pub(super) links: Arc<Links>,
    store: Arc<dyn ClusterStore>,
    agreement: Agreement,
    payments: Arc<OnceLock<Payments>>,
}

/// A node that takes part.
#[derive(Debug)]
pub(super) struct Member {
    handle: Handle,
    partitions: Arc<dyn Partitions>,
    driver: JoinHandle<()>,
    /// Dropping them ends them.
    links: Arc<Links>,
}

/// What the node says of itself.
pub(super) fn info(bound: &Bound) -> NodeInfo {
    let config = &bound.config;
    let public = bound.public.address();
    let mesh = bound.mesh();
    let shown = |address: std::net::SocketAddr| match address.ip().is_unspecified() {
        true => String::new(),
        false => address.to_string(),
    };
    let node = &config.node;
    NodeInfo {
        id: bound.dir.node_id().to_owned(),
        incarnation: bound.incarnation.clone(),
        public_address: node.advertise_public.clone().unwrap_or_else(|| shown(public)),
        mesh_address: node
            .advertise_mesh
            .clone()
            .unwrap_or_else(|| mesh.map(shown).unwrap_or_default()),
        zone: node.zone.clone(),
        release: RELEASE.to_owned(),
        started_at: clock::micros(clock::Clock::now(&clock::System)),
    }
}

impl Joining {
    /// Makes the links; `None` for a node alone.
    pub(super) async fn new(
        bound: &mut Bound,
        histories: &Touched,
    ) -> Result<Option<Self>, StartError> {
        let metrics = LinkMetrics::register(&mut bound.registry);
        let Some(MeshEnd { security, .. }) = &bound.mesh else { return Ok(None) };
        let Some(store) = bound.database.cluster() else { return Ok(None) };
        let identity = store.identity().await?;
        let agreement = Agreement {
            cluster: bound.config.cluster.name.clone(),
            trust_domain: security.domain().to_string(),
        };
        let payments: Arc<OnceLock<Payments>> = Arc::default();
        let links = Links::new(link::Parts {
            identity: Identity {
                cluster: bound.config.cluster.name.clone(),
                node_id: bound.dir.node_id().into(),
                incarnation: bound.incarnation.as_str().into(),
                schema: bound.database.newest_schema(),
                partitions: bound.config.chat.partitions,
                system_id: identity.system_id,
                release: RELEASE.to_owned(),
            },
            timeline: identity.timeline,
            config: bound.config.cluster.clone(),
            network: Arc::new(TlsNetwork::new(security.clone())),
            store: store.clone(),
            touched: Arc::new(Elsewhere {
                histories: histories.clone(),
                payments: payments.clone(),
            }),
            metrics,
        });
        Ok(Some(Self { links, store, agreement, payments }))
    }

    /// Links begin, and the node takes part.
    pub(super) async fn join(
        self,
        bound: &Bound,
        metrics: ClusterMetrics,
        partitions: Arc<dyn Partitions>,
        payments: &Payments,
        drain: &Watch,
    ) -> Result<(Member, Arc<dyn ClusterView>), StartError> {
        let Self { links, store, agreement, payments: later } = self;
        let info = info(bound);
        if info.public_address.is_empty() {
            tracing::warn!(
                "node.advertise_public: listen.public is every address, and nothing says where \
                 clients reach this node: no session is sent here from another one"
            );
        }
        // Empty until now: nobody else sets it.
        let _ = later.set(payments.clone());
        links.start(partitions.clone(), drain);
        let mesh = Arc::new(Linked { links: links.clone(), payments: payments.clone() });
        let inbox = Inbox::new();
        let joined = Driver::join(driver::Parts {
            store: store.clone(),
            partitions: partitions.clone(),
            mesh: mesh.clone(),
            recovery: Arc::new(DeadOnes(later)),
            agreement,
            past: Arc::new(Remembered(bound.dir.clone())),
            info,
            moves_per_second: bound.config.cluster.moves_per_second,
            rules: Rules::default(),
            readiness: bound.readiness.clone(),
            metrics,
            inbox: inbox.clone(),
        });
        let (driver, handle) = joined.await?;
        let view = Together {
            name: bound.config.cluster.name.clone(),
            me: bound.dir.node_id().to_owned(),
            seen: handle.seen(),
            mesh,
            store,
        };
        task::spawn("news of links", tell(links.clone(), inbox, bound.database.clone()));
        task::spawn(
            "drain orders",
            not_ready_while_draining(handle.clone(), bound.readiness.clone()),
        );
        let driver = task::spawn("cluster driver", driver.run());
        Ok((Member { handle, partitions, driver, links }, Arc::new(view)))
    }
}

/// The cluster of a node that shares its store with nobody.
pub(super) fn alone(
    bound: &Bound,
    metrics: &ClusterMetrics,
    partitions: Arc<dyn Partitions>,
) -> Arc<dyn ClusterView> {
    metrics.alone(bound.config.chat.partitions);
    Arc::new(Alone {
        name: bound.config.cluster.name.clone(),
        info: info(bound),
        store: bound.database.store(),
        partitions,
    })
}

/// An operator may want the node to drain while the process goes on: balancers
/// then send it nobody.
async fn not_ready_while_draining(handle: Handle, readiness: Readiness) {
    let mut standing = handle.standing();
    if standing.wait_for(|now| now.draining).await.is_ok() {
        let _draining = readiness.hold("draining");
        // To the end of the process: a node that drains takes no part again.
        std::future::pending::<()>().await;
    }
}

impl Member {
    /// The links to the other nodes.
    pub(super) fn links(&self) -> Arc<Links> {
        self.links.clone()
    }

    /// Hands the partitions over, for so long at most, and tells sessions where
    /// they may go. These have a part of the time until the stop's end to be gone.
    pub(super) async fn hand_over(&self, within: Duration, end: Instant) {
        if !self.handle.hand_over(within).await {
            tracing::warn!("not every partition was handed over in time; others take the rest");
        }
        let elsewhere = self.handle.standing().borrow().elsewhere.clone();
        if !elsewhere.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            self.partitions.move_sessions(usize::MAX, &elsewhere, JITTER.min(left / 2));
        }
    }

    /// Waits for the driver's end, which comes by a panic alone until the node
    /// leaves. Cancel safe; not to be called again afterwards.
    pub(super) async fn failed(&mut self) {
        // It has said why.
        let _ = (&mut self.driver).await;
    }

    /// Leaves the cluster, or ends without a word when the store does not answer.
    pub(super) async fn leave(&self, within: Duration) {
        self.handle.leave(within).await;
        self.driver.abort();
    }
}
