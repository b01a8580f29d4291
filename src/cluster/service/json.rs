//! A cluster as one JSON object, for scripts and bundles alike. Names are the
//! contract's; what is absent is null.

use std::time::Duration;

use serde_json::{Value, json};

use crate::proto::cluster::v1::{Cluster, Link, Node, Partition};

/// The whole cluster.
pub fn cluster(cluster: &Cluster) -> Value {
    json!({
        "name": cluster.name, "answered_by": cluster.answered_by,
        "observed_at": time(cluster.observed_at.as_ref()),
        "nodes": cluster.nodes.iter().map(node).collect::<Value>(),
        "links": cluster.links.iter().map(link).collect::<Value>(),
        "partitions": cluster.partitions.iter().map(partition).collect::<Value>(),
    })
}

fn node(node: &Node) -> Value {
    json!({
        "node_id": node.node_id, "incarnation": node.incarnation, "state": state(node),
        "public_address": node.public_address, "mesh_address": node.mesh_address,
        "zone": node.zone, "release": node.release, "beat": node.beat,
        "last_beat_seconds": node.last_beat.as_ref().and_then(seconds),
        "sessions": node.sessions, "partitions": node.partitions,
        "started_at": time(node.started_at.as_ref()),
    })
}

fn link(link: &Link) -> Value {
    json!({
        "node_id": link.node_id, "connections": link.connections,
        "round_trip_seconds": link.round_trip.as_ref().and_then(seconds),
        "backlog_bytes": link.backlog_bytes, "problem": link.problem,
    })
}

fn partition(row: &Partition) -> Value {
    json!({
        "partition": row.partition, "owner": row.owner, "epoch": row.epoch,
        "commit_no": row.commit_no,
    })
}

/// A node's state without its prefix. Example: `DRAINING`.
pub fn state(node: &Node) -> &'static str {
    let name = node.state().as_str_name();
    name.strip_prefix("NODE_STATE_").unwrap_or(name)
}

/// A duration in seconds; `None` for a negative one.
pub fn seconds(duration: &prost_types::Duration) -> Option<f64> {
    Duration::try_from(*duration).ok().map(|duration| duration.as_secs_f64())
}

/// RFC 3339 in UTC with microseconds.
fn time(stamp: Option<&prost_types::Timestamp>) -> Option<String> {
    let stamp = stamp?;
    jiff::Timestamp::new(stamp.seconds, stamp.nanos).ok().map(|stamp| format!("{stamp:.6}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::cluster::v1::NodeState;

    #[test]
    fn scripts_see_everything() {
        let node = |id: &str, state: NodeState| Node {
            node_id: id.into(),
            state: state.into(),
            last_beat: Some(prost_types::Duration { seconds: 0, nanos: 250_000_000 }),
            ..Node::default()
        };
        let shown = Cluster {
            observed_at: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 12_000 }),
            nodes: vec![node("a", NodeState::Live), node("b", NodeState::Dead)],
            links: vec![Link { node_id: "b".into(), ..Link::default() }],
            partitions: vec![Partition { owner: "a".into(), epoch: 3, ..Partition::default() }],
            ..Cluster::default()
        };
        let json = cluster(&shown);
        assert_eq!(json["observed_at"], "2023-11-14T22:13:20.000012Z");
        assert_eq!(json["nodes"][1]["state"], "DEAD");
        assert_eq!(json["nodes"][0]["last_beat_seconds"], 0.25);
        assert_eq!(json["nodes"][0]["started_at"], Value::Null);
        assert_eq!(json["links"][0]["round_trip_seconds"], Value::Null);
        assert_eq!(json["partitions"][0]["epoch"], 3);
    }
}
