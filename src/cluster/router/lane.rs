//! One partition's jobs that are not answered yet. Pure but for the time that it
//! is given.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::chat::{Job, Published};
use crate::cluster::link::convert::Outcome;
use crate::refusal::{Reason, Refusal};

/// Jobs of one partition under way at once.
const WINDOW: usize = 2048;

/// How long a lane rests after NOT_OWNER, unless the owner changes.
const REST: Duration = Duration::from_millis(50);

/// What a retry should wait that found nobody.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// How a job was sent. Links are named by their generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Via {
    Local,
    Link(u64),
    Relay(u64),
    Letter,
}

/// A job in its lane.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) job: Job,
    pub(super) size: usize,
    /// The attempt that is under way.
    pub(super) sent: Option<(u64, Via)>,
    /// An earlier attempt's outcome is not known.
    pub(super) unknown: bool,
}

/// A lane.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) entries: VecDeque<Entry>,
    /// Which route, under which epoch of the owner, has answered: more than one
    /// job may be under way on it.
    proven: Option<(Via, u64)>,
    /// The same, of the one job that finds out.
    proving: Option<(Via, u64)>,
    /// Since when there is no route but a letter.
    lettered: Option<Instant>,
    /// The epoch that refused, and until when it is left alone.
    rest: Option<(u64, Instant)>,
}

impl Lane {
    /// The route to use now, if one may be used.
    pub(super) fn ready(
        &mut self,
        via: Option<Via>,
        now: Instant,
        before_letter: Duration,
    ) -> Option<Via> {
        let since = match via {
            Some(Via::Letter) => *self.lettered.get_or_insert(now),
            _ => {
                self.lettered = None;
                now
            }
        };
        let via = via?;
        let under_way = self.entries.iter().find_map(|entry| entry.sent);
        if under_way.is_some_and(|(_, other)| other != via) {
            return None;
        }
        let early = via == Via::Letter && now.saturating_duration_since(since) < before_letter;
        (!early).then_some(via)
    }

    /// The next entry to be sent by this route.
    pub(super) fn next(&mut self, via: Via, epoch: u64, now: Instant) -> Option<&mut Entry> {
        if self.rest.is_some_and(|(refused, until)| refused == epoch && now < until) {
            return None;
        }
        let first = self.entries.iter().position(|entry| entry.sent.is_none())?;
        // What came back waits for what was sent behind it.
        if self.entries.iter().skip(first).any(|entry| entry.sent.is_some()) {
            return None;
        }
        let window = match via {
            Via::Letter => WINDOW,
            _ if self.proven == Some((via, epoch)) => WINDOW,
            _ => 1,
        };
        if first >= window {
            return None;
        }
        self.proven = self.proven.filter(|(proven, at)| *proven == via && *at == epoch);
        if self.proven.is_none() {
            // Proven when the answer comes, under the epoch it was sent under.
            self.proving = Some((via, epoch));
        }
        self.entries.get_mut(first)
    }

    /// An attempt's outcome. Gives the entry when that is the end of it.
    pub(super) fn answered(
        &mut self,
        attempt: u64,
        outcome: Outcome,
        now: Instant,
    ) -> Option<(Entry, Result<Published, Refusal>)> {
        let mine = |entry: &Entry| entry.sent.is_some_and(|(sent, _)| sent == attempt);
        let place = self.entries.iter().position(mine)?;
        match outcome {
            Outcome::Final(result) => {
                let entry = self.entries.remove(place)?;
                let via = entry.sent.map(|(_, via)| via);
                if self.proving.is_some_and(|(proving, _)| Some(proving) == via) {
                    self.proven = self.proving.take();
                }
                Some((entry, result))
            }
            Outcome::NotOwner | Outcome::Lost => {
                let entry = self.entries.get_mut(place)?;
                entry.sent = None;
                entry.unknown |= outcome == Outcome::Lost;
                let epoch = self.proven.or(self.proving).map_or(0, |(_, epoch)| epoch);
                self.proven = None;
                self.rest = Some((epoch, now + REST));
                None
            }
        }
    }

    /// A link broke.
    pub(super) fn broken(&mut self, generation: u64, mut forget: impl FnMut(u64)) {
        for entry in &mut self.entries {
            if let Some((attempt, Via::Link(over) | Via::Relay(over))) = entry.sent
                && over == generation
            {
                entry.sent = None;
                entry.unknown = true;
                forget(attempt);
            }
        }
    }

    /// There is a better way than by letter: those that were left are not waited
    /// for. Whoever owns the partition finds them sooner or later, in the same
    /// order, and knows them by their names then.
    pub(super) fn recall(&mut self, via: Option<Via>, mut forget: impl FnMut(u64)) {
        if via.is_none_or(|via| via == Via::Letter) {
            return;
        }
        for entry in &mut self.entries {
            if let Some((attempt, Via::Letter)) = entry.sent {
                entry.sent = None;
                entry.unknown = true;
                forget(attempt);
            }
        }
    }

    /// The entries whose time is over, or for which nobody waits.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<(Entry, Refusal)> {
        let over = |entry: &Entry| {
            entry.job.deadline() <= now || (entry.sent.is_none() && entry.job.is_abandoned())
        };
        if !self.entries.iter().any(over) {
            return Vec::new();
        }
        let all = std::mem::take(&mut self.entries);
        let (expired, kept): (VecDeque<_>, VecDeque<_>) = all.into_iter().partition(over);
        self.entries = kept;
        expired.into_iter().map(|entry| (refusal(&entry), entry)).map(|(r, e)| (e, r)).collect()
    }
}

fn refusal(entry: &Entry) -> Refusal {
    let refusal = if entry.sent.is_some() || entry.unknown {
        let rule = "the room's owner did not answer in time; send it again under the same name";
        Refusal::new(Reason::OutcomeUnknown, rule)
    } else {
        Refusal::new(Reason::NotOwner, "no owner of the room could be reached in time")
    };
    refusal.retry_after(RETRY_AFTER)
}
