//! Clients that talk in rooms: one message at a time in each, the next a moment
//! after the acknowledgement of the last, so that a room is silent only when it
//! is not served.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use secrecy::SecretString;
use simpul::client::chat::{self, Chat, Event, Events, From, Open, OpenError, Opened, Options};
use simpul::client::dial::{self, Address};
use simpul::client::renewal::Tokens;
use simpul::proto::chat::v1::ChatRequest;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::stage::Stage;
use crate::world::LONG;

/// A token that never changes.
pub struct Token(pub String);

impl Tokens for Token {
    fn token(&self) -> Option<SecretString> {
        Some(self.0.clone().into())
    }

    fn is_renewable(&self) -> bool {
        false
    }
}

/// Opens its first stream at one node and later ones anywhere.
struct Homed {
    remote: chat::Remote,
    home: Mutex<Option<Address>>,
}

#[async_trait]
impl Open for Homed {
    fn servers(&self) -> Result<Vec<Address>, OpenError> {
        match self.home.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(home) => Ok(vec![home]),
            None => self.remote.servers(),
        }
    }

    async fn open(
        &self,
        server: &Address,
        outgoing: mpsc::Receiver<ChatRequest>,
    ) -> Result<Opened, OpenError> {
        self.remote.open(server, outgoing).await
    }
}

/// A chat that begins at `home` and may go to any of `nodes`.
pub fn open(stage: &Stage, home: usize, nodes: &[usize]) -> (Chat, Events) {
    let remote = chat::Remote {
        servers: stage.addresses(nodes),
        server_name: Some("localhost".to_owned()),
        tls: Arc::new(dial::client_config(&stage.ca(), None).expect("PEM")),
        tokens: Arc::new(Token(stage.token.clone())),
    };
    let home = Mutex::new(Some(stage.address(home)));
    chat::start(Arc::new(Homed { remote, home }), Options::default())
}

/// When a message was sent and acknowledged.
#[derive(Debug, Clone, Copy)]
struct Answer {
    sent: Instant,
    acked: Instant,
}

type Answers = Arc<Mutex<BTreeMap<String, Vec<Answer>>>>;

/// The running talk; ends when dropped.
pub struct Talk {
    answers: Answers,
    rooms: usize,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Talk {
    /// Begins in every room; one client begins at each of `homes` in turn, and
    /// may go to any of `nodes`.
    pub fn start(
        stage: &Stage,
        rooms: &[String],
        homes: &[usize],
        nodes: &[usize],
        pause: Duration,
    ) -> Talk {
        let answers = Answers::default();
        let mut tasks = Vec::new();
        for (number, home) in homes.iter().enumerate() {
            let mine = rooms.iter().skip(number).step_by(homes.len()).cloned().collect();
            let (chat, events) = open(stage, *home, nodes);
            let talking = talk(chat, events, mine, pause, answers.clone());
            tasks.push(simpul::task::spawn("talk", talking));
        }
        Talk { answers, rooms: rooms.len(), tasks }
    }

    /// Waits until in every room something was acknowledged that was sent after
    /// a time.
    pub async fn goes_on(&self, since: Instant) {
        let begun = Instant::now();
        loop {
            assert!(self.tasks.iter().all(|task| !task.is_finished()), "a client has ended");
            let going = self.read(|answers| {
                let after = |answers: &&Vec<Answer>| answers.iter().any(|one| one.sent >= since);
                answers.values().filter(after).count()
            });
            if going == self.rooms {
                return;
            }
            assert!(begun.elapsed() < LONG, "{going} of {} rooms go on", self.rooms);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The longest time of each room without an acknowledgement, from a time
    /// until its last one.
    pub fn silences(&self, from: Instant) -> Vec<Duration> {
        self.read(|answers| {
            let of = |answers: &Vec<Answer>| {
                let acks = answers.iter().map(|one| one.acked).filter(|at| *at >= from);
                let (mut last, mut longest) = (from, Duration::ZERO);
                for at in acks {
                    longest = longest.max(at - last);
                    last = at;
                }
                longest
            };
            answers.values().map(of).collect()
        })
    }

    fn read<T>(&self, each: impl FnOnce(&BTreeMap<String, Vec<Answer>>) -> T) -> T {
        each(&self.answers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn talk(
    chat: Chat,
    mut events: Events,
    rooms: Vec<String>,
    pause: Duration,
    answers: Answers,
) {
    for room in &rooms {
        chat.join(room, From::Latest).await.expect("the chat runs");
    }
    let mut due: BTreeSet<(Instant, String)> = BTreeSet::new();
    let mut waiting: BTreeMap<String, Instant> = BTreeMap::new();
    loop {
        let next = due.first().cloned();
        tokio::select! {
            biased;
            event = events.next() => match event {
                Some(Event::Joined { joined, again: false }) => {
                    due.insert((Instant::now(), joined.room_id));
                }
                Some(Event::Sent(ack)) => {
                    let acked = Instant::now();
                    let sent = waiting.remove(&ack.room_id).expect("a message that waits");
                    due.insert((acked + pause, ack.room_id.clone()));
                    let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
                    answers.entry(ack.room_id).or_default().push(Answer { sent, acked });
                }
                Some(Event::Failed(failed) | Event::Refused(failed)) => {
                    panic!("refused in {}: {}", failed.room_id, failed.message)
                }
                Some(Event::Ended { why, .. }) => panic!("sent away: {why}"),
                Some(_) => {}
                None => return,
            },
            (at, room) = until(next) => {
                due.remove(&(at, room.clone()));
                waiting.insert(room.clone(), Instant::now());
                chat.send(&room, "how long does this take?".into(), 0).await.expect("it runs");
            }
        }
    }
}

/// What is due, when it is; for ever when nothing is.
async fn until(next: Option<(Instant, String)>) -> (Instant, String) {
    match next {
        Some((at, room)) => {
            tokio::time::sleep_until(at.into()).await;
            (at, room)
        }
        None => std::future::pending().await,
    }
}
