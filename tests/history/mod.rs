//! Judges a conversation from outside: what clients sent, what was acknowledged
//! to them, what each reader saw, and what stands in the log at the end.
//!
//! It knows the promise and nothing of how it is kept: it imports nothing of the
//! product. Every rule is one sentence of the promise; [`judge`] names each
//! breach with the room, the position and the client.

#![allow(dead_code)] // Each test target uses its part.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// What happened, as clients saw it. Times are of one clock for all clients.
#[derive(Debug, Clone)]
pub struct Event {
    /// Since the run began.
    pub at: Duration,
    /// The client, unique in the run.
    pub client: String,
    /// The room.
    pub room: String,
    /// What.
    pub what: What,
}

/// What happened to one client.
#[derive(Debug, Clone)]
pub enum What {
    /// It sent a message under an id of its own for the first time.
    Sent { id: String, body: String },
    /// The message was acknowledged at a position.
    Acked { id: String, seq: u64 },
    /// The message was refused for good.
    Refused { id: String },
    /// It reads from after this position on.
    Reads { cursor: u64 },
    /// It was given an entry.
    Saw(Entry),
    /// It stopped reading by itself.
    Stopped,
}

/// An entry of a room's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The position.
    pub seq: u64,
    /// Who sent it; empty for what is no message.
    pub sender: String,
    /// The sender's own id; empty for what is no message.
    pub id: String,
    /// The text.
    pub body: String,
}

/// What a run was worth and what is wrong with it.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Each breach of the promise, in words; at most [`MOST`] of them.
    pub breaches: Vec<String>,
    /// Messages acknowledged.
    pub acked: usize,
    /// Messages sent and never answered.
    pub unanswered: usize,
    /// Messages refused for good.
    pub refused: usize,
    /// Entries given to readers.
    pub seen: usize,
}

/// How many breaches are told.
pub const MOST: usize = 20;

/// The final log of each room.
pub type Logs = BTreeMap<String, Vec<Entry>>;

/// Judges. Readers that did not stop must have seen their room's last entry.
pub fn judge(events: &[Event], logs: &Logs) -> Verdict {
    let mut judge = Judge { verdict: Verdict::default(), logs, places: places(logs) };
    judge.logs_are_whole();
    judge.answers(events);
    judge.order(events);
    judge.readers(events);
    judge.verdict
}

/// Sender and id to position, by room.
type Places<'a> = HashMap<(&'a str, &'a str, &'a str), u64>;

fn places(logs: &Logs) -> Places<'_> {
    let mut places = HashMap::new();
    for (room, log) in logs {
        for entry in log.iter().filter(|entry| !entry.id.is_empty()) {
            places.insert((room.as_str(), entry.sender.as_str(), entry.id.as_str()), entry.seq);
        }
    }
    places
}

struct Judge<'a> {
    verdict: Verdict,
    logs: &'a Logs,
    places: Places<'a>,
}

impl Judge<'_> {
    fn breach(&mut self, what: String) {
        if self.verdict.breaches.len() < MOST {
            self.verdict.breaches.push(what);
        }
    }

    /// Positions are 1, 2, 3 … and no message stands twice.
    fn logs_are_whole(&mut self) {
        for (room, log) in self.logs {
            for (index, entry) in log.iter().enumerate() {
                let due = index as u64 + 1;
                if entry.seq != due {
                    self.breach(format!("{room}: the log has {} where {due} is due", entry.seq));
                    break;
                }
            }
            let mut ids = BTreeSet::new();
            for entry in log.iter().filter(|entry| !entry.id.is_empty()) {
                if !ids.insert((&entry.sender, &entry.id)) {
                    let (id, sender, seq) = (&entry.id, &entry.sender, entry.seq);
                    self.breach(format!("{room}: {id} of {sender} stands twice, again at {seq}"));
                }
            }
        }
    }

    /// What was acknowledged stands where it was said, with the body that was
    /// sent; what was refused does not stand; nothing stands that nobody sent.
    fn answers(&mut self, events: &[Event]) {
        let mut sent: HashMap<(&str, &str, &str), &str> = HashMap::new();
        let mut answered = BTreeSet::new();
        for event in events {
            let (client, room) = (event.client.as_str(), event.room.as_str());
            match &event.what {
                What::Sent { id, body } => {
                    sent.insert((room, client, id), body);
                }
                What::Acked { id, seq } => {
                    if !answered.insert((room, client, id.as_str())) {
                        self.breach(format!("{room}: {id} of {client} was answered twice"));
                    }
                    self.verdict.acked += 1;
                    match self.places.get(&(room, client, id)) {
                        Some(stands) if stands == seq => {}
                        Some(stands) => self.breach(format!(
                            "{room}: {id} of {client} was acknowledged at {seq} and stands at {stands}"
                        )),
                        None => self.breach(format!(
                            "{room}: LOST {id} of {client}, acknowledged at {seq}"
                        )),
                    }
                }
                What::Refused { id } => {
                    answered.insert((room, client, id.as_str()));
                    self.verdict.refused += 1;
                    if self.places.contains_key(&(room, client, id.as_str())) {
                        self.breach(format!("{room}: {id} of {client} was refused and stands"));
                    }
                }
                _ => {}
            }
        }
        self.verdict.unanswered =
            sent.keys().filter(|key| !answered.contains(&(key.0, key.1, key.2))).count();
        for (room, log) in self.logs {
            for entry in log.iter().filter(|entry| !entry.id.is_empty()) {
                let key = (room.as_str(), entry.sender.as_str(), entry.id.as_str());
                match sent.get(&key) {
                    Some(body) if **body == entry.body => {}
                    Some(_) => {
                        self.breach(format!("{room}: {} has another body", entry.seq));
                    }
                    None => {
                        self.breach(format!("{room}: nobody sent what stands at {}", entry.seq))
                    }
                }
            }
        }
    }

    /// What was acknowledged before something else was sent stands before it.
    /// What one client sent to a room stands in the order in which it was sent for
    /// the first time, whether it waited for the answers or not.
    fn order(&mut self, events: &[Event]) {
        let mut newest: HashMap<&str, u64> = HashMap::new();
        let mut floor: HashMap<(&str, &str, &str), u64> = HashMap::new();
        let mut last: HashMap<(&str, &str), u64> = HashMap::new();
        let mut by_time: Vec<&Event> = events.iter().collect();
        by_time.sort_by_key(|event| event.at);
        for event in by_time {
            let (client, room) = (event.client.as_str(), event.room.as_str());
            match &event.what {
                What::Sent { id, .. } => {
                    floor.insert((room, client, id), newest.get(room).copied().unwrap_or(0));
                    let Some(&place) = self.places.get(&(room, client, id.as_str())) else {
                        continue;
                    };
                    let before = last.insert((room, client), place).unwrap_or(0);
                    if place <= before {
                        self.breach(format!(
                            "{room}: {id} of {client} stands at {place}, before what it sent \
                             earlier, at {before}"
                        ));
                    }
                }
                What::Acked { id, seq } => {
                    let low = floor.get(&(room, client, id.as_str())).copied().unwrap_or(0);
                    if *seq <= low {
                        self.breach(format!(
                            "{room}: {id} of {client} stands at {seq}, although {low} was \
                             acknowledged before it was sent"
                        ));
                    }
                    let newest = newest.entry(room).or_default();
                    *newest = (*newest).max(*seq);
                }
                _ => {}
            }
        }
    }

    /// Every reader sees the log from its cursor on, without a gap, a double or
    /// another order, and whoever goes on reading comes to its end.
    fn readers(&mut self, events: &[Event]) {
        let mut cursors: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for event in events {
            let (client, room) = (event.client.as_str(), event.room.as_str());
            match &event.what {
                What::Reads { cursor } => {
                    cursors.insert((room, client), *cursor);
                }
                What::Stopped => {
                    cursors.remove(&(room, client));
                }
                What::Saw(entry) => {
                    self.verdict.seen += 1;
                    let Some(cursor) = cursors.get_mut(&(room, client)) else {
                        self.breach(format!("{room}: {client} was given what it does not read"));
                        continue;
                    };
                    let due = *cursor + 1;
                    *cursor = entry.seq;
                    if entry.seq != due {
                        let seq = entry.seq;
                        self.breach(format!("{room}: {client} saw {seq} where {due} was due"));
                    }
                    let index = usize::try_from(entry.seq).unwrap_or(0).wrapping_sub(1);
                    let stands = self.logs.get(room).and_then(|log| log.get(index));
                    if stands.is_none_or(|stands| {
                        !entry.id.is_empty() && stands != entry || stands.seq != entry.seq
                    }) {
                        let seq = entry.seq;
                        self.breach(format!("{room}: {client} saw at {seq} what does not stand"));
                    }
                }
                _ => {}
            }
        }
        for ((room, client), cursor) in cursors {
            let head = self.logs.get(room).map_or(0, |log| log.len() as u64);
            if cursor != head {
                self.breach(format!("{room}: {client} saw up to {cursor} of {head}"));
            }
        }
    }
}

/// The longest time in which nothing was acknowledged in a room although a
/// message waited for it, within a window; the room's silence.
pub fn silences(events: &[Event], from: Duration, to: Duration) -> BTreeMap<String, Duration> {
    let mut by_time: Vec<&Event> = events.iter().collect();
    by_time.sort_by_key(|event| event.at);
    // Per room: ids that wait, and since when nothing was acknowledged.
    let mut waiting: BTreeMap<&str, BTreeSet<(&str, &str)>> = BTreeMap::new();
    let mut since: BTreeMap<&str, Duration> = BTreeMap::new();
    let mut longest: BTreeMap<String, Duration> = BTreeMap::new();
    for event in by_time {
        let (room, client) = (event.room.as_str(), event.client.as_str());
        match &event.what {
            What::Sent { id, .. } => {
                let waits = waiting.entry(room).or_default();
                if waits.is_empty() {
                    since.insert(room, event.at);
                }
                waits.insert((client, id));
            }
            What::Acked { id, .. } | What::Refused { id } => {
                let began = since.insert(room, event.at).unwrap_or(event.at);
                if let Some(waits) = waiting.get_mut(room) {
                    waits.remove(&(client, id.as_str()));
                }
                if event.at >= from && began <= to {
                    let silence = event.at - began;
                    let known = longest.entry(room.to_owned()).or_default();
                    *known = (*known).max(silence);
                }
            }
            _ => {}
        }
    }
    longest
}

#[cfg(test)]
mod tests;
