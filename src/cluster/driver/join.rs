//! Taking part: a row of one's own, and nobody else's.
//!
//! A row may stand in the way that says that the id is alive. Three cases:
//! - it is of a run of this very data directory: that is over, since this
//!   process holds the directory's lock; it is declared dead at once;
//! - its beat does not change while it is watched, as the living watch each
//!   other ([`Membership`]: a store that stalls meanwhile proves nothing): its
//!   node died; the same;
//! - its beat changes, or its lock is held: another node has this id. Two nodes
//!   with one id would take each other's partitions for their own, so this one
//!   does not start.
//!
//! Before that it knocks at the living nodes ([`Mesh::distrust`]): with none of
//! them linked, its partitions could be reached through the store alone.

use std::time::Duration;

use super::read;
use super::seams::{Distrust, Incarnations, Mesh};
use crate::clock;
use crate::cluster::membership::{Membership, Rules};
use crate::store::cluster::{Agreement, Joined, NodeInfo, NodeRecord};
use crate::store::{ClusterStore, StoreError};

/// How long a beat must not change: longer than five beats.
const WATCH: Duration = Duration::from_millis(2_500);

/// How long it is tried to see that.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is tried against races.
const TRIES: u32 = 16;

/// Why a node does not take part.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Another node has the id.
    #[error(
        "node.id: another node with the id {id} is alive at {address} (started {}); \
         each node of a cluster has an id of its own",
        humantime::format_rfc3339_seconds(clock::from_micros(*since))
    )]
    Alive {
        /// The id.
        id: String,
        /// Its mesh address.
        address: String,
        /// Microseconds since 1970.
        since: i64,
    },
    /// The store is another cluster's.
    #[error("{key}: {own} here, but the store is that of {stands}; {rule}")]
    Foreign {
        /// The key of the configuration.
        key: &'static str,
        /// What must be so.
        rule: &'static str,
        /// What this node has.
        own: String,
        /// What the first node had.
        stands: String,
    },
    /// The living nodes and this one cannot be linked.
    #[error(
        "mesh.cert_file, mesh.ca_file: the node {node} is alive at {address}, and it and this \
         one do not believe each other: {why}; no node of the cluster could be linked to this one"
    )]
    Distrust {
        /// One of them.
        node: String,
        /// Its mesh address.
        address: String,
        /// What is wrong.
        why: String,
    },
    /// The incarnation could not be remembered.
    #[error("data_dir: the incarnation cannot be kept: {0}")]
    Memory(std::io::Error),
    /// The store.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// Makes sure that this node belongs to the store's cluster, before it writes
/// anything that others look at.
pub(super) async fn agree(store: &dyn ClusterStore, own: &Agreement) -> Result<(), JoinError> {
    let stands = store.agree(own).await?;
    let alike = |key, rule, own: &str, stands: &str| match own == stands {
        true => Ok(()),
        false => {
            let (own, stands) = (own.to_owned(), stands.to_owned());
            Err(JoinError::Foreign { key, rule, own, stands })
        }
    };
    let rule = "every node of a cluster has the same name";
    alike("cluster.name", rule, &own.cluster, &stands.cluster)?;
    let rule = "every node of a cluster is of the same trust domain";
    alike("mesh.trust_domain", rule, &own.trust_domain, &stands.trust_domain)
}

/// Makes sure that another node lets this one in, if any lives.
pub(super) async fn believe(
    store: &dyn ClusterStore,
    mesh: &dyn Mesh,
    own: &str,
) -> Result<(), JoinError> {
    for _ in 0..TRIES {
        let mut others = store.observe().await?.nodes;
        others.retain(|node| node.info.id != own && node.state.is_alive());
        let infos: Vec<_> = others.iter().map(|node| node.info.clone()).collect();
        let mut changed = false;
        for Distrust { node, why } in mesh.distrust(&infos).await {
            let Some(row) = others.iter().find(|other| other.info.id == node) else { continue };
            // It may be long gone without a word, and somebody else at its address.
            let Some(now) = beats(store, row).await? else { continue };
            if now.info.incarnation == row.info.incarnation {
                return Err(JoinError::Distrust { node, address: now.info.mesh_address, why });
            }
            // Whoever was asked is gone: its next run may be elsewhere.
            changed = true;
        }
        if !changed {
            return Ok(());
        }
    }
    Err(StoreError::Conflict("the nodes change all the time").into())
}

/// Joins. Gives the incarnations whose place it took: they are over.
pub(super) async fn join(
    store: &dyn ClusterStore,
    info: &NodeInfo,
    past: &dyn Incarnations,
) -> Result<Vec<String>, JoinError> {
    let known = past.known();
    past.begin(&info.incarnation).map_err(JoinError::Memory)?;
    let mut replaced = Vec::new();
    let own = |nodes: Vec<NodeRecord>| nodes.into_iter().find(|node| node.info.id == info.id);
    if let Some(before) = own(store.observe().await?.nodes) {
        replaced.push(before.info.incarnation);
    }
    for _ in 0..TRIES {
        let Joined::Taken(row) = store.join(info).await? else {
            return Ok(replaced);
        };
        if row.info.incarnation == info.incarnation {
            // An earlier try, whose answer was lost.
            return Ok(replaced);
        }
        if !replaced.contains(&row.info.incarnation) {
            replaced.push(row.info.incarnation.clone());
        }
        let over = known.contains(&row.info.incarnation) || row.locked == Some(false);
        if !over {
            watch(store, info, &row).await?;
        }
        store.declare_dead(&row.info.id, &row.info.incarnation, row.beat).await?;
    }
    Err(StoreError::Conflict("the node's row changes all the time").into())
}

/// Returns when the row's beat stood still; an error when it did not.
async fn watch(
    store: &dyn ClusterStore,
    info: &NodeInfo,
    row: &NodeRecord,
) -> Result<(), JoinError> {
    tracing::info!(id = info.id, "the node's id is in use; watching whether it is alive");
    match beats(store, row).await? {
        None => Ok(()),
        Some(alive) => Err(JoinError::Alive {
            id: info.id.clone(),
            address: alive.info.mesh_address,
            since: alive.info.started_at,
        }),
    }
}

/// Watches whether a node is alive: its row as it is then, or nothing when its
/// beat stood still.
async fn beats(
    store: &dyn ClusterStore,
    row: &NodeRecord,
) -> Result<Option<NodeRecord>, JoinError> {
    if row.locked == Some(true) {
        return Ok(Some(row.clone()));
    }
    // A bystander: it is none of those whom it watches.
    let mut watched = Membership::new("", "", Rules { silence: WATCH, ..Rules::default() });
    let until = clock::since_boot() + PATIENCE;
    while clock::since_boot() < until {
        let began = clock::since_boot();
        let nodes = store.observe().await?.nodes;
        let ended = clock::since_boot();
        watched.observed(began, ended, &nodes);
        let Some(now) = watched.node(&row.info.id).filter(|now| now.state.is_alive()) else {
            return Ok(None);
        };
        if now.info.incarnation != row.info.incarnation || now.beat != row.beat {
            return Ok(Some(now.clone()));
        }
        if watched.suspects(ended).iter().any(|suspect| suspect.id == row.info.id) {
            return Ok(None);
        }
        tokio::time::sleep(read::EVERY).await;
    }
    let slow = format!("too slow to tell whether the node {} lives", row.info.id);
    Err(StoreError::Unavailable(slow).into())
}
