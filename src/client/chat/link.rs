//! One stream as the core knows it: which rooms it has joined, and whether its
//! node still answers. Pure.
//!
//! A node that is frozen or cut off closes nothing. So a link that has been
//! silent is pinged, and given up when the answer does not come: another node may
//! know better. While a message waits for its answer, and in a conversation that
//! is alive, the silence may last a second. Where nothing has been said for long
//! it may last an eighth of that time, so that millions of chats at rest do not
//! keep their nodes busy with pings.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::proto::chat::v1::Ping;

/// The shortest silence after which a node is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(1);
/// The silence where nothing was said for so many times as long.
const REST: u32 = 8;
/// How long it may take to answer that, and while a message waits for its answer.
const ANSWER: Duration = Duration::from_secs(2);
const BUSY_ANSWER: Duration = Duration::from_millis(1500);
/// The same of what it was sent before it was left, and of a first Join.
const LAST_ANSWER: Duration = Duration::from_secs(3);
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// How far a room is on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// So many Joins are not answered; what comes is of an earlier one.
    Asked(u32),
    /// Entries come.
    Joined,
    /// The Join was refused for a passing reason: again at this time.
    Again(Duration),
    /// It was refused for good.
    Refused,
}

/// A stream.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) server: String,
    rooms: BTreeMap<String, Stage>,
    open: bool,
    /// Whether a Join was accepted: before, the node takes no other frame.
    began: bool,
    /// When the node last spoke, or was first asked something.
    heard: Duration,
    /// When anything but an answer to a Ping was said, by either side.
    spoke: Duration,
    /// The longest silence, however long nothing was said.
    quiet: Duration,
    /// By when an answer must come.
    answer_by: Option<Duration>,
    nonce: u64,
    /// When to go elsewhere, and where to.
    pub(super) go: Option<Duration>,
    pub(super) go_to: Vec<String>,
    retired: bool,
}

impl Link {
    /// One that is being opened. `quiet` is the longest silence before its node is
    /// asked whether it is there.
    pub(super) fn new(now: Duration, quiet: Duration) -> Self {
        Self {
            server: String::new(),
            rooms: BTreeMap::new(),
            open: false,
            began: false,
            heard: now,
            spoke: now,
            quiet,
            answer_by: None,
            nonce: 0,
            go: None,
            go_to: Vec::new(),
            retired: false,
        }
    }

    pub(super) fn open(&mut self, server: String, now: Duration) {
        self.server = server;
        self.open = true;
        self.asked(now);
    }

    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// The node said something.
    pub(super) fn heard(&mut self, now: Duration) {
        self.heard = now;
        if self.retired {
            return;
        }
        let first = self.answer_by.filter(|_| !self.began);
        self.answer_by = first.map(|_| now + FIRST_ANSWER);
    }

    /// What it said was more than that it is there.
    pub(super) fn spoke(&mut self, now: Duration) {
        self.spoke = now;
    }

    /// Something was asked after a silence that meant nothing.
    pub(super) fn asked(&mut self, now: Duration) {
        self.heard = now;
        self.spoke = now;
    }

    /// Another link is current: this one has a last while.
    pub(super) fn retire(&mut self, now: Duration) {
        self.retired = true;
        // No room is joined here any more.
        self.rooms.retain(|_, stage| !matches!(stage, Stage::Again(_)));
        self.answer_by = Some(now + LAST_ANSWER);
    }

    pub(super) fn asked_join(&mut self, room: &str, now: Duration) {
        let asked = match self.rooms.get(room) {
            Some(Stage::Asked(asked)) => asked + 1,
            _ => 1,
        };
        self.rooms.insert(room.to_owned(), Stage::Asked(asked));
        if !self.began && self.answer_by.is_none() {
            self.answer_by = Some(now + FIRST_ANSWER);
        }
    }

    /// A Join was answered: the room's stage, when it was the newest one.
    pub(super) fn answered_join(&mut self, room: &str) -> Option<&mut Stage> {
        let stage = self.rooms.get_mut(room)?;
        let Stage::Asked(asked) = stage else { return None };
        *asked = asked.saturating_sub(1);
        if *asked > 0 {
            return None;
        }
        Some(stage)
    }

    pub(super) fn has_joined(&self, room: &str) -> bool {
        self.rooms.get(room) == Some(&Stage::Joined)
    }

    /// The node may take other frames than Joins now.
    pub(super) fn begin(&mut self) {
        self.began = true;
        if !self.retired {
            self.answer_by = None;
        }
    }

    /// The room is no longer wanted: whether it was joined or asked for. Joins
    /// that are still to be answered stay counted.
    pub(super) fn forget(&mut self, room: &str) -> bool {
        match self.rooms.get(room) {
            Some(Stage::Asked(_)) => true,
            Some(stage) => {
                let joined = *stage == Stage::Joined;
                self.rooms.remove(room);
                joined
            }
            None => false,
        }
    }

    /// The rooms whose Join is to be asked for again.
    pub(super) fn rejoin_due(&mut self, now: Duration) -> Vec<String> {
        let due = |(room, stage): (&String, &Stage)| match stage {
            Stage::Again(at) if *at <= now => Some(room.clone()),
            _ => None,
        };
        self.rooms.iter().filter_map(due).collect()
    }

    /// Whether an answer is overdue.
    pub(super) fn is_dead(&self, now: Duration) -> bool {
        self.awaited().is_some_and(|by| now >= by)
    }

    /// By when an answer must come. A link that was refused every room awaits
    /// none.
    fn awaited(&self) -> Option<Duration> {
        let asks = || self.rooms.values().any(|stage| matches!(stage, Stage::Asked(1..)));
        self.answer_by.filter(|_| self.retired || self.began || asks())
    }

    /// The Ping that is due.
    pub(super) fn ping(&mut self, now: Duration, busy: bool) -> Option<Ping> {
        if !self.began || self.answer_by.is_some() || now < self.heard + self.silence(busy) {
            return None;
        }
        self.answer_by = Some(now + if busy { BUSY_ANSWER } else { ANSWER });
        self.nonce += 1;
        Some(Ping { nonce: self.nonce })
    }

    /// When something of the above is due.
    pub(super) fn wake_at(&self, busy: bool) -> Option<Duration> {
        let again = |stage: &Stage| match stage {
            Stage::Again(at) => Some(*at),
            _ => None,
        };
        let again = self.rooms.values().filter_map(again).min();
        let quiet =
            (self.began && self.answer_by.is_none()).then(|| self.heard + self.silence(busy));
        again.into_iter().chain(self.awaited()).chain(quiet).min()
    }

    /// How long the node may say nothing before it is asked.
    fn silence(&self, busy: bool) -> Duration {
        let rest = if busy { Duration::ZERO } else { self.heard.saturating_sub(self.spoke) };
        (rest / REST).max(SILENCE).min(self.quiet)
    }
}
