//! How a cluster looks to people: tables. Pure.

use std::fmt::Write;

use crate::cli::text::{plain, table, time};
use crate::cluster::service::json::{seconds, state};
use crate::proto::cluster::v1::{Cluster, Link, Node, Partition};

/// The whole cluster as tables, below what is wrong.
pub(super) fn cluster_text(cluster: &Cluster, problems: &[String]) -> String {
    let mut out = format!(
        "cluster {}, as {} saw it at {}\n",
        plain(&cluster.name),
        plain(&cluster.answered_by),
        time(cluster.observed_at.as_ref())
    );
    problems.iter().for_each(|problem| out.push_str(&format!("! {problem}\n")));
    out.push('\n');
    out.push_str(&table(&NODE_HEAD, &node_rows(cluster)));
    for (head, rows) in [(&LINK_HEAD[..], link_rows(cluster)), (&OWNER_HEAD, owner_rows(cluster))] {
        if !rows.is_empty() {
            out.push_str("\n\n");
            out.push_str(&table(head, &rows));
        }
    }
    if is_alone(cluster) {
        out.push_str("\n\nthe node is alone: its store is not shared with others");
    }
    out
}

/// The heads of the tables.
pub(super) const NODE_HEAD: [&str; 8] =
    ["NODE", "STATE", "BEAT", "SESSIONS", "PARTITIONS", "ZONE", "RELEASE", "ADDRESS"];
pub(super) const LINK_HEAD: [&str; 5] = ["LINK TO", "CONNECTIONS", "RTT", "BACKLOG", "PROBLEM"];
pub(super) const OWNER_HEAD: [&str; 4] = ["OWNER", "COUNT", "HIGHEST EPOCH", "PARTITIONS"];

/// A row a node.
pub(super) fn node_rows(cluster: &Cluster) -> Vec<Vec<String>> {
    cluster.nodes.iter().map(node_row).collect()
}

/// A row a link.
pub(super) fn link_rows(cluster: &Cluster) -> Vec<Vec<String>> {
    cluster.links.iter().map(link_row).collect()
}

/// A row an owner.
pub(super) fn owner_rows(cluster: &Cluster) -> Vec<Vec<String>> {
    owners(&cluster.partitions)
}

/// Whether the node that answered shares its store with nobody: it has no beat.
pub(super) fn is_alone(cluster: &Cluster) -> bool {
    matches!(cluster.nodes.as_slice(), [only] if only.beat == 0)
}

fn node_row(node: &Node) -> Vec<String> {
    vec![
        plain(&node.node_id),
        state(node).to_ascii_lowercase(),
        node.last_beat.as_ref().and_then(seconds).map_or_else(dash, |s| format!("{s:.1} s ago")),
        node.sessions.to_string(),
        node.partitions.to_string(),
        or_dash(&node.zone),
        or_dash(&node.release),
        or_dash(&node.public_address),
    ]
}

fn link_row(link: &Link) -> Vec<String> {
    let trip = link.round_trip.as_ref().and_then(seconds);
    vec![
        plain(&link.node_id),
        link.connections.to_string(),
        trip.map_or_else(dash, |s| format!("{:.2} ms", s * 1000.0)),
        format!("{} bytes", link.backlog_bytes),
        or_dash(&link.problem),
    ]
}

/// One row an owner, its partitions as runs: `0-41,77`.
fn owners(partitions: &[Partition]) -> Vec<Vec<String>> {
    let mut by: std::collections::BTreeMap<&str, Vec<&Partition>> = Default::default();
    for partition in partitions {
        by.entry(&partition.owner).or_default().push(partition);
    }
    let row = |(owner, owned): (&str, Vec<&Partition>)| {
        let mut numbers: Vec<u32> = owned.iter().map(|p| p.partition).collect();
        numbers.sort_unstable();
        let epoch = owned.iter().map(|p| p.epoch).max().unwrap_or_default();
        let owner = if owner.is_empty() { "nobody".to_owned() } else { plain(owner) };
        vec![owner, numbers.len().to_string(), epoch.to_string(), runs(&numbers)]
    };
    by.into_iter().map(row).collect()
}

/// Ascending numbers with neighbours drawn together.
fn runs(numbers: &[u32]) -> String {
    let mut out = String::new();
    let mut rest = numbers.iter().copied().peekable();
    while let Some(first) = rest.next() {
        let mut last = first;
        while let Some(next) = rest.next_if(|next| *next == last.saturating_add(1)) {
            last = next;
        }
        let comma = if out.is_empty() { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = match last {
            _ if last == first => write!(out, "{comma}{first}"),
            _ => write!(out, "{comma}{first}-{last}"),
        };
    }
    out
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { dash() } else { plain(text) }
}

fn dash() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::cluster::v1::NodeState;

    fn cluster() -> Cluster {
        let node = |id: &str, state: NodeState| Node {
            node_id: id.into(),
            state: state.into(),
            last_beat: Some(prost_types::Duration { seconds: 0, nanos: 250_000_000 }),
            sessions: 7,
            ..Node::default()
        };
        let partition = |number: u32, owner: &str| Partition {
            partition: number,
            owner: owner.into(),
            epoch: 3,
            commit_no: 9,
        };
        Cluster {
            name: "simpul".into(),
            answered_by: "a".into(),
            nodes: vec![node("a", NodeState::Live), node("b", NodeState::Dead)],
            links: vec![Link {
                node_id: "b".into(),
                problem: "refused\u{1b}[2J".into(),
                ..Link::default()
            }],
            partitions: vec![
                partition(0, "a"),
                partition(2, ""),
                partition(1, "a"),
                partition(5, "a"),
            ],
            ..Cluster::default()
        }
    }

    #[test]
    fn people_see_owners_with_runs_of_partitions() {
        let text = cluster_text(&cluster(), &[]);
        assert!(text.contains("0-1,5"), "{text}");
        assert!(text.contains("nobody"), "{text}");
        assert!(text.contains("0.2 s ago") && text.contains("dead"), "{text}");
        assert!(!text.contains('\u{1b}'), "a node moves the cursor: {text}");
    }

    #[test]
    fn neighbours_are_drawn_together() {
        assert_eq!(runs(&[0, 1, 2, 4, 6, 7]), "0-2,4,6-7");
        assert_eq!(runs(&[]), "");
        assert_eq!(runs(&[u32::MAX]), u32::MAX.to_string());
    }
}
