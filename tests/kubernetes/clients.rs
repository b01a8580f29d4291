//! Clients that never rest, connected through the Service: chatters that each
//! read and write every room, hundreds that only read, and a caller of unary
//! methods who counts what fails.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use secrecy::SecretString;
use simpul::client::Client;
use simpul::client::chat::{self, Chat, Event, Events, From, Options, Remote};
use simpul::client::dial::Address;
use simpul::client::renewal::Tokens;
use simpul::client::servers::Servers;
use simpul::proto::chat::v1::{AddMemberRequest, CreateRoomRequest, GetRoomRequest, RoomRole};
use simpul::proto::money::v1::Money;
use simpul::proto::payment::v1::ProcessPaymentRequest;
use tokio::task::JoinHandle;
use tonic::Status;

use crate::history::{self, Logs, What};
use crate::record::{Record, entry, log};
use crate::site::Site;

/// Where a client inside the cluster finds the nodes.
const SERVICE: &str = "simpul.simpul.svc:7443";

/// Clients that chat, and their rooms.
const CHATTERS: usize = 4;
const ROOMS: usize = 6;

/// The pause between two messages of one chatter, and between two unary calls.
const PACE: Duration = Duration::from_millis(40);

/// Sessions that only read, and the room they are in.
const READERS: usize = 150;
const HALL: &str = "hall";

/// How long the last answers may take.
const LAST: Duration = Duration::from_secs(60);

/// Certificates prove these clients.
struct NoToken;

impl Tokens for NoToken {
    fn token(&self) -> Option<SecretString> {
        None
    }

    fn is_renewable(&self) -> bool {
        false
    }
}

fn room(number: usize) -> String {
    format!("room-{number}")
}

fn user(number: usize) -> String {
    format!("u{number}")
}

fn service() -> Vec<Address> {
    vec![Address::from_str(SERVICE).expect("an address")]
}

/// A client of unary methods.
pub async fn unary(site: &Site, user: &str) -> Client {
    let servers = Servers::connect(service(), None, site.tls(user).await).await;
    Client::new(servers.expect("the Service answers"), None, None, Duration::from_secs(20))
}

fn opener(tls: Arc<rustls::ClientConfig>) -> Arc<Remote> {
    Arc::new(Remote { servers: service(), server_name: None, tls, tokens: Arc::new(NoToken) })
}

/// Everybody.
pub struct Clients {
    record: Arc<Record>,
    reader: Client,
    shared: Arc<Shared>,
    chatters: Vec<JoinHandle<()>>,
    caller: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    calls: AtomicUsize,
    /// Calls that failed in the end, and when.
    failed: Mutex<Vec<(Duration, String)>>,
    /// Messages that have no answer, by chatter.
    waiting: Mutex<BTreeMap<String, usize>>,
    /// The last seq of a chatter in a room.
    seen: Mutex<BTreeMap<(String, String), u64>>,
    /// How often a stream was lost.
    lost: AtomicUsize,
    moved: AtomicUsize,
}

/// What the clients noticed in a while.
#[derive(Debug)]
pub struct Seen {
    pub calls: usize,
    pub failed: Vec<String>,
    /// The longest time in which a chatter was given nothing at all.
    silence: Duration,
    /// The longest time in which a room with waiting messages answered none.
    room: Duration,
    messages: usize,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} messages delivered, longest silence of a client {} ms, of a room {} ms; \
             {} of {} calls failed",
            self.messages,
            self.silence.as_millis(),
            self.room.as_millis(),
            self.failed.len(),
            self.calls,
        )
    }
}

impl Clients {
    /// Makes the rooms and starts everybody; returns when all have joined.
    pub async fn start(site: &Site, record: Arc<Record>) -> Self {
        let reader = unary(site, &user(0)).await;
        make_rooms(&reader).await;
        let shared = Arc::new(Shared::default());
        let mut chatters = Vec::new();
        for number in 0..CHATTERS {
            let name = user(number);
            let tls = site.tls(&name).await;
            let (chat, events) = chat::start(opener(tls), Options::default());
            let (told, shared_too) = (record.clone(), shared.clone());
            simpul::task::spawn("reader", read(events, name.clone(), told, shared_too));
            let writing = write(chat, name, record.clone(), shared.clone());
            chatters.push(simpul::task::spawn("chatter", writing));
        }
        let hall = site.tls(HALL).await;
        for _ in 0..READERS {
            let (chat, events) = chat::start(opener(hall.clone()), Options::default());
            simpul::task::spawn("in the hall", listen(chat, events));
        }
        let caller = call(unary(site, &user(0)).await, record.clone(), shared.clone());
        let caller = simpul::task::spawn("caller", caller);
        let clients = Self { record, reader, shared, chatters, caller };
        clients.going_on().await;
        clients
    }

    pub fn now(&self) -> Duration {
        self.record.now()
    }

    /// How often streams were lost, and moved without a loss.
    pub fn turns(&self) -> (usize, usize) {
        (self.shared.lost.load(Ordering::Relaxed), self.shared.moved.load(Ordering::Relaxed))
    }

    /// Waits until every chatter was given something in every room that was sent
    /// after now.
    pub async fn going_on(&self) {
        let begun = Instant::now();
        let heads: BTreeMap<(String, String), u64> = self.lock_seen().clone();
        loop {
            let seen = self.lock_seen().clone();
            let everybody =
                (0..CHATTERS).flat_map(|who| (0..ROOMS).map(move |at| (user(who), room(at))));
            let behind: Vec<_> = everybody
                .filter(|key| seen.get(key).unwrap_or(&0) < &(heads.get(key).unwrap_or(&0) + 4))
                .collect();
            if behind.is_empty() {
                return;
            }
            assert!(begun.elapsed() < LAST, "chats that do not go on: {behind:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn lock_seen(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, String), u64>> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was noticed from a time until now.
    pub fn since(&self, from: Duration) -> Seen {
        let events = self.record.events();
        let to = self.record.now();
        let mut last: BTreeMap<&str, Duration> = BTreeMap::new();
        let (mut silence, mut messages) = (Duration::ZERO, 0);
        for event in events.iter().filter(|event| event.at >= from) {
            if matches!(event.what, What::Saw(_)) {
                messages += 1;
                let before = last.insert(&event.client, event.at).unwrap_or(from);
                silence = silence.max(event.at - before);
            }
        }
        for before in last.values() {
            silence = silence.max(to - *before);
        }
        let room = history::silences(&events, from, to).into_values().max().unwrap_or_default();
        let failed = self.shared.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let failed: Vec<String> =
            failed.iter().filter(|(at, _)| *at >= from).map(|(_, what)| what.clone()).collect();
        Seen {
            calls: self.shared.calls.swap(0, Ordering::Relaxed),
            failed,
            silence,
            room,
            messages,
        }
    }

    /// Stops everybody and judges the whole run.
    pub async fn judged(self) -> String {
        self.shared.stop.store(true, Ordering::Relaxed);
        for chatter in self.chatters {
            chatter.await.expect("a chatter");
        }
        self.caller.await.expect("the caller");
        let mut logs = Logs::new();
        for number in 0..ROOMS {
            logs.insert(room(number), log(&self.reader, &room(number)).await.expect("the log"));
        }
        let begun = Instant::now();
        while begun.elapsed() < LAST {
            let seen = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let all = (0..CHATTERS).all(|who| {
                logs.iter().all(|(room, log)| {
                    seen.get(&(user(who), room.clone())).copied().unwrap_or(0) >= log.len() as u64
                })
            });
            if all {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let verdict = history::judge(&self.record.events(), &logs);
        assert!(verdict.breaches.is_empty(), "{:#?}", verdict.breaches);
        assert_eq!(verdict.unanswered, 0, "every message was answered");
        format!(
            "{} acknowledged, {} delivered, {} refused",
            verdict.acked, verdict.seen, verdict.refused
        )
    }
}

async fn make_rooms(client: &Client) {
    let rooms = (0..ROOMS).map(room).chain([HALL.to_owned()]);
    for room_id in rooms {
        let request = CreateRoomRequest { room_id: room_id.clone(), title: String::new() };
        client.chat().create_room(client.unary(request)).await.expect("a room");
        for principal in (1..CHATTERS).map(user).chain([HALL.to_owned()]) {
            let role = RoomRole::Member.into();
            let request = AddMemberRequest { room_id: room_id.clone(), principal, role };
            client.chat().add_member(client.unary(request)).await.expect("a member");
        }
    }
}

async fn write(chat: Chat, name: String, record: Arc<Record>, shared: Arc<Shared>) {
    for number in 0..ROOMS {
        chat.join(&room(number), From::Earliest).await.expect("the chat runs");
    }
    for number in 0.. {
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        let room = room(number % ROOMS);
        let body = format!("{name} says {number}");
        let at = record.now();
        waiting(&shared, &name, |waits| *waits += 1);
        let id = chat.send(&room, body.clone(), 0).await.expect("the chat runs");
        record.tell_at(at, &name, &room, What::Sent { id, body });
        tokio::time::sleep(PACE).await;
    }
    let begun = Instant::now();
    while waiting(&shared, &name, |_| ()) > 0 && begun.elapsed() < LAST {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn waiting(shared: &Shared, name: &str, by: impl FnOnce(&mut usize)) -> usize {
    let mut waiting = shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
    let waits = waiting.entry(name.to_owned()).or_default();
    by(waits);
    *waits
}

async fn read(mut events: Events, name: String, record: Arc<Record>, shared: Arc<Shared>) {
    while let Some(event) = events.next().await {
        match event {
            Event::Joined { joined, again: false } => {
                record.tell(&name, &joined.room_id, What::Reads { cursor: joined.cursor });
            }
            Event::Message(message) => {
                record.tell(&name, &message.room_id, What::Saw(entry(&message)));
                let mut seen = shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.insert((name.clone(), message.room_id), message.seq);
            }
            Event::Sent(sent) => {
                let what = What::Acked { id: sent.client_message_id, seq: sent.seq };
                record.tell(&name, &sent.room_id, what);
                waiting(&shared, &name, |waits| *waits = waits.saturating_sub(1));
            }
            Event::Failed(failed) => {
                let what = What::Refused { id: failed.client_message_id };
                record.tell(&name, &failed.room_id, what);
                waiting(&shared, &name, |waits| *waits = waits.saturating_sub(1));
            }
            Event::Refused(failed) => panic!("{name} may not read: {}", failed.message),
            Event::Ended { why, .. } => panic!("{name} was sent away: {why}"),
            Event::Lost(_) => drop(shared.lost.fetch_add(1, Ordering::Relaxed)),
            Event::Moved { .. } => drop(shared.moved.fetch_add(1, Ordering::Relaxed)),
            _ => {}
        }
    }
}

async fn listen(chat: Chat, mut events: Events) {
    chat.join(HALL, From::Latest).await.expect("the chat runs");
    while events.next().await.is_some() {}
}

/// Calls again and again, methods that may be called twice: whatever fails after
/// the client's own tries is counted.
async fn call(client: Client, record: Arc<Record>, shared: Arc<Shared>) {
    for number in 0_usize.. {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let outcome = match number % 4 {
            0 => pay(&client, number).await,
            at => ask_for_a_room(&client, at).await,
        };
        shared.calls.fetch_add(1, Ordering::Relaxed);
        if let Err(status) = outcome {
            let mut failed = shared.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.push((record.now(), format!("{:?}: {}", status.code(), status.message())));
        }
        tokio::time::sleep(PACE).await;
    }
}

async fn ask_for_a_room(client: &Client, at: usize) -> Result<(), Status> {
    let request = client.unary(GetRoomRequest { room_id: room(at) });
    client.chat().get_room(request).await.map(drop)
}

async fn pay(client: &Client, number: usize) -> Result<(), Status> {
    let request = client.unary(ProcessPaymentRequest {
        idempotency_key: format!("pay-{number}"),
        payee: "toko".into(),
        amount: Some(Money { currency: "IDR".into(), minor_units: 100 }),
        payment_method: "sandbox_ok".into(),
        ..ProcessPaymentRequest::default()
    });
    client.payment().process_payment(request).await.map(drop)
}
