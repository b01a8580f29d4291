//! What people did and saw, and the judge of it. Knows nothing of the product's
//! code: a history is names, numbers and texts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One thing that happened to one person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fact {
    /// It said something.
    Said { room: String, id: String, body: String },
    /// That was acknowledged.
    Acknowledged { id: String, seq: u64 },
    /// That was refused for good.
    Refused { id: String, why: String },
    /// It was shown an entry; `id` is empty where nobody said it.
    Saw { room: String, seq: u64, id: String, body: String },
}

/// A text that stands in the log in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) room: String,
    pub(crate) seq: u64,
    pub(crate) id: String,
    pub(crate) body: String,
}

/// How far everybody is.
#[derive(Debug)]
pub(crate) struct Progress {
    /// Messages that were said.
    pub(crate) said: usize,
    /// Those of them without an answer.
    pub(crate) open: usize,
    /// The last seq seen, by reader and room.
    pub(crate) read: BTreeMap<(String, String), u64>,
}

/// Everything, in the order in which it happened. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct History(Arc<Mutex<Vec<Line>>>);

/// When, to whom, and what: a fact, or a text for the trace alone.
type Line = (Duration, String, Result<Fact, String>);

impl History {
    pub(crate) fn fact(&self, at: Duration, who: &str, fact: Fact) {
        self.0.lock().expect("whole").push((at, who.to_owned(), Ok(fact)));
    }

    /// Something that is told in the trace and not judged.
    pub(crate) fn note(&self, at: Duration, who: &str, text: String) {
        self.0.lock().expect("whole").push((at, who.to_owned(), Err(text)));
    }

    pub(crate) fn trace(&self) -> Vec<String> {
        let lines = self.0.lock().expect("whole");
        let line = |(at, who, what): &Line| match what {
            Ok(fact) => format!("{:>9.3} {who:<5} {fact:?}", at.as_secs_f64()),
            Err(text) => format!("{:>9.3} {who:<5} {text}", at.as_secs_f64()),
        };
        lines.iter().map(line).collect()
    }

    fn facts(&self) -> Vec<(String, Fact)> {
        let lines = self.0.lock().expect("whole");
        let told = lines.iter().filter_map(|(_, who, what)| {
            what.as_ref().ok().map(|fact| (who.clone(), fact.clone()))
        });
        told.collect()
    }

    /// How many texts of the trace begin so.
    pub(crate) fn told(&self, begin: &str) -> u64 {
        let lines = self.0.lock().expect("whole");
        let told = lines.iter().filter_map(|(_, _, what)| what.as_ref().err());
        told.filter(|text| text.starts_with(begin)).count() as u64
    }

    /// How far everybody is.
    pub(crate) fn progress(&self) -> Progress {
        let lines = self.0.lock().expect("whole");
        let (mut said, mut open, mut read) = (0, BTreeSet::new(), BTreeMap::new());
        for (_, who, what) in lines.iter() {
            match what {
                Ok(Fact::Said { id, .. }) => {
                    said += 1;
                    open.insert(id);
                }
                Ok(Fact::Acknowledged { id, .. } | Fact::Refused { id, .. }) => {
                    open.remove(id);
                }
                Ok(Fact::Saw { room, seq, .. }) => {
                    let far = read.entry((who, room)).or_insert(0);
                    *far = (*seq).max(*far);
                }
                Err(_) => {}
            }
        }
        let owned =
            |((who, room), far): ((&String, &String), u64)| ((who.clone(), room.clone()), far);
        Progress { said, open: open.len(), read: read.into_iter().map(owned).collect() }
    }

    /// Whether half of what was acknowledged since `from` was seen within `soon`
    /// of that, by each reader in each room.
    pub(crate) fn is_prompt(&self, from: Duration, soon: Duration) -> Result<(), String> {
        let lines = self.0.lock().expect("whole");
        let mut acknowledged = BTreeMap::new();
        let mut delays: BTreeMap<(&str, &str), Vec<Duration>> = BTreeMap::new();
        for (at, _, what) in lines.iter() {
            if let Ok(Fact::Acknowledged { id, .. }) = what
                && *at >= from
            {
                acknowledged.insert(id.as_str(), *at);
            }
        }
        for (at, who, what) in lines.iter() {
            if let Ok(Fact::Saw { room, id, .. }) = what
                && let Some(then) = acknowledged.get(id.as_str())
            {
                delays.entry((who, room)).or_default().push(at.saturating_sub(*then));
            }
        }
        for ((who, room), mut delays) in delays {
            delays.sort_unstable();
            let median = delays[delays.len() / 2];
            if median > soon {
                return Err(format!("{who} sees {room} {median:?} late, {} times", delays.len()));
            }
        }
        Ok(())
    }

    /// Everything that is wrong with it; `log` is what stands in the end, and
    /// `readers` read every room of it from its beginning to its end.
    pub(crate) fn judge(&self, log: &[Standing], readers: &[String]) -> Vec<String> {
        let facts = self.facts();
        let mut wrong = Vec::new();
        answers(&facts, &mut wrong);
        stands(&facts, log, &mut wrong);
        in_order(&facts, log, &mut wrong);
        for reader in readers {
            let rooms: BTreeSet<&String> = log.iter().map(|entry| &entry.room).collect();
            for room in rooms {
                reads(&facts, log, reader, room, &mut wrong);
            }
        }
        wrong
    }
}

/// Each message has exactly one answer.
fn answers(facts: &[(String, Fact)], wrong: &mut Vec<String>) {
    let mut counted: BTreeMap<&String, usize> = BTreeMap::new();
    for (_, fact) in facts {
        match fact {
            Fact::Said { id, .. } => drop(counted.entry(id).or_insert(0)),
            Fact::Acknowledged { id, .. } | Fact::Refused { id, .. } => {
                *counted.entry(id).or_insert(0) += 1;
            }
            Fact::Saw { .. } => {}
        }
    }
    let off = counted.into_iter().filter(|(_, count)| *count != 1);
    wrong.extend(off.map(|(id, count)| format!("{id} has {count} answers")));
}

/// What was acknowledged stands once, where it was said to, and with its words;
/// nothing stands that nobody said, or that was refused.
fn stands(facts: &[(String, Fact)], log: &[Standing], wrong: &mut Vec<String>) {
    let mut places: BTreeMap<&str, Vec<&Standing>> = BTreeMap::new();
    for entry in log.iter().filter(|entry| !entry.id.is_empty()) {
        places.entry(&entry.id).or_default().push(entry);
    }
    let mut said: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for (_, fact) in facts {
        match fact {
            Fact::Said { room, id, body } => drop(said.insert(id, (room, body))),
            Fact::Acknowledged { id, seq } => match places.get(id.as_str()).map(Vec::as_slice) {
                Some([entry]) if entry.seq == *seq => {}
                found => wrong.push(format!("{id} was acknowledged at {seq} and is {found:?}")),
            },
            Fact::Refused { id, why } if places.contains_key(id.as_str()) => {
                wrong.push(format!("{id} was refused ({why}) and stands"));
            }
            _ => {}
        }
    }
    for (id, entries) in places {
        if entries.len() > 1 {
            wrong.push(format!("{id} stands {} times", entries.len()));
        }
        for entry in entries {
            if said.get(id) != Some(&(entry.room.as_str(), entry.body.as_str())) {
                wrong.push(format!("nobody said {entry:?}"));
            }
        }
    }
}

/// What somebody said in a room stands there in the order in which it was said.
fn in_order(facts: &[(String, Fact)], log: &[Standing], wrong: &mut Vec<String>) {
    let places: BTreeMap<&str, u64> =
        log.iter().map(|entry| (entry.id.as_str(), entry.seq)).collect();
    let mut last: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for (who, fact) in facts {
        if let Fact::Said { room, id, .. } = fact
            && let Some(place) = places.get(id.as_str())
        {
            let before = last.insert((who, room), *place).unwrap_or(0);
            if *place <= before {
                wrong.push(format!("{id} stands at {place}, before what {who} said earlier"));
            }
        }
    }
}

/// A reader saw exactly the room's log: in order, without gaps, nothing twice.
fn reads(
    facts: &[(String, Fact)],
    log: &[Standing],
    reader: &str,
    room: &str,
    wrong: &mut Vec<String>,
) {
    let seen = facts.iter().filter_map(|(who, fact)| match fact {
        Fact::Saw { room: at, seq, id, body } if who == reader && at == room => {
            Some((*seq, id.as_str(), body.as_str()))
        }
        _ => None,
    });
    let truth = log.iter().filter(|entry| entry.room == room);
    let truth: Vec<_> = truth.map(|e| (e.seq, e.id.as_str(), e.body.as_str())).collect();
    let seen: Vec<_> = seen.collect();
    if let Some(at) = truth.iter().enumerate().position(|(at, entry)| entry.0 != at as u64 + 1) {
        wrong.push(format!("{room}: a gap or a double in the log at {at}: {:?}", truth[at]));
    }
    let differs = (0..truth.len().max(seen.len())).find(|at| truth.get(*at) != seen.get(*at));
    if let Some(at) = differs {
        let (is, was) = (truth.get(at), seen.get(at));
        wrong.push(format!("{reader} in {room}, entry {at}: the log has {is:?}, it saw {was:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(id: &str) -> Fact {
        Fact::Said { room: "r".into(), id: id.into(), body: id.into() }
    }

    fn ack(id: &str, seq: u64) -> Fact {
        Fact::Acknowledged { id: id.into(), seq }
    }

    fn saw(seq: u64, id: &str) -> Fact {
        Fact::Saw { room: "r".into(), seq, id: id.into(), body: id.into() }
    }

    fn entry(seq: u64, id: &str) -> Standing {
        Standing { room: "r".into(), seq, id: id.into(), body: id.into() }
    }

    fn judged(facts: Vec<Fact>, log: &[Standing]) -> usize {
        let history = History::default();
        facts.into_iter().for_each(|fact| history.fact(Duration::ZERO, "c", fact));
        history.judge(log, &["c".to_owned()]).len()
    }

    #[test]
    fn a_sound_history_passes_and_each_breach_is_seen() {
        let log = [entry(1, "a"), entry(2, "b")];
        let sound = vec![said("a"), saw(1, "a"), ack("a", 1), said("b"), saw(2, "b"), ack("b", 2)];
        assert_eq!(judged(sound.clone(), &log), 0);
        let without = |at: usize| {
            let mut facts = sound.clone();
            facts.remove(at);
            facts
        };
        let with = |fact: Fact| [sound.clone(), vec![fact]].concat();
        assert_eq!(judged(without(2), &log), 1, "no answer");
        assert_eq!(judged(with(ack("a", 1)), &log), 1, "two answers");
        assert_eq!(judged(without(4), &log), 1, "an entry not seen");
        assert_eq!(judged(with(saw(2, "b")), &log), 1, "an entry seen twice");
        assert_eq!(judged(sound.clone(), &log[..1]), 2, "acknowledged, seen, and lost");
        assert!(judged(sound.clone(), &[entry(1, "b"), entry(2, "a")]) > 0, "another order");
        assert!(judged(sound.clone(), &[entry(1, "a"), entry(3, "b")]) > 0, "a gap");
        assert!(judged(sound, &[entry(1, "a"), entry(2, "b"), entry(3, "a")]) > 0, "a double");
        let (a, b) = (vec![said("b"), said("a")], vec![saw(1, "a"), saw(2, "b")]);
        let overtaken = [a, b, vec![ack("a", 1), ack("b", 2)]].concat();
        assert_eq!(judged(overtaken, &log), 1, "what was said first stands second");
        let refused = Fact::Refused { id: "a".into(), why: "x".into() };
        assert_eq!(judged(vec![said("a"), refused, saw(1, "a")], &log[..1]), 1);
    }
}
