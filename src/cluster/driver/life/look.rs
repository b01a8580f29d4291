//! What a read shows, and what follows from it beside the moves of partitions.

use std::time::Duration;

use super::{End, Life, Order};
use crate::clock;
use crate::cluster::driver::balance::{self, Load};
use crate::cluster::driver::drain::{Orders, Standing};
use crate::cluster::driver::read::Read;
use crate::cluster::driver::seen::Picture;
use crate::cluster::driver::step;
use crate::cluster::membership::Fate;
use crate::refusal::{Reason, Refusal};
use crate::store::StoreError;
use crate::store::cluster::{NodeRecord, NodeState, Observation, StoreIdentity};

/// How often it is asked which database this is.
const ASK: Duration = Duration::from_secs(5);

/// How often old rows are removed.
const TIDY: Duration = Duration::from_secs(600);

/// Without a good read for so long the node says that it cannot reach the store.
const UNREACHABLE: Duration = Duration::from_secs(2);

/// How often sessions are told that nothing is reached, and when they may look
/// whether that has changed.
const TURN_AWAY: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_secs(1);

impl Life<'_> {
    /// Whether the next read asks which database it is.
    pub(super) fn asks(&mut self) -> bool {
        let now = clock::since_boot();
        let asks = self.ask || now >= self.ask_at;
        if asks {
            self.ask_at = now + ASK;
        }
        asks
    }

    /// A read came to its end.
    pub(super) fn looked(&mut self, read: Read) -> Option<End> {
        match read.outcome {
            Ok(observation) => {
                self.ask = false;
                if let Some(identity) = read.identity
                    && !self.is_ours(identity)
                {
                    self.ask = true;
                    self.membership.read_failed();
                    return None;
                }
                self.read = read.began;
                self.unreachable = None;
                self.turned_away = None;
                self.observed(observation, read.began, read.ended)
            }
            Err(error) => {
                self.failed(&error, read.ended);
                None
            }
        }
    }

    fn observed(&mut self, seen: Observation, began: Duration, ended: Duration) -> Option<End> {
        self.note_replaced(&seen.nodes);
        self.lasting.ended.observed(&seen.nodes, ended);
        self.membership.observed(began, ended, &seen.nodes);
        if self.membership.fate() != Fate::Fine {
            return Some(End::Died);
        }
        self.table.read(&seen.partitions, &self.parts.partitions.positions());
        let rows = self.table.rows();
        self.orphans.observed(&seen.nodes, &rows, ended);
        self.nodes = seen.nodes;
        self.parts.partitions.observed(&seen.partitions, began);
        let alive: Vec<NodeRecord> = self.membership.live().cloned().collect();
        self.parts.mesh.observed(&alive, &rows, began);
        self.show(ended);
        self.follow_up(ended);
        None
    }

    /// What a read asks for beside moves.
    fn follow_up(&mut self, now: Duration) {
        for suspect in self.membership.suspects(now) {
            if self.deciding.insert(suspect.incarnation.clone()) {
                self.steps.push(step::declare(&self.parts, suspect));
            }
        }
        let over: Vec<String> = self.lasting.over.iter().cloned().collect();
        for incarnation in over {
            if self.deciding.insert(incarnation.clone()) {
                self.steps.push(step::recover(&self.parts, incarnation));
            }
        }
        let mine = self.membership.node(&self.parts.info.id).map(|node| node.state);
        match mine {
            Some(NodeState::Draining) if !self.is_draining() => self.ordered(Order::HandOver),
            Some(NodeState::Live) if self.is_draining() && !self.marking => {
                self.marking = true;
                self.steps.push(step::mark_draining(&self.parts, &self.incarnation));
            }
            _ => {}
        }
        if now >= self.tidy_at {
            self.tidy_at = now + TIDY;
            let over = self.lasting.ended.long_ago(now);
            self.steps.push(step::tidy(&self.parts, over));
        }
        self.balance(now);
    }

    /// Incarnations that are over: dead by their rows, gone by themselves, or
    /// with another in their place.
    fn note_replaced(&mut self, nodes: &[NodeRecord]) {
        for node in nodes {
            let before = self.membership.node(&node.info.id);
            let was = before.map(|before| (&before.info.incarnation, before.state));
            let over = match was {
                Some((old, _)) if *old != node.info.incarnation => Some(old.clone()),
                // Seen alive, or not at all, and now not.
                was if !node.state.is_alive() && was.is_none_or(|(_, state)| state.is_alive()) => {
                    Some(node.info.incarnation.clone())
                }
                _ => None,
            };
            self.lasting.over.extend(over);
        }
    }

    /// Shows the newest picture to operators and metrics.
    fn show(&mut self, ended: Duration) {
        let metrics = &self.parts.metrics;
        metrics.nodes(self.nodes.iter().map(|node| node.state));
        metrics.beat_age.set(ended.saturating_sub(self.beaten).as_secs_f64());
        let partitions = self.table.rows();
        let lives =
            |id: &str| self.nodes.iter().any(|node| node.info.id == id && node.state.is_alive());
        let me = self.parts.info.id.as_str();
        let held = &self.table.held;
        let owned = |id: &str, partition: &u16| {
            if id == me { held.contains_key(partition) } else { lives(id) }
        };
        let unowned = partitions.iter().filter(|row| !owned(&row.owner, &row.partition)).count();
        metrics.unowned.set(i64::try_from(unowned).unwrap_or(i64::MAX));
        metrics.owned.set(i64::try_from(held.len()).unwrap_or(i64::MAX));
        if unowned == 0 && !partitions.is_empty() {
            self.lasting.settling = None;
        }
        let changed = |node: &NodeRecord| {
            let age = self.membership.beat_age(&node.info.id, ended).unwrap_or_default();
            (node.clone(), ended.saturating_sub(age))
        };
        let nodes = self.nodes.iter().map(changed).collect();
        let observed_at = clock::micros(clock::Clock::now(&clock::System));
        self.seen.show(Picture { observed_at, nodes, partitions });
    }

    /// Where sessions may go: nodes that live and do not drain.
    fn elsewhere(&self) -> Vec<String> {
        let others = self.others().map(|node| node.info.public_address.clone());
        others.filter(|address| !address.is_empty()).collect()
    }

    fn others(&self) -> impl Iterator<Item = &NodeRecord> {
        let me = self.parts.info.id.as_str();
        self.nodes.iter().filter(move |node| node.info.id != me && node.state == NodeState::Live)
    }

    /// Sheds sessions that others have room for; all of them once a node that
    /// drains has nothing else left.
    fn balance(&mut self, now: Duration) {
        if now < self.balance_at {
            return;
        }
        let sessions = self.parts.partitions.sessions();
        let shed = if self.is_draining() {
            let hints = self.elsewhere();
            (self.is_free() && sessions > 0 && !hints.is_empty()).then_some((sessions, hints))
        } else {
            let load = |node: &NodeRecord| Load {
                address: node.info.public_address.clone(),
                sessions: u64::from(node.sessions),
            };
            let others: Vec<Load> = self.others().map(load).collect();
            balance::shed(sessions as u64, &others)
        };
        let Some((count, hints)) = shed else { return };
        self.balance_at = now + balance::ROUND;
        let moved = self.parts.partitions.move_sessions(count, &hints, balance::JITTER);
        self.parts.metrics.sessions_moved.inc_by(moved as u64);
        tracing::info!(moved, sessions, "sessions are told to go to other nodes");
    }

    /// Whether a node that drains has nothing left, or nobody to give it to.
    fn is_free(&self) -> bool {
        self.table.is_free_of(&self.parts.info.id) || self.others().next().is_none()
    }

    /// Tells how far the node is.
    pub(super) fn stand(&self, orders: &Orders) {
        let draining = self.is_draining();
        orders.tell(Standing {
            draining,
            free: draining && !self.nodes.is_empty() && self.is_free(),
            left: false,
            incarnation: self.incarnation.clone(),
            elsewhere: self.elsewhere(),
        });
    }

    /// A read failed: nothing is concluded from before it.
    fn failed(&mut self, error: &StoreError, now: Duration) {
        tracing::warn!(%error, "the cluster's tables could not be read");
        self.parts.metrics.read_failures.inc();
        self.parts.metrics.beat_age.set(now.saturating_sub(self.beaten).as_secs_f64());
        self.membership.read_failed();
        self.ask = true;
        if now.saturating_sub(self.read) < UNREACHABLE {
            return;
        }
        if self.unreachable.is_none() {
            self.unreachable = Some(self.parts.readiness.hold("store reachable"));
        }
        let linked = self.parts.mesh.links().iter().any(|link| link.connections > 0);
        let due = self.turned_away.is_none_or(|at| now.saturating_sub(at) >= TURN_AWAY);
        if !linked && due {
            self.turned_away = Some(now);
            tracing::warn!("neither the store nor another node is reached: sessions are sent away");
            // Tells nobody, but the end of each session names them.
            self.parts.partitions.move_sessions(0, &self.elsewhere(), Duration::ZERO);
            let why = "the node reaches neither the store nor another node";
            let why = Refusal::new(Reason::StoreUnavailable, why).retry_after(AGAIN);
            self.parts.partitions.turn_away(&why);
        }
    }

    /// Whether the database is the one that is known, of the same timeline or a
    /// newer one.
    fn is_ours(&mut self, now: StoreIdentity) -> bool {
        let known = &self.lasting.identity;
        if now.system_id != known.system_id || now.timeline < known.timeline {
            if self.foreign.is_none() {
                tracing::error!(
                    timeline = now.timeline,
                    known = known.timeline,
                    "this is another database, or an older primary of ours: it is not used"
                );
                self.foreign = Some(self.parts.readiness.hold("the newest primary"));
                self.drop_all();
            }
            return false;
        }
        self.foreign = None;
        if now.timeline > known.timeline {
            tracing::warn!(
                timeline = now.timeline,
                "a standby was promoted: everything is read anew"
            );
            self.lasting.identity = now;
            let info = self.parts.info.clone();
            let info =
                crate::store::cluster::NodeInfo { incarnation: self.incarnation.clone(), ..info };
            self.parts.mesh.joined(&info, &self.lasting.identity);
            self.drop_all();
        }
        true
    }

    /// Everything in memory may be ahead of the database.
    fn drop_all(&mut self) {
        for partition in 0..self.parts.partitions.count() {
            self.parts.partitions.lose(partition);
            self.parts.partitions.unlinked(partition);
            if let Some(epoch) = self.table.held.get(&partition) {
                self.parts.mesh.lost(partition, *epoch);
            }
        }
        self.table.forget_rows();
        self.nodes.clear();
    }
}
