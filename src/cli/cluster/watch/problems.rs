//! What is wrong with a cluster, as its picture shows it.

use std::collections::BTreeMap;

use super::Look;
use super::changes::Changes;
use crate::cli::cluster::view::is_alone;
use crate::cli::text::plain;
use crate::cluster::service::json::seconds;
use crate::proto::cluster::v1::{Cluster, NodeState};

/// A beat that is older is late: nodes beat twice a second and are dead after two.
const LATE: f64 = 1.5;

/// Seconds without a read of the store that are worth a word.
const STALE: u32 = 3;

/// Bytes that wait for a link and are worth a word.
const BACKLOG: u64 = 1024 * 1024;

/// Something that somebody may want to look at.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// Whether something does not work; else it is on its way or merely slow.
    pub(super) wrong: bool,
    /// In words.
    pub(super) text: String,
}

impl Problem {
    pub(super) fn look(&self) -> Look {
        if self.wrong { Look::Wrong } else { Look::Notice }
    }
}

/// Everything, what does not work first.
pub(super) fn all(cluster: &Cluster, changes: &Changes) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut tell = |wrong: bool, text: String| found.push(Problem { wrong, text });
    if changes.stale_seconds() >= STALE {
        let (node, time) = (plain(&cluster.answered_by), changes.stale_seconds());
        tell(true, format!("{node} has not read the store for {time} s"));
    }
    let mut alive = BTreeMap::new();
    for node in &cluster.nodes {
        let name = plain(&node.node_id);
        let beat = node.last_beat.as_ref().and_then(seconds).unwrap_or_default();
        alive.insert(
            node.node_id.as_str(),
            matches!(node.state(), NodeState::Live | NodeState::Draining),
        );
        match node.state() {
            NodeState::Live | NodeState::Draining if beat > LATE && !is_alone(cluster) => {
                tell(true, format!("{name} has not said for {beat:.1} s that it lives"));
            }
            NodeState::Draining => tell(
                false,
                format!(
                    "{name} drains: {} partition(s) and {} session(s) left",
                    node.partitions, node.sessions
                ),
            ),
            NodeState::Dead => tell(true, format!("{name} died and has not come back")),
            _ => {}
        }
    }
    let owned = |owner: &str| alive.get(owner).copied().unwrap_or(false);
    let lost = cluster.partitions.iter().filter(|row| !owned(&row.owner)).count();
    if lost > 0 {
        tell(true, format!("{lost} partition(s) have no living owner: their rooms wait"));
    }
    for link in &cluster.links {
        let name = plain(&link.node_id);
        if link.connections == 0 && owned(&link.node_id) {
            let why = if link.problem.is_empty() { "none yet" } else { link.problem.as_str() };
            tell(true, format!("no link to {name}: {}", plain(why)));
        } else if link.backlog_bytes > BACKLOG {
            let size = link.backlog_bytes / 1024;
            tell(false, format!("{size} KiB wait to be sent to {name}"));
        }
    }
    found.sort_by_key(|problem| !problem.wrong);
    found
}
