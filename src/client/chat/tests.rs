//! The core against a world that does whatever is allowed: nodes that cut
//! streams, move clients, drain, refuse for a while, answer late and deliver
//! twice. Whatever happens, the caller sees 1 to n once and in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use tonic::{Code, Status};

use super::core::{Action, Core, LinkId, Settings};
use super::event::{Event, From, Why};
use crate::proto::chat::v1::chat_request::Frame as Ask;
use crate::proto::chat::v1::chat_response::Frame as Tell;
use crate::proto::chat::v1::{
    Failed, Join, Joined, Message, Notice, NoticeKind, Pong, Send, Sent, join,
};

mod quiet;
mod waiting;

/// One stream's node side.
#[derive(Debug, Default)]
struct Session {
    asked: VecDeque<Ask>,
    telling: VecDeque<Tell>,
    /// Rooms with the cursor of each.
    rooms: BTreeMap<String, u64>,
}

/// Nodes that share their rooms, and a client.
struct World {
    core: Core,
    now: Duration,
    /// Each room's ids, in order.
    logs: BTreeMap<String, Vec<String>>,
    sessions: BTreeMap<LinkId, Session>,
    opening: Option<LinkId>,
    said: BTreeMap<String, Vec<String>>,
    count: u64,
    /// What the caller was told.
    seen: BTreeMap<String, Vec<(u64, String)>>,
    acknowledged: Vec<String>,
    preferred: Vec<Vec<String>>,
    avoided: Vec<Option<String>>,
    ended: bool,
}

#[derive(Debug, Clone)]
enum Step {
    Say(u8),
    Other(u8),
    OpenWell,
    OpenBadly,
    Answer(u8),
    Refuse(u8),
    Pull(u8),
    Deliver(u8),
    Cut(u8),
    Move(u8),
    Drain(u8),
    Wait(u16),
}

fn settings_of(patience: Option<Duration>) -> Settings {
    Settings { patience, insist: true, quiet: Duration::from_secs(15) }
}

fn half() -> f64 {
    0.5
}

fn room(n: u8) -> String {
    format!("room{}", n % 2)
}

impl World {
    fn new() -> Self {
        let settings = settings_of(None);
        let mut world = Self {
            core: Core::new(settings, half),
            now: Duration::ZERO,
            logs: BTreeMap::new(),
            sessions: BTreeMap::new(),
            opening: None,
            said: BTreeMap::new(),
            count: 0,
            seen: BTreeMap::new(),
            acknowledged: Vec::new(),
            preferred: Vec::new(),
            avoided: Vec::new(),
            ended: false,
        };
        for n in 0..2 {
            world.core.join(world.now, room(n), From::Earliest);
        }
        world.act();
        world
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Say(n) if self.core.takes() => {
                self.count += 1;
                let (room_id, id) = (room(*n), format!("c-{}", self.count));
                self.said.entry(room_id.clone()).or_default().push(id.clone());
                let send = Send { room_id, client_message_id: id, ..Send::default() };
                self.core.send(self.now, send);
            }
            Step::Other(n) => {
                self.count += 1;
                let id = format!("o-{}", self.count);
                self.logs.entry(room(*n)).or_default().push(id);
            }
            Step::OpenWell => {
                if let Some(id) = self.opening.take() {
                    self.sessions.insert(id, Session::default());
                    self.core.opened(self.now, id, format!("s{id}:1"));
                }
            }
            Step::OpenBadly => {
                if let Some(id) = self.opening.take() {
                    self.core.closed(self.now, id, unavailable(), false);
                }
            }
            Step::Answer(n) => self.answer(*n, false),
            Step::Refuse(n) => self.answer(*n, true),
            Step::Pull(n) => self.pull(*n),
            Step::Deliver(n) => {
                if let Some((id, session)) = self.session(*n)
                    && let Some(frame) = session.telling.pop_front()
                {
                    self.core.frame(self.now, id, frame);
                }
            }
            Step::Cut(n) => {
                if let Some((id, _)) = self.session(*n) {
                    self.sessions.remove(&id);
                    self.core.closed(self.now, id, unavailable(), false);
                }
            }
            Step::Move(n) => self.notice(*n, NoticeKind::Move),
            Step::Drain(n) => self.notice(*n, NoticeKind::Draining),
            Step::Wait(millis) => {
                self.now += Duration::from_millis((*millis).into());
                self.core.tick(self.now);
                // Else it would be looked at again at once, for ever.
                let wake = self.core.wake_at().filter(|_| !self.core.is_ended());
                assert!(wake.is_none_or(|at| at > self.now), "{wake:?} at {:?}", self.now);
            }
            Step::Say(_) => {}
        }
        self.act();
    }

    fn session(&mut self, n: u8) -> Option<(LinkId, &mut Session)> {
        let at = usize::from(n) % self.sessions.len().max(1);
        self.sessions.iter_mut().nth(at).map(|(id, session)| (*id, session))
    }

    fn notice(&mut self, n: u8, kind: NoticeKind) {
        if let Some((_, session)) = self.session(n) {
            session.telling.push_back(Tell::Notice(Notice {
                kind: kind.into(),
                addresses: vec!["elsewhere:1".into()],
                jitter: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
                ..Notice::default()
            }));
        }
    }

    /// A node takes one frame.
    fn answer(&mut self, n: u8, refuse: bool) {
        let at = usize::from(n) % self.sessions.len().max(1);
        let Some(session) = self.sessions.values_mut().nth(at) else { return };
        let Some(ask) = session.asked.pop_front() else { return };
        let failed = |room: String, id: String| {
            Tell::Failed(Failed {
                room_id: room,
                client_message_id: id,
                code: Code::Unavailable.into(),
                ..Failed::default()
            })
        };
        match ask {
            Ask::Join(Join { room_id, .. }) if refuse => {
                session.telling.push_back(failed(room_id, String::new()));
            }
            Ask::Send(send) if refuse => {
                session.telling.push_back(failed(send.room_id, send.client_message_id));
            }
            Ask::Join(Join { room_id, from }) => {
                let head = self.logs.get(&room_id).map_or(0, Vec::len) as u64;
                let cursor = match from {
                    Some(join::From::Cursor(cursor)) => cursor,
                    Some(join::From::Earliest(_)) => 0,
                    other => panic!("not asked for: {other:?}"),
                };
                assert!(cursor <= head, "a cursor beyond the log");
                session.rooms.insert(room_id.clone(), cursor);
                let joined = Joined { room_id, head, cursor, ..Joined::default() };
                session.telling.push_back(Tell::Joined(joined));
            }
            Ask::Send(Send { room_id, client_message_id, .. }) => {
                assert!(session.rooms.contains_key(&room_id), "sent to a room not joined");
                let log = self.logs.entry(room_id.clone()).or_default();
                let there = log.iter().position(|id| *id == client_message_id);
                let at = there.unwrap_or_else(|| {
                    log.push(client_message_id.clone());
                    log.len() - 1
                });
                let seq = at as u64 + 1;
                let sent = Sent { room_id, client_message_id, seq, ..Sent::default() };
                session.telling.push_back(Tell::Sent(sent));
            }
            Ask::Ping(ping) => session.telling.push_back(Tell::Pong(Pong { nonce: ping.nonce })),
            Ask::Leave(leave) => drop(session.rooms.remove(&leave.room_id)),
            Ask::Reauthenticate(_) => {}
        }
    }

    /// A node passes on one entry of each room.
    fn pull(&mut self, n: u8) {
        let at = usize::from(n) % self.sessions.len().max(1);
        let Some(session) = self.sessions.values_mut().nth(at) else { return };
        for (room, cursor) in &mut session.rooms {
            let log = self.logs.get(room).map(Vec::as_slice).unwrap_or_default();
            let Some(id) = log.get(*cursor as usize) else { continue };
            *cursor += 1;
            session.telling.push_back(Tell::Message(Message {
                room_id: room.clone(),
                seq: *cursor,
                client_message_id: id.clone(),
                ..Message::default()
            }));
        }
    }

    /// What the core wants done, and what it tells.
    fn act(&mut self) {
        while let Some(action) = self.core.actions.pop_front() {
            match action {
                Action::Open { link, prefer, avoid } => {
                    self.avoided.push(avoid);
                    assert!(self.opening.replace(link).is_none(), "two openings");
                    self.preferred.push(prefer);
                }
                Action::Write(id, ask) => {
                    if let Some(session) = self.sessions.get_mut(&id) {
                        session.asked.push_back(ask);
                    }
                }
                Action::Close(id) => {
                    self.sessions.remove(&id);
                    self.opening.take_if(|opening| *opening == id);
                }
            }
        }
        assert!(self.sessions.len() <= 3, "more streams than there may be");
        for event in std::mem::take(&mut self.core.events) {
            match event {
                Event::Message(message) => {
                    let seen = self.seen.entry(message.room_id).or_default();
                    seen.push((message.seq, message.client_message_id));
                }
                Event::Sent(sent) => self.acknowledged.push(sent.client_message_id),
                Event::Failed(failed) => panic!("refused for good: {failed:?}"),
                Event::Refused(failed) => panic!("a room was lost: {failed:?}"),
                Event::Ended { .. } => self.ended = true,
                _ => {}
            }
        }
    }

    fn is_settled(&self) -> bool {
        let said: usize = self.said.values().map(Vec::len).sum();
        said == self.acknowledged.len()
            && self
                .logs
                .iter()
                .all(|(room, log)| self.seen.get(room).map_or(0, Vec::len) == log.len())
    }

    /// Nothing bad happens any more: everything must come through.
    fn settle(&mut self) {
        for _ in 0..20_000 {
            if self.is_settled() {
                return;
            }
            self.step(&Step::OpenWell);
            for n in 0..3 {
                for step in [Step::Answer(n), Step::Pull(n), Step::Deliver(n)] {
                    self.step(&step);
                }
            }
            self.step(&Step::Wait(5));
        }
        panic!("it never settles: {:?}", self.core);
    }

    /// What the promise says.
    fn check(&self, ordered: bool) {
        for (room, log) in &self.logs {
            let seen = self.seen.get(room).cloned().unwrap_or_default();
            let all: Vec<(u64, String)> = (1..).zip(log.iter().cloned()).collect();
            assert_eq!(seen, all, "{room}");
            assert_eq!(log.iter().collect::<BTreeSet<_>>().len(), log.len(), "doubled: {log:?}");
            let ours: Vec<&String> = log.iter().filter(|id| id.starts_with("c-")).collect();
            if ordered {
                let said = self.said.get(room).map(Vec::as_slice).unwrap_or_default();
                assert_eq!(ours, said.iter().collect::<Vec<_>>(), "another order in {room}");
            }
        }
        let once: BTreeSet<&String> = self.acknowledged.iter().collect();
        assert_eq!(once.len(), self.acknowledged.len(), "acknowledged twice");
    }
}

fn unavailable() -> Why {
    Why::Status(Status::unavailable("cut"))
}

fn steps(refuses: bool) -> impl Strategy<Value = Vec<Step>> {
    let refuse = move |n| if refuses { Step::Refuse(n) } else { Step::Answer(n) };
    let step = prop_oneof![
        8 => any::<u8>().prop_map(Step::Say),
        4 => any::<u8>().prop_map(Step::Other),
        12 => Just(Step::OpenWell),
        2 => Just(Step::OpenBadly),
        24 => any::<u8>().prop_map(Step::Answer),
        4 => any::<u8>().prop_map(refuse),
        20 => any::<u8>().prop_map(Step::Pull),
        40 => any::<u8>().prop_map(Step::Deliver),
        2 => any::<u8>().prop_map(Step::Cut),
        3 => any::<u8>().prop_map(Step::Move),
        1 => any::<u8>().prop_map(Step::Drain),
        12 => (1_u16..800).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_caller_sees_everything_once_and_in_order(steps in steps(false)) {
        let mut world = World::new();
        steps.iter().for_each(|step| world.step(step));
        world.settle();
        world.check(true);
        prop_assert!(!world.ended);
    }

    #[test]
    fn passing_refusals_lose_and_double_nothing(steps in steps(true)) {
        let mut world = World::new();
        steps.iter().for_each(|step| world.step(step));
        world.settle();
        world.check(false);
    }
}

/// Runs until nothing more happens without time passing.
fn run(world: &mut World) {
    for _ in 0..50 {
        for n in 0..3 {
            world.step(&Step::Answer(n));
            world.step(&Step::Pull(n));
            world.step(&Step::Deliver(n));
        }
    }
}

#[test]
fn a_move_opens_elsewhere_first_and_ends_the_old_stream_after_its_last_answer() {
    let mut world = World::new();
    world.step(&Step::OpenWell);
    run(&mut world);
    world.step(&Step::Move(0));
    run(&mut world);
    assert!(world.opening.is_none(), "it waits for its share of the jitter");
    world.step(&Step::Wait(600));
    assert_eq!(world.preferred.last(), Some(&vec!["elsewhere:1".to_owned()]));
    world.step(&Step::Say(0));
    world.step(&Step::OpenWell);
    // The new stream joins; the old one has not answered yet.
    world.step(&Step::Answer(1));
    world.step(&Step::Answer(1));
    world.step(&Step::Deliver(1));
    world.step(&Step::Deliver(1));
    assert_eq!((world.sessions.len(), world.core.current), (2, Some(2)));
    world.step(&Step::Say(0));
    assert!(world.sessions[&2].asked.is_empty(), "it would overtake what the old one has");
    world.step(&Step::Answer(0));
    world.step(&Step::Deliver(0));
    assert_eq!(world.sessions.len(), 1, "the old stream is ended");
    world.settle();
    world.check(true);
}

#[test]
fn a_node_that_answers_nothing_is_left() {
    let mut world = World::new();
    world.step(&Step::OpenWell);
    run(&mut world);
    world.step(&Step::Say(0));
    // It takes what it is sent and is frozen.
    for _ in 0..6 {
        world.step(&Step::Wait(500));
    }
    assert_eq!(world.sessions.len(), 0);
    assert!(world.opening.is_some(), "it goes on elsewhere");
    assert_eq!(world.avoided.last(), Some(&Some("s1:1".to_owned())));
    world.settle();
    world.check(true);
}

#[test]
fn who_has_no_patience_is_told_the_end_and_what_is_not_known() {
    let settings = settings_of(Some(Duration::from_secs(5)));
    let mut world = World { core: Core::new(settings, half), ..World::new() };
    world.opening = None;
    world.core.join(world.now, room(0), From::Latest);
    world.act();
    world.step(&Step::Say(0));
    for _ in 0..100 {
        world.step(&Step::OpenBadly);
        world.step(&Step::Wait(100));
    }
    assert!(world.ended && world.core.is_ended());
    assert!(world.opening.is_none() || world.now < Duration::from_secs(11));
}

#[test]
fn a_room_that_may_not_be_read_takes_its_messages_with_it() {
    let settings = settings_of(None);
    let mut core = Core::new(settings, half);
    let now = Duration::ZERO;
    core.join(now, "r".into(), From::Latest);
    core.opened(now, 1, "s:1".into());
    let send = Send { room_id: "r".into(), client_message_id: "1".into(), ..Send::default() };
    core.send(now, send);
    let refused = Failed { room_id: "r".into(), code: Code::NotFound.into(), ..Failed::default() };
    core.frame(now, 1, Tell::Failed(refused));
    let told: Vec<String> = core
        .events
        .iter()
        .map(|event| match event {
            Event::Failed(failed) => format!("failed {}", failed.client_message_id),
            Event::Refused(failed) => format!("refused {}", failed.room_id),
            _ => String::new(),
        })
        .filter(|told| !told.is_empty())
        .collect();
    assert_eq!(told, ["failed 1", "refused r"]);
    assert_eq!(core.wake_at(), None, "nothing is left to do");
}
