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
    unknown: bool,
}

/// How many attempts are under way. Kept, since a sender may have a whole window
/// of them, which is not to be gone through for each message.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct UnderWay {
    all: usize,
    /// Those of the entries before the first that has none.
    leading: usize,
    by_letter: usize,
}

/// A lane.
#[derive(Debug, Default)]
pub(super) struct Lane {
    entries: VecDeque<Entry>,
    under_way: UnderWay,
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
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn push(&mut self, job: Job, size: usize) {
        self.entries.push_back(Entry { job, size, sent: None, unknown: false });
    }

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
        if self.under_way.all > 0 {
            let first = self.entries.iter().find_map(|entry| entry.sent);
            if first.is_some_and(|(_, other)| other != via) {
                return None;
            }
        }
        let early = via == Via::Letter && now.saturating_duration_since(since) < before_letter;
        (!early).then_some(via)
    }

    /// The next job to be sent by this route; [`Self::sent`] when it was.
    pub(super) fn next(&mut self, via: Via, epoch: u64, now: Instant) -> Option<&Job> {
        if self.rest.is_some_and(|(refused, until)| refused == epoch && now < until) {
            return None;
        }
        let first = self.under_way.leading;
        // What came back waits for what was sent behind it.
        if first == self.entries.len() || self.under_way.all > first {
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
        self.entries.get(first).map(|entry| &entry.job)
    }

    /// The next job was sent.
    pub(super) fn sent(&mut self, attempt: u64, via: Via) {
        if let Some(entry) = self.entries.get_mut(self.under_way.leading) {
            entry.sent = Some((attempt, via));
            self.under_way.leading += 1;
            self.under_way.all += 1;
            self.under_way.by_letter += usize::from(via == Via::Letter);
        }
    }

    /// An attempt is under way no more; its entry waits again.
    fn came_back(&mut self, place: usize, unknown: bool) -> Option<u64> {
        let entry = self.entries.get_mut(place)?;
        let (attempt, via) = entry.sent.take()?;
        entry.unknown |= unknown;
        self.under_way.all -= 1;
        self.under_way.leading = self.under_way.leading.min(place);
        self.under_way.by_letter -= usize::from(via == Via::Letter);
        Some(attempt)
    }

    /// All attempts that went the ways that are no more; their outcome is unknown.
    fn come_back(&mut self, way: impl Fn(Via) -> bool, mut forget: impl FnMut(u64)) {
        for place in 0..self.entries.len() {
            if self.entries[place].sent.is_some_and(|(_, via)| way(via)) {
                self.came_back(place, true).into_iter().for_each(&mut forget);
            }
        }
    }

    fn count(&self) -> UnderWay {
        let sent = || self.entries.iter().map(|entry| entry.sent);
        UnderWay {
            all: sent().flatten().count(),
            leading: sent().take_while(Option::is_some).count(),
            by_letter: sent().flatten().filter(|(_, via)| *via == Via::Letter).count(),
        }
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
                self.under_way.all -= 1;
                self.under_way.leading -= usize::from(place < self.under_way.leading);
                self.under_way.by_letter -= usize::from(via == Some(Via::Letter));
                if self.proving.is_some_and(|(proving, _)| Some(proving) == via) {
                    self.proven = self.proving.take();
                }
                Some((entry, result))
            }
            Outcome::NotOwner | Outcome::Lost => {
                self.came_back(place, outcome == Outcome::Lost);
                // Of a window that is refused whole, the first one knows the epoch.
                if let Some((_, epoch)) = self.proven.or(self.proving) {
                    self.rest = Some((epoch, now + REST));
                }
                self.proven = None;
                self.proving = None;
                None
            }
        }
    }

    /// A link broke.
    pub(super) fn broken(&mut self, generation: u64, forget: impl FnMut(u64)) {
        let over = |via| via == Via::Link(generation) || via == Via::Relay(generation);
        self.come_back(over, forget);
    }

    /// There is a better way than by letter: those that were left are not waited
    /// for. Whoever owns the partition finds them sooner or later, in the same
    /// order, and knows them by their names then.
    pub(super) fn recall(&mut self, via: Option<Via>, forget: impl FnMut(u64)) {
        if self.under_way.by_letter > 0 && via.is_some_and(|via| via != Via::Letter) {
            self.come_back(|via| via == Via::Letter, forget);
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
        self.under_way = self.count();
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

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use tokio::sync::oneshot;

    use super::*;
    use crate::chat::{Content, Proposal};

    /// A job that is over at a time.
    fn job(deadline: Instant) -> Job {
        let proposal = Proposal {
            room: "lobby".into(),
            sender: "user/alice@example".parse().expect("a principal"),
            client_message_id: "a-1".into(),
            after: None,
            content: Content::SetTitle { title: String::new() },
        };
        // Whoever waits for it is gone at once.
        Job::from_peer(proposal, None, deadline, oneshot::channel().0)
    }

    /// What is said to be next, by going through all entries.
    fn next(lane: &Lane) -> Option<usize> {
        let first = lane.entries.iter().position(|entry| entry.sent.is_none())?;
        lane.entries.iter().skip(first).all(|entry| entry.sent.is_none()).then_some(first)
    }

    #[tokio::test]
    async fn what_is_under_way_is_known_whatever_happened() {
        let begun = Instant::now();
        for seed in 0..50 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (mut lane, mut attempt) = (Lane::default(), 0);
            for step in 0..400 {
                let now = begun + REST * step;
                let via =
                    [Via::Link(1), Via::Relay(2), Via::Letter, Via::Local][rng.random_range(0..4)];
                let any: Vec<u64> =
                    lane.entries.iter().filter_map(|entry| entry.sent.map(|sent| sent.0)).collect();
                match rng.random_range(0..10) {
                    0..3 => lane.push(job(now + REST * rng.random_range(1..60)), 1),
                    3..7 => {
                        let expected = next(&lane);
                        let found = lane.next(via, 1, now).is_some();
                        assert!(!found || expected == Some(lane.under_way.leading), "seed {seed}");
                        if found {
                            attempt += 1;
                            lane.sent(attempt, via);
                        }
                    }
                    7 if !any.is_empty() => {
                        let outcome =
                            [Outcome::NotOwner, Outcome::Lost][rng.random_range(0..2)].clone();
                        lane.answered(any[rng.random_range(0..any.len())], outcome, now);
                    }
                    8 if !any.is_empty() => {
                        let refused = Refusal::new(Reason::NotOwner, "no");
                        let outcome = Outcome::Final(Err(refused));
                        lane.answered(any[rng.random_range(0..any.len())], outcome, now);
                    }
                    _ => match rng.random_range(0..3) {
                        0 => lane.broken(rng.random_range(1..3), drop),
                        1 => lane.recall(Some(via), drop),
                        _ => drop(lane.expired(now)),
                    },
                }
                assert_eq!(lane.under_way, lane.count(), "seed {seed}, step {step}");
            }
        }
    }
}
