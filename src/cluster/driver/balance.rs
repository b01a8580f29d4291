//! How many sessions a node sheds when it has clearly more than the others: pure.
//!
//! Nodes join empty, and streams stay where they are for hours: without this a
//! new node would get nothing but newcomers. A node sheds a part of its surplus,
//! waits until those sessions have moved and are counted elsewhere, and looks
//! again; near the mean it stops, so that sessions do not wander.

use std::time::Duration;

/// How long after a round the next may come: clients have moved by then, and
/// the others' beats have told.
pub(super) const ROUND: Duration = Duration::from_secs(4);

/// Over how long the sessions of one round leave.
pub(super) const JITTER: Duration = Duration::from_secs(2);

/// A surplus below this many sessions is left alone.
const SMALL: u64 = 4;

/// A surplus of less than one part in so many of the mean is left alone.
const CLEAR: u64 = 10;

/// How many other nodes are named.
const HINTS: usize = 8;

/// A node that takes sessions.
#[derive(Debug, Clone)]
pub(super) struct Load {
    /// Where clients reach it; empty when it does not say.
    pub(super) address: String,
    /// How many sessions it has.
    pub(super) sessions: u64,
}

/// How many sessions are told to go, and where to: the addresses of nodes below
/// the mean, the emptiest first. `others` are live and do not drain.
pub(super) fn shed(mine: u64, others: &[Load]) -> Option<(usize, Vec<String>)> {
    let all = others.iter().map(|other| other.sessions).sum::<u64>() + mine;
    let mean = all / (others.len() as u64 + 1);
    let surplus = mine.saturating_sub(mean);
    if surplus < SMALL || surplus.saturating_mul(CLEAR) < mean {
        return None;
    }
    let mut below: Vec<&Load> =
        others.iter().filter(|other| other.sessions < mean && !other.address.is_empty()).collect();
    below.sort_by(|a, b| (a.sessions, &a.address).cmp(&(b.sessions, &b.address)));
    let hints: Vec<String> =
        below.into_iter().take(HINTS).map(|other| other.address.clone()).collect();
    // Half of it: others may be shedding to the same nodes.
    let count = usize::try_from(surplus.div_ceil(2)).unwrap_or(usize::MAX);
    (!hints.is_empty()).then_some((count, hints))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(sessions: &[u64]) -> Vec<Load> {
        let load =
            |(at, sessions): (usize, &u64)| Load { address: format!("n{at}"), sessions: *sessions };
        sessions.iter().enumerate().map(load).collect()
    }

    #[test]
    fn a_small_surplus_is_left_alone() {
        assert_eq!(shed(3, &loads(&[0, 0])), None);
        assert_eq!(shed(105, &loads(&[100, 95])), None);
        assert_eq!(shed(0, &loads(&[50])), None);
        assert_eq!(shed(1000, &[]), None);
    }

    #[test]
    fn sessions_go_to_those_below_the_mean() {
        let (count, hints) = shed(300, &loads(&[310, 290, 0])).expect("a surplus");
        assert_eq!(count, 38);
        assert_eq!(hints, ["n2"]);
        let silent = [Load { address: String::new(), sessions: 0 }];
        assert_eq!(shed(100, &silent), None, "nowhere to send them");
    }

    #[test]
    fn within_a_minute_a_new_node_has_its_share() {
        let mut nodes = vec![400_u64, 400, 400, 0];
        for _ in 0..60 / ROUND.as_secs() {
            let before = nodes.clone();
            for at in 0..nodes.len() {
                let others: Vec<Load> = (0..before.len())
                    .filter(|other| *other != at)
                    .map(|other| Load { address: format!("{other}"), sessions: before[other] })
                    .collect();
                let Some((count, hints)) = shed(before[at], &others) else { continue };
                for moved in 0..count {
                    let to: usize = hints[moved % hints.len()].parse().expect("an index");
                    nodes[at] -= 1;
                    nodes[to] += 1;
                }
            }
        }
        let most = nodes.iter().max().copied().expect("nodes");
        assert!(most * 10 <= 300 * 13, "{nodes:?}");
    }
}
