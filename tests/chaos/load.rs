//! Clients that never rest: each reads every room and writes to every room, and
//! one pays. They use the Rust client, with every node in its list.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secrecy::SecretString;
use simpul::client::Client;
use simpul::client::chat::{self, Chat, Event, Events, From, Options, Remote};
use simpul::client::dial::{self, Address};
use simpul::client::renewal::Tokens;
use simpul::client::servers::Servers;
use simpul::proto::chat::v1::{AddMemberRequest, CreateRoomRequest, RoomRole};
use simpul::proto::money::v1::Money;
use simpul::proto::payment::v1::ProcessPaymentRequest;
use tokio::task::JoinHandle;

use crate::history::{Logs, What};
use crate::record::{Record, entry, log};
use crate::world::{LONG, World};

/// Clients that chat.
const CLIENTS: usize = 6;

/// The pause between two messages of one client.
const PACE: Duration = Duration::from_millis(8);

/// Messages of one client that may be without an answer before it waits for one.
/// On a machine that other work slows down, a client that went on regardless
/// would only ever see answers to what it said long ago.
const UNANSWERED: usize = 128;

/// A token that never changes.
struct Token(String);

impl Tokens for Token {
    fn token(&self) -> Option<SecretString> {
        Some(self.0.clone().into())
    }

    fn is_renewable(&self) -> bool {
        false
    }
}

/// The name of a room.
pub fn room(number: usize) -> String {
    format!("room-{number}")
}

fn user(number: usize) -> String {
    format!("u{number}")
}

/// Who may reach the world, and how.
struct Access {
    servers: Vec<Address>,
    tls: Arc<rustls::ClientConfig>,
}

impl Access {
    fn of(world: &World) -> Self {
        let ca = std::fs::read(world.ca()).expect("the CA");
        let tls = Arc::new(dial::client_config(&ca, None).expect("PEM"));
        let address = |text: &String| Address::from_str(text).expect("an address");
        let servers = world.servers().iter().map(address).collect();
        Self { servers, tls }
    }

    async fn client(&self, token: &str) -> Client {
        let begun = std::time::Instant::now();
        loop {
            let connected =
                Servers::connect(self.servers.clone(), Some("localhost"), self.tls.clone()).await;
            match connected {
                Ok(servers) => {
                    let bearer = format!("Bearer {token}").parse().expect("ASCII");
                    return Client::new(servers, Some(bearer), None, Duration::from_secs(20));
                }
                Err(error) => assert!(begun.elapsed() < LONG, "no node answers: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The running load.
pub struct Load {
    record: Arc<Record>,
    stop: Arc<AtomicBool>,
    senders: Vec<JoinHandle<()>>,
    readers: Vec<JoinHandle<()>>,
    payer: JoinHandle<usize>,
    progress: Arc<Progress>,
}

/// How far every client is.
#[derive(Default)]
struct Progress {
    /// Messages that have no answer.
    waiting: Mutex<BTreeMap<String, usize>>,
    /// The last seq of a client in a room.
    seen: Mutex<BTreeMap<(String, String), u64>>,
}

impl Load {
    /// Makes the rooms and starts everybody.
    pub async fn start(world: &World, record: Arc<Record>, rooms: usize) -> Load {
        let access = Access::of(world);
        let tokens: Vec<String> = (0..CLIENTS).map(|n| world.token(&user(n))).collect();
        make_rooms(&access, &tokens[0], rooms).await;
        let (stop, progress) = (Arc::new(AtomicBool::new(false)), Arc::new(Progress::default()));
        let (mut senders, mut readers) = (Vec::new(), Vec::new());
        for (number, token) in tokens.iter().enumerate() {
            let remote = Remote {
                servers: access.servers.clone(),
                server_name: Some("localhost".to_owned()),
                tls: access.tls.clone(),
                tokens: Arc::new(Token(token.clone())),
            };
            let (chat, events) = chat::start(Arc::new(remote), Options::default());
            let (name, record) = (user(number), record.clone());
            readers.push(simpul::task::spawn(
                "reader",
                read(events, name.clone(), record.clone(), progress.clone()),
            ));
            senders.push(simpul::task::spawn(
                "sender",
                write(chat, name, record, progress.clone(), stop.clone(), rooms),
            ));
        }
        let payer = pay(access.client(&tokens[0]).await, stop.clone());
        Load {
            record,
            stop,
            senders,
            readers,
            payer: simpul::task::spawn("payer", payer),
            progress,
        }
    }

    /// Stops the writing, waits for every answer and until every reader has
    /// everything; gives how many payments were answered.
    pub async fn stop(self, world: &World) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for sender in self.senders {
            sender.await.expect("a sender");
        }
        let payments = self.payer.await.expect("the payer");
        let rooms = crate::run::ROOMS;
        let logs = logs(world, rooms).await;
        let begun = self.record.now();
        while !self.progress.is_complete(&logs) && self.record.now() - begun < LONG {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.readers.iter().for_each(JoinHandle::abort);
        payments
    }
}

impl Progress {
    fn waiting(&self, client: &str, by: impl FnOnce(&mut usize)) -> usize {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = waiting.entry(client.to_owned()).or_default();
        by(waits);
        *waits
    }

    fn saw(&self, client: &str, room: &str, seq: u64) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert((client.to_owned(), room.to_owned()), seq);
    }

    /// Whether every message has its answer and every reader the whole log.
    fn is_complete(&self, logs: &Logs) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        logs.iter().all(|(room, log)| {
            (0..CLIENTS).all(|client| {
                seen.get(&(user(client), room.clone())).copied().unwrap_or(0) >= log.len() as u64
            })
        })
    }
}

async fn make_rooms(access: &Access, token: &str, rooms: usize) {
    let client = access.client(token).await;
    for number in 0..rooms {
        let room_id = room(number);
        let request = CreateRoomRequest { room_id: room_id.clone(), title: "a room".into() };
        client.chat().create_room(client.unary(request)).await.expect("a room");
        for member in 1..CLIENTS {
            let request = AddMemberRequest {
                room_id: room_id.clone(),
                principal: user(member),
                role: RoomRole::Member.into(),
            };
            client.chat().add_member(client.unary(request)).await.expect("a member");
        }
    }
}

async fn write(
    chat: Chat,
    name: String,
    record: Arc<Record>,
    progress: Arc<Progress>,
    stop: Arc<AtomicBool>,
    rooms: usize,
) {
    for number in 0..rooms {
        chat.join(&room(number), From::Earliest).await.expect("the chat runs");
    }
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        while progress.waiting(&name, |_| ()) >= UNANSWERED && !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(PACE).await;
        }
        let room = room(number % rooms);
        let body = format!("{name} says {number}");
        let at = record.now();
        progress.waiting(&name, |waits| *waits += 1);
        let id = chat.send(&room, body.clone(), 0).await.expect("the chat runs");
        record.tell_at(at, &name, &room, What::Sent { id, body });
        tokio::time::sleep(PACE).await;
    }
    let begun = record.now();
    while progress.waiting(&name, |_| ()) > 0 && record.now() - begun < LONG {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn read(mut events: Events, name: String, record: Arc<Record>, progress: Arc<Progress>) {
    while let Some(event) = events.next().await {
        match event {
            Event::Joined { joined, again: false } => {
                record.tell(&name, &joined.room_id, What::Reads { cursor: joined.cursor });
            }
            Event::Message(message) => {
                record.tell(&name, &message.room_id, What::Saw(entry(&message)));
                progress.saw(&name, &message.room_id, message.seq);
            }
            Event::Sent(sent) => {
                let what = What::Acked { id: sent.client_message_id, seq: sent.seq };
                record.tell(&name, &sent.room_id, what);
                progress.waiting(&name, |waits| *waits = waits.saturating_sub(1));
            }
            Event::Failed(failed) => {
                let what = What::Refused { id: failed.client_message_id };
                record.tell(&name, &failed.room_id, what);
                progress.waiting(&name, |waits| *waits = waits.saturating_sub(1));
            }
            Event::Refused(failed) => panic!("{name} may not read: {}", failed.message),
            Event::Ended { why, .. } => panic!("{name} was sent away: {why}"),
            _ => {}
        }
    }
}

/// Pays again and again; what got no answer is paid again under the same key.
async fn pay(client: Client, stop: Arc<AtomicBool>) -> usize {
    let mut paid = 0;
    while !stop.load(Ordering::Relaxed) {
        let request = ProcessPaymentRequest {
            idempotency_key: format!("pay-{paid}"),
            payee: "shop".into(),
            amount: Some(Money { currency: "IDR".into(), minor_units: 100 }),
            payment_method: "sandbox_ok".into(),
            ..ProcessPaymentRequest::default()
        };
        let begun = std::time::Instant::now();
        while let Err(status) =
            client.payment().process_payment(client.unary(request.clone())).await
        {
            assert!(begun.elapsed() < LONG, "a payment is not taken: {status}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        paid += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    paid
}

/// What stands in the rooms.
pub async fn logs(world: &World, rooms: usize) -> Logs {
    let access = Access::of(world);
    let client = access.client(&world.token(&user(0))).await;
    let mut logs = Logs::new();
    for number in 0..rooms {
        let mut tries = 0;
        let log = loop {
            match log(&client, &room(number)).await {
                Ok(log) => break log,
                Err(status) => assert!(tries < 100, "a room cannot be read: {status}"),
            }
            tries += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        logs.insert(room(number), log);
    }
    logs
}
