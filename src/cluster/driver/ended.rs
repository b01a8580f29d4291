//! For how long incarnations have been over, by this node's own clock: no time
//! that another machine wrote is compared, and a node that ran for a year is
//! told of for as long as one that ran for a minute.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::store::cluster::NodeRecord;

/// How long rows stay after this node first saw that they are over: every other
/// node has read them by then.
const KEPT: Duration = Duration::from_secs(86_400);

/// When each incarnation that is over was first seen to be.
#[derive(Debug, Default)]
pub(super) struct Ended(BTreeMap<String, Duration>);

impl Ended {
    /// What a read showed that ended at this time of the boot clock.
    pub(super) fn observed(&mut self, nodes: &[NodeRecord], now: Duration) {
        let over = nodes.iter().filter(|node| !node.state.is_alive());
        let before = std::mem::take(&mut self.0);
        self.0 = over
            .map(|node| {
                let incarnation = node.info.incarnation.clone();
                let since = before.get(&incarnation).copied().unwrap_or(now);
                (incarnation, since)
            })
            .collect();
    }

    /// The incarnations whose rows nobody needs any more.
    pub(super) fn long_ago(&self, now: Duration) -> Vec<String> {
        let old = self.0.iter().filter(|(_, since)| now.saturating_sub(**since) >= KEPT);
        old.map(|(incarnation, _)| incarnation.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::cluster::{NodeInfo, NodeState};

    fn row(incarnation: &str, state: NodeState) -> NodeRecord {
        let info = NodeInfo {
            id: "a".to_owned(),
            incarnation: incarnation.to_owned(),
            public_address: String::new(),
            mesh_address: String::new(),
            zone: String::new(),
            release: String::new(),
            started_at: 0,
        };
        NodeRecord { info, state, beat: 1, sessions: 0, locked: None }
    }

    #[test]
    fn a_row_stays_for_a_day_after_its_end_however_long_it_lived() {
        let mut ended = Ended::default();
        let second = Duration::from_secs(1);
        let (end, later) = (KEPT * 400, KEPT * 401);
        ended.observed(&[row("i", NodeState::Live)], end - second);
        ended.observed(&[row("i", NodeState::Dead)], end);
        ended.observed(&[row("i", NodeState::Dead)], later - second);
        assert!(ended.long_ago(later - second).is_empty());
        assert_eq!(ended.long_ago(later), ["i"]);
        // Another one took its place, and ended in its turn.
        ended.observed(&[row("j", NodeState::Left)], later);
        assert!(ended.long_ago(later).is_empty());
        assert_eq!(ended.long_ago(later + KEPT), ["j"]);
    }
}
