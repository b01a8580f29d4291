//! Chunks, tails and pages against a plain list of entries.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::{Budget, Chunk, DATA_FRAME, Feed, Frames, Pages, Slice, Tail};
use crate::chat::wire;
use crate::store::chat::{Entry, EntryKind};

const ROOM_BYTES: usize = 40_000;
const PAGE: u32 = 16;

fn entry(seq: u64, size: usize) -> Entry {
    Entry {
        room: "r".into(),
        seq,
        kind: EntryKind::Text,
        sender: "user/a@t".parse().expect("a principal"),
        client_message_id: "m".into(),
        body: vec![b'a' + (seq % 26) as u8; size].into(),
        reply_to: 0,
        committed_at: 1,
    }
}

fn framed(entries: &[Entry], budget: &Arc<Budget>) -> Vec<Chunk> {
    let mut frames = Frames::after(entries[0].seq - 1, budget);
    entries.iter().for_each(|entry| frames.push(entry));
    frames.finish()
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<usize>),
    Read(usize, usize),
    Shrink(usize),
    Pass(u64),
    ClearPages,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![8 => 1..400_usize, 1 => 5_000..20_000_usize];
    let step = prop_oneof![
        3 => prop::collection::vec(size, 1..30).prop_map(Step::Append),
        6 => (0..4_usize, 1..9_usize).prop_map(|(who, times)| Step::Read(who, times)),
        1 => (0..ROOM_BYTES).prop_map(Step::Shrink),
        1 => (0..3_000_u64).prop_map(Step::Pass),
        1 => Just(Step::ClearPages),
    ];
    prop::collection::vec(step, 1..60)
}

/// The log under test, the entries that it should be, and readers.
struct World {
    budget: Arc<Budget>,
    tail: Tail,
    pages: Pages,
    model: Vec<Entry>,
    cursors: [u64; 4],
    got: [Vec<u8>; 4],
    now: Duration,
}

impl World {
    fn new() -> Self {
        let budget = Budget::new(1 << 20);
        Self {
            tail: Tail::new(0, ROOM_BYTES, budget.clone()),
            pages: Pages::new(PAGE, ROOM_BYTES, budget.clone()),
            budget,
            model: Vec::new(),
            cursors: [0; 4],
            got: Default::default(),
            now: Duration::from_secs(1),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Append(sizes) => {
                let from = self.model.len() as u64;
                let new: Vec<_> = (from + 1..).zip(sizes).map(|(s, n)| entry(s, n)).collect();
                assert!(self.tail.append(framed(&new, &self.budget), self.now));
                self.model.extend(new);
            }
            Step::Read(who, times) => {
                for _ in 0..times {
                    self.read(who);
                }
            }
            Step::Shrink(bytes) => self.tail.shrink(bytes),
            Step::Pass(millis) => self.now += Duration::from_millis(millis),
            Step::ClearPages => self.pages.clear(),
        }
        assert_eq!(self.tail.head(), self.model.len() as u64);
        assert!(self.tail.bytes() <= 2 * ROOM_BYTES + 20_100);
        assert_eq!(self.budget.held(), self.tail.bytes() + self.pages.bytes());
        // Nothing else holds a slice here.
        assert_eq!(self.budget.alive(), self.budget.held());
    }

    /// Takes the next slice; false at the head.
    fn read(&mut self, who: usize) -> bool {
        let cursor = self.cursors[who];
        let (bytes, next) = match self.tail.slice(cursor, DATA_FRAME) {
            Slice::AtHead => return false,
            Slice::Data(bytes, next) => (bytes, next),
            Slice::Behind => self.page(cursor),
        };
        assert!(next > cursor);
        assert!(bytes.len() <= DATA_FRAME || next == cursor + 1, "whole frames up to the limit");
        self.cursors[who] = next;
        self.got[who].extend_from_slice(&bytes);
        true
    }

    fn page(&mut self, cursor: u64) -> (Bytes, u64) {
        if cursor + u64::from(PAGE) + 1 >= self.tail.start() {
            self.tail.pin(self.now);
        }
        for _ in 0..6 {
            match self.pages.feed(cursor, self.tail.start(), DATA_FRAME, self.now) {
                Feed::Data(bytes, next) => return (bytes, next),
                Feed::Loading => panic!("nobody else reads"),
                // Nobody else reads on: the time to wait for them passes.
                Feed::Hold => self.now += Duration::from_millis(500),
                Feed::Load { after, limit } => {
                    // Short now and then, as a page is by its bytes.
                    let limit = if after % 3 == 0 { limit.min(5) } else { limit };
                    assert!((1..=u64::from(PAGE)).contains(&limit));
                    let (from, to) = (after as usize, (after + limit) as usize);
                    let chunks = framed(&self.model[from..to], &self.budget);
                    self.pages.loaded(after, chunks, self.now);
                }
            }
        }
        panic!("a page does not bring the reader on");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn every_reader_gets_the_log_once_and_in_order(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        let all: Vec<u8> = world.model.iter().flat_map(wire::frame).collect();
        for who in 0..4 {
            while world.read(who) {}
            prop_assert!(world.got[who] == all, "reader {who} got something else");
        }
        let budget = world.budget.clone();
        drop(world);
        prop_assert_eq!((budget.alive(), budget.held()), (0, 0));
    }
}

#[test]
fn what_a_slice_pins_counts_until_it_is_dropped() {
    let budget = Budget::new(1000);
    let mut tail = Tail::new(0, ROOM_BYTES, budget.clone());
    assert!(tail.append(framed(&[entry(1, 5000)], &budget), Duration::ZERO));
    let Slice::Data(slice, 1) = tail.slice(0, DATA_FRAME) else { panic!("the entry is there") };
    tail.shrink(0);
    assert_eq!((budget.held(), budget.pinned()), (0, slice.len()));
    assert_eq!(budget.excess(), slice.len() - 1000);
    let part = slice.slice(..1);
    drop(slice);
    assert_eq!(budget.pinned(), budget.alive());
    assert!(budget.alive() > 5000, "a part pins the whole chunk");
    drop(part);
    assert_eq!(budget.alive(), 0);
}

#[test]
fn lone_messages_become_one_slice_for_those_behind_and_share_it() {
    let budget = Budget::new(1 << 20);
    let mut tail = Tail::new(0, ROOM_BYTES, budget.clone());
    for seq in 1..=50 {
        assert!(tail.append(framed(&[entry(seq, 100)], &budget), Duration::ZERO));
    }
    let Slice::Data(first, 50) = tail.slice(0, DATA_FRAME) else { panic!("all at once") };
    let Slice::Data(second, 50) = tail.slice(0, DATA_FRAME) else { panic!("all at once") };
    assert_eq!(first.as_ptr(), second.as_ptr());
}

#[test]
fn a_pinned_start_stays_for_a_while() {
    let budget = Budget::new(1 << 20);
    let mut tail = Tail::new(0, ROOM_BYTES, budget.clone());
    let append = |tail: &mut Tail, seq, now| {
        assert!(tail.append(framed(&[entry(seq, 4000)], &budget), Duration::from_secs(now)));
    };
    (1..=9).for_each(|seq| append(&mut tail, seq, 1));
    tail.pin(Duration::from_secs(1));
    (10..=15).for_each(|seq| append(&mut tail, seq, 1));
    assert_eq!(tail.start(), 1, "over the room's bytes, but pinned");
    (16..=30).for_each(|seq| append(&mut tail, seq, 1));
    assert!(tail.bytes() <= 2 * ROOM_BYTES, "no pin goes beyond twice the bytes");
    append(&mut tail, 31, 4);
    assert!(tail.bytes() <= ROOM_BYTES, "the time of the pin is over");
}
