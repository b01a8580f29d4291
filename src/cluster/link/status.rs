//! How the links to another node are, for operators.

use std::time::Duration;

/// The links to one node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkStatus {
    /// The node.
    pub node_id: String,
    /// How many of its connections stand.
    pub connections: u32,
    /// The newest round trip; `None` before the first.
    pub round_trip: Option<Duration>,
    /// Bytes that wait to be sent.
    pub backlog_bytes: u64,
    /// Why there is no link; empty when there is one.
    pub problem: String,
}

impl From<LinkStatus> for crate::proto::cluster::v1::Link {
    fn from(status: LinkStatus) -> Self {
        let round_trip = status.round_trip.and_then(super::convert::duration);
        Self {
            node_id: status.node_id,
            connections: status.connections,
            round_trip,
            backlog_bytes: status.backlog_bytes,
            problem: status.problem,
        }
    }
}

impl super::Links {
    /// The nodes to which this one sends what is appended to a room, in order.
    pub fn followers(&self, room: &crate::store::chat::RoomId) -> Vec<String> {
        self.shared.interest.nodes(room)
    }
}
