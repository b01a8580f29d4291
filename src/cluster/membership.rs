//! What one node concludes about the others from its reads of the node table.
//!
//! *Only this node's own clock counts.* A living node raises its beat; whoever
//! reads the table sees it change, and measures on the boot clock for how long it
//! has not. No time that another machine or the store wrote is ever compared.
//!
//! *How long a beat has certainly not changed.* A read shows some moment between
//! its begin and its end. A beat that was first seen in a read that ended at F,
//! and is still the same in a read that began at L, was the same from F to L.
//!
//! *Silence of the store is not silence of the peers.* A read that failed, or two
//! that lie further apart than [`Rules::gap`] (the store hung, or this process
//! was stopped), make observation start afresh: every beat then counts as new.
//!
//! *A refused dial hastens, and no more than that.* A broken link and a refused
//! redial mean that the process is gone, or that something between the two
//! refuses: the beat decides, only sooner. A beat that was raised after the
//! refusal disproves it, until there has been a link again.
//!
//! *Where liveness is a lock* ([`NodeRecord::locked`]), a node whose lock is seen
//! free twice in a row is dead, and one that holds it is alive, whatever its beat.
//!
//! The conclusion is a [`Suspect`]: to be declared dead by compare-and-set on the
//! very beat that was seen, so that one which beats after all is not harmed.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::store::cluster::{NodeRecord, NodeState};

/// How long is long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// A beat unchanged for so long is that of a dead node.
    pub silence: Duration,
    /// So long, counted from the refused redial, when the link is broken.
    pub refused: Duration,
    /// Reads that end further apart than this prove nothing about the time
    /// between them.
    pub gap: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(2),
            refused: Duration::from_millis(700),
            gap: Duration::from_millis(600),
        }
    }
}

/// An incarnation that ought to be declared dead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// The node.
    pub id: String,
    /// Which run of it.
    pub incarnation: String,
    /// The beat that did not change.
    pub beat: u64,
}

/// What the table says of the observer itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It takes part, or left by itself.
    Fine,
    /// It was declared dead, or its row is gone: it must not go on.
    Dead,
    /// Another incarnation stands in its place: it must not go on.
    Replaced,
}

/// What is known about one node.
#[derive(Debug, Clone)]
struct Peer {
    record: NodeRecord,
    /// The end of the read in which this beat was first seen.
    since: Duration,
    link: Link,
    /// How many reads in a row showed its lock free.
    free: u8,
}

/// What the links tell about a peer's incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// Nothing that would speak against it.
    Fine,
    /// Broken, and a redial was refused at this time.
    Refused(Duration),
    /// It has beaten after a refusal: what refuses is not its death.
    Disproved,
}

/// The observer.
#[derive(Debug, Clone)]
pub struct Membership {
    id: String,
    incarnation: String,
    rules: Rules,
    peers: BTreeMap<String, Peer>,
    /// Begin and end of the newest of an unbroken row of reads.
    last: Option<(Duration, Duration)>,
    /// When the live nodes, or what they are, were last seen to change.
    changed: Duration,
    fate: Fate,
}

impl Membership {
    /// Nothing is known yet. `id` and `incarnation` are the observer's own.
    pub fn new(id: &str, incarnation: &str, rules: Rules) -> Self {
        Self {
            id: id.to_owned(),
            incarnation: incarnation.to_owned(),
            rules,
            peers: BTreeMap::new(),
            last: None,
            changed: Duration::ZERO,
            fate: Fate::Fine,
        }
    }

    /// A read of the node table that began and ended at these times of the boot
    /// clock. Reads are given in the order in which they began.
    pub fn observed(&mut self, began: Duration, ended: Duration, nodes: &[NodeRecord]) {
        let unbroken = self.last.filter(|(_, end)| ended.saturating_sub(*end) <= self.rules.gap);
        let before = self.composition();
        let known = std::mem::take(&mut self.peers);
        self.peers = nodes
            .iter()
            .map(|record| {
                let old = known
                    .get(&record.info.id)
                    .filter(|old| old.record.info.incarnation == record.info.incarnation);
                (record.info.id.clone(), Peer::seen(record, old, unbroken, ended))
            })
            .collect();
        self.last = Some((began, ended));
        if self.composition() != before {
            self.changed = ended;
        }
        self.fate = self.judge();
    }

    /// A read of the node table failed: observation starts afresh.
    pub fn read_failed(&mut self) {
        self.last = None;
    }

    /// The link to an incarnation broke, and a redial was refused at this time.
    /// May be told again at each redial.
    pub fn link_refused(&mut self, id: &str, incarnation: &str, at: Duration) {
        if let Some(peer) = self.incarnation_mut(id, incarnation)
            && peer.link == Link::Fine
        {
            peer.link = Link::Refused(at);
        }
    }

    /// There is a link to an incarnation.
    pub fn link_up(&mut self, id: &str, incarnation: &str) {
        if let Some(peer) = self.incarnation_mut(id, incarnation) {
            peer.link = Link::Fine;
        }
    }

    /// Peers that ought to be declared dead now, by id.
    pub fn suspects(&self, now: Duration) -> Vec<Suspect> {
        // What was seen long ago proves nothing about what is.
        let Some((began, _)) =
            self.last.filter(|(_, ended)| now.saturating_sub(*ended) <= self.rules.gap)
        else {
            return Vec::new();
        };
        self.peers()
            .filter(|peer| peer.is_silent(began, &self.rules))
            .map(|peer| Suspect {
                id: peer.record.info.id.clone(),
                incarnation: peer.record.info.incarnation.clone(),
                beat: peer.record.beat,
            })
            .collect()
    }

    /// From when on a read could make a suspect of somebody, if nothing changes;
    /// `None` when nobody is doubted. Lets the next read begin just then.
    pub fn look_at(&self) -> Option<Duration> {
        self.last?;
        self.peers()
            .filter(|peer| peer.record.locked.is_none())
            .filter_map(|peer| match peer.link {
                Link::Refused(_) => Some(peer.dead_from(&self.rules)),
                Link::Fine | Link::Disproved => None,
            })
            .min()
    }

    /// The nodes that take part, this one included, by id.
    pub fn live(&self) -> impl Iterator<Item = &NodeRecord> {
        self.peers.values().map(|peer| &peer.record).filter(|record| record.state.is_alive())
    }

    /// Every row of the newest read, dead nodes included, by id.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeRecord> {
        self.peers.values().map(|peer| &peer.record)
    }

    /// A node's row.
    pub fn node(&self, id: &str) -> Option<&NodeRecord> {
        self.peers.get(id).map(|peer| &peer.record)
    }

    /// For how long a node's beat has been seen not to change; `None` for one
    /// that is not known.
    pub fn beat_age(&self, id: &str, now: Duration) -> Option<Duration> {
        self.peers.get(id).map(|peer| now.saturating_sub(peer.since))
    }

    /// When the live nodes, or what they are, were last seen to change.
    pub fn changed(&self) -> Duration {
        self.changed
    }

    /// When the newest successful read began; `None` before the first one and
    /// after a failed one.
    pub fn last_read(&self) -> Option<Duration> {
        self.last.map(|(began, _)| began)
    }

    /// What the table says of this node.
    pub fn fate(&self) -> Fate {
        self.fate
    }

    /// The other nodes that take part.
    fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.peers
            .values()
            .filter(|peer| peer.record.info.id != self.id && peer.record.state.is_alive())
    }

    fn incarnation_mut(&mut self, id: &str, incarnation: &str) -> Option<&mut Peer> {
        self.peers.get_mut(id).filter(|peer| peer.record.info.incarnation == incarnation)
    }

    fn composition(&self) -> Vec<(String, String, NodeState)> {
        self.live()
            .map(|node| (node.info.id.clone(), node.info.incarnation.clone(), node.state))
            .collect()
    }

    fn judge(&self) -> Fate {
        match self.peers.get(&self.id) {
            Some(me) if me.record.info.incarnation != self.incarnation => Fate::Replaced,
            Some(me) if me.record.state != NodeState::Dead => Fate::Fine,
            _ => Fate::Dead,
        }
    }
}

impl Peer {
    /// What a read that ended at `ended` adds. `old` is the same incarnation as
    /// of the read before, `unbroken` that read's times if nothing was missed.
    fn seen(
        record: &NodeRecord,
        old: Option<&Peer>,
        unbroken: Option<(Duration, Duration)>,
        ended: Duration,
    ) -> Self {
        let record = record.clone();
        let free = u8::from(record.locked == Some(false));
        let Some(old) = old else {
            return Self { record, since: ended, link: Link::Fine, free };
        };
        let same = old.record.beat == record.beat;
        let link = match (old.link, unbroken) {
            // The read before began after the refusal and still had another
            // beat: this one was raised since.
            (Link::Refused(at), Some((began, _))) if !same && began >= at => Link::Disproved,
            (link, _) => link,
        };
        match unbroken {
            Some(_) => Self {
                record,
                since: if same { old.since } else { ended },
                link,
                free: if free == 0 { 0 } else { old.free.saturating_add(1) },
            },
            None => Self { record, since: ended, link, free },
        }
    }

    /// The time from which on its beat must not be the same.
    fn dead_from(&self, rules: &Rules) -> Duration {
        let silent = self.since + rules.silence;
        match self.link {
            Link::Refused(at) => silent.min(self.since.max(at) + rules.refused),
            Link::Fine | Link::Disproved => silent,
        }
    }

    /// Whether a read that began at this time, and showed what is known, proves
    /// it dead.
    fn is_silent(&self, began: Duration, rules: &Rules) -> bool {
        match self.record.locked {
            Some(_) => self.free >= 2,
            None => began >= self.dead_from(rules),
        }
    }
}

#[cfg(test)]
mod tests;
