//! Who is at the two ends of a link, and whether they belong together. Pure.
//!
//! Each side says Hello first and looks at the other's. The one that refuses
//! says exactly why, and both log it: mixed settings must be found by reading
//! one line.

use std::sync::Arc;

use tonic::Status;
use tonic_types::StatusExt as _;

use super::release::spoken;
use crate::proto::cluster::v1 as pb;
use crate::refusal::{Reason, Refusal};
use crate::security::mesh::NodeName;

/// What this node says of itself on every link.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The cluster's name.
    pub cluster: String,
    /// This node's id.
    pub node_id: Arc<str>,
    /// This run of it.
    pub incarnation: Arc<str>,
    /// The newest migration of the store that this release knows.
    pub schema: u32,
    /// How many partitions there are.
    pub partitions: u16,
    /// Which database it writes to.
    pub system_id: String,
    /// The release.
    pub release: String,
}

impl Identity {
    /// The Hello of one of its links.
    pub(super) fn hello(&self, timeline: u64, connection: u32) -> pb::Hello {
        pb::Hello {
            cluster: self.cluster.clone(),
            node_id: self.node_id.to_string(),
            incarnation: self.incarnation.to_string(),
            protocol: spoken(),
            schema: self.schema,
            partitions: self.partitions.into(),
            system_id: self.system_id.clone(),
            timeline,
            release: self.release.clone(),
            connection,
        }
    }

    /// Looks at the other side's Hello. `name` is what its certificate says,
    /// `timeline` the newest that was seen anywhere. Whether its incarnation is
    /// the one in the membership is looked at apart: the membership may be
    /// behind by a moment.
    pub(super) fn check(
        &self,
        hello: &pb::Hello,
        name: &NodeName,
        timeline: u64,
    ) -> Result<(), HelloRefused> {
        use Cause::{Cluster, Node, Partitions, Protocol, System, Timeline};
        let refuse = |cause, why: String| Err(HelloRefused { cause, why });
        let shown = |text: &str| text.chars().take(64).collect::<String>();
        // One newer is fine too: it speaks this one, and is rolled in first.
        let own = spoken();
        if hello.protocol.abs_diff(own) > 1 {
            let why = format!(
                "{} to {own} are spoken here, {} there",
                own.saturating_sub(1),
                hello.protocol
            );
            return refuse(Protocol, why);
        }
        if hello.cluster != self.cluster {
            let (own, other) = (&self.cluster, shown(&hello.cluster));
            return refuse(Cluster, format!("this node is of cluster {own}, the other of {other}"));
        }
        if hello.node_id == *self.node_id {
            return refuse(Node, format!("{} is this node's own id", self.node_id));
        }
        if !name.covers(&hello.node_id) {
            let id = shown(&hello.node_id);
            return refuse(Node, format!("its certificate does not name the node {id}"));
        }
        if hello.partitions != u32::from(self.partitions) {
            let (own, other) = (self.partitions, hello.partitions);
            return refuse(Partitions, format!("{own} here (chat.partitions), {other} there"));
        }
        if hello.system_id != self.system_id {
            let why = "the two nodes write to different databases".to_owned();
            return refuse(System, why);
        }
        if hello.timeline < timeline {
            let why = format!(
                "it writes to a primary of timeline {}, but {timeline} has been seen",
                hello.timeline
            );
            return refuse(Timeline, why);
        }
        Ok(())
    }
}

/// What does not fit; the metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// The certificate, or the handshake.
    Certificate,
    /// The node's id.
    Node,
    /// The cluster's name.
    Cluster,
    /// The number of partitions.
    Partitions,
    /// The protocol.
    Protocol,
    /// The database.
    System,
    /// An older primary.
    Timeline,
    /// Another run of the node than the membership's.
    Incarnation,
    /// No Hello, or not in time.
    Missing,
}

impl Cause {
    pub(super) const ALL: [Cause; 9] = [
        Cause::Certificate,
        Cause::Node,
        Cause::Cluster,
        Cause::Partitions,
        Cause::Protocol,
        Cause::System,
        Cause::Timeline,
        Cause::Incarnation,
        Cause::Missing,
    ];

    /// The word in metrics and at the beginning of the sentence.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Cause::Certificate => "certificate",
            Cause::Node => "node",
            Cause::Cluster => "cluster",
            Cause::Partitions => "partitions",
            Cause::Protocol => "protocol",
            Cause::System => "system",
            Cause::Timeline => "timeline",
            Cause::Incarnation => "incarnation",
            Cause::Missing => "missing",
        }
    }
}

/// A Hello that is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {why}", cause.as_str())]
pub(crate) struct HelloRefused {
    pub(crate) cause: Cause,
    pub(crate) why: String,
}

impl HelloRefused {
    /// As the answer to who dialed.
    pub(super) fn status(&self) -> Status {
        Refusal::new(Reason::LinkRefused, self.to_string()).into()
    }

    /// What the other side said, if it is that.
    pub(super) fn of(status: &Status) -> Option<Self> {
        let info = status.get_details_error_info()?;
        if info.reason != Reason::LinkRefused.as_str() {
            return None;
        }
        let (word, why) = status.message().split_once(": ")?;
        let cause = Cause::ALL.into_iter().find(|cause| cause.as_str() == word)?;
        Some(Self { cause, why: why.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::PROTOCOL;
    use super::*;

    fn identity(node: &str) -> Identity {
        Identity {
            cluster: "c".into(),
            node_id: node.into(),
            incarnation: "1".into(),
            schema: 1,
            partitions: 8,
            system_id: "db".into(),
            release: "0".into(),
        }
    }

    #[test]
    fn what_does_not_belong_together_is_refused_with_the_reason() {
        let me = identity("a");
        let fine = identity("b").hello(3, 0);
        let any = NodeName::Any;
        assert_eq!(me.check(&fine, &any, 3), Ok(()));
        assert_eq!(me.check(&fine, &NodeName::One("b".into()), 2), Ok(()));
        type Spoil = fn(&mut pb::Hello);
        let spoilt: [(Spoil, Cause); 7] = [
            (|hello| hello.cluster = "d".into(), Cause::Cluster),
            (|hello| hello.node_id = "a".into(), Cause::Node),
            (|hello| hello.partitions = 9, Cause::Partitions),
            (|hello| hello.protocol = PROTOCOL + 2, Cause::Protocol),
            (|hello| hello.protocol = PROTOCOL.wrapping_sub(2), Cause::Protocol),
            (|hello| hello.system_id = "other".into(), Cause::System),
            (|hello| hello.timeline = 2, Cause::Timeline),
        ];
        for (spoil, cause) in spoilt {
            let mut hello = fine.clone();
            spoil(&mut hello);
            let refused = me.check(&hello, &any, 3).expect_err(cause.as_str());
            assert_eq!(refused.cause, cause);
            // It survives the way to the other side.
            assert_eq!(HelloRefused::of(&refused.status()), Some(refused));
        }
        let other = me.check(&fine, &NodeName::One("c".into()), 3).expect_err("another's");
        assert_eq!(other.cause, Cause::Node);
    }
}
