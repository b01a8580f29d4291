//! Each rule is broken once: the judge must find it, and find nothing else in a
//! good history.

use super::*;

fn entry(seq: u64, sender: &str, id: &str) -> Entry {
    Entry { seq, sender: sender.into(), id: id.into(), body: format!("body of {id}") }
}

fn event(millis: u64, client: &str, what: What) -> Event {
    Event { at: Duration::from_millis(millis), client: client.into(), room: "r".into(), what }
}

fn sent(id: &str) -> What {
    What::Sent { id: id.into(), body: format!("body of {id}") }
}

fn acked(id: &str, seq: u64) -> What {
    What::Acked { id: id.into(), seq }
}

/// Ann sends a1 and a2, Ben b1; Cem reads all from the beginning.
fn good() -> (Vec<Event>, Logs) {
    let log =
        vec![entry(1, "", ""), entry(2, "ann", "a1"), entry(3, "ben", "b1"), entry(4, "ann", "a2")];
    let mut events = vec![
        event(0, "cem", What::Reads { cursor: 0 }),
        event(1, "ann", sent("a1")),
        event(5, "ann", acked("a1", 2)),
        event(6, "ben", sent("b1")),
        event(6, "ann", sent("a2")),
        event(9, "ben", acked("b1", 3)),
        event(9, "ann", acked("a2", 4)),
    ];
    events.extend(log.iter().map(|entry| event(10 + entry.seq, "cem", What::Saw(entry.clone()))));
    (events, Logs::from([("r".to_owned(), log)]))
}

/// The only breach that the judge finds once the history is broken.
fn breach(break_it: impl FnOnce(&mut Vec<Event>, &mut Vec<Entry>)) -> String {
    let (mut events, mut logs) = good();
    break_it(&mut events, logs.get_mut("r").expect("the room"));
    judge(&events, &logs).breaches.join("\n")
}

#[test]
fn a_good_history_has_no_breach() {
    let (events, logs) = good();
    let verdict = judge(&events, &logs);
    assert_eq!(verdict.breaches, Vec::<String>::new());
    assert_eq!((verdict.acked, verdict.seen, verdict.unanswered), (3, 4, 0));
}

#[test]
fn each_broken_promise_is_found() {
    let lost = breach(|_, log| {
        log.pop();
    });
    assert!(lost.contains("LOST a2 of ann"), "{lost}");
    let doubled = breach(|events, log| {
        log.push(entry(5, "ann", "a1"));
        events.push(event(20, "cem", What::Saw(entry(5, "ann", "a1"))));
    });
    assert!(doubled.contains("a1 of ann stands twice"), "{doubled}");
    let gap = breach(|_, log| log[3].seq = 5);
    assert!(gap.contains("the log has 5 where 4 is due"), "{gap}");
    let elsewhere = breach(|events, _| events[2] = event(5, "ann", acked("a1", 3)));
    assert!(elsewhere.contains("acknowledged at 3 and stands at 2"), "{elsewhere}");
    let invented = breach(|_, log| log[2] = entry(3, "eve", "e1"));
    assert!(invented.contains("nobody sent what stands at 3"), "{invented}");
    let changed = breach(|_, log| log[1].body = "another".into());
    assert!(changed.contains("2 has another body"), "{changed}");
    let twice = breach(|events, _| events.push(event(30, "ann", acked("a1", 2))));
    assert!(twice.contains("answered twice"), "{twice}");
    let refused =
        breach(|events, _| events[2] = event(5, "ann", What::Refused { id: "a1".into() }));
    assert!(refused.contains("was refused and stands"), "{refused}");
}

#[test]
fn each_broken_order_is_found() {
    let skipped = breach(|events, _| {
        events.remove(8);
    });
    assert!(skipped.contains("cem saw 3 where 2 was due"), "{skipped}");
    let short = breach(|events, _| {
        events.pop();
    });
    assert!(short.contains("cem saw up to 3 of 4"), "{short}");
    let again = breach(|events, _| events.push(event(20, "cem", What::Saw(entry(4, "ann", "a2")))));
    assert!(again.contains("cem saw 4 where 5 was due"), "{again}");
    let other = breach(|events, _| events[9] = event(13, "cem", What::Saw(entry(3, "ann", "a9"))));
    assert!(other.contains("cem saw at 3 what does not stand"), "{other}");
    // a1 was acknowledged at 2 before b1 was sent: b1 cannot come before it.
    let late = breach(|events, log| {
        log.swap(1, 2);
        log[1].seq = 2;
        log[2].seq = 3;
        events[2] = event(5, "ann", acked("a1", 3));
        events[5] = event(9, "ben", acked("b1", 2));
        events[8] = event(12, "cem", What::Saw(entry(2, "ben", "b1")));
        events[9] = event(13, "cem", What::Saw(entry(3, "ann", "a1")));
    });
    assert!(late.contains("although 3 was acknowledged before it was sent"), "{late}");
    let (mut events, mut logs) = good();
    let log = logs.get_mut("r").expect("the room");
    log[1] = entry(2, "ann", "a2");
    log[3] = entry(4, "ann", "a1");
    events[1] = event(6, "ann", sent("a1"));
    events[2] = event(9, "ann", acked("a1", 4));
    events[6] = event(9, "ann", acked("a2", 2));
    events[8] = event(12, "cem", What::Saw(entry(2, "ann", "a2")));
    events[10] = event(14, "cem", What::Saw(entry(4, "ann", "a1")));
    let overtaken = judge(&events, &logs).breaches.join("\n");
    assert!(
        overtaken.contains("a2 of ann stands at 2, before what it sent earlier"),
        "{overtaken}"
    );
}

#[test]
fn a_silence_counts_only_while_something_waits() {
    let second = Duration::from_secs(1);
    let events = [
        event(0, "ann", sent("a1")),
        event(10, "ann", acked("a1", 1)),
        event(5000, "ann", sent("a2")),
        event(5700, "ann", acked("a2", 2)),
    ];
    let all = silences(&events, Duration::ZERO, 10 * second);
    assert_eq!(all["r"], Duration::from_millis(700));
    assert_eq!(silences(&events, Duration::ZERO, second)["r"], Duration::from_millis(10));
}
