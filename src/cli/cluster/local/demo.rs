//! The conversation across the local nodes: each speaker is a client of its own
//! on a node of its own, and everybody reads everything. What is said is
//! checked: each message must be acknowledged, and seen by all, once and in
//! order, whatever happens to the nodes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::child::Child;
use super::say;
use crate::cli::env::Env;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::target::Target;
use crate::cli::text::plain;
use crate::client::chat::{
    Chat, Event, Events, From, Open, OpenError, Opened, Options, Remote, start,
};
use crate::client::dial::Address;
use crate::client::patience::Patience;
use crate::proto::chat::v1::{AddMemberRequest, ChatRequest, CreateRoomRequest, Message, RoomRole};

const ROOM: &str = "lobby";
const NAMES: [&str; 9] =
    ["alice", "budi", "citra", "dewi", "eko", "fitri", "gita", "hadi", "indah"];

/// Where the nodes are now, by their place; absent while one is down.
type Places = Arc<Mutex<Vec<Option<Address>>>>;

/// A client whose own node is the one at its place; any other while that is
/// down.
struct Home {
    place: usize,
    places: Places,
    remote: Remote,
}

#[async_trait]
impl Open for Home {
    fn servers(&self) -> Result<Vec<Address>, OpenError> {
        let places = self.places.lock().map_err(|_| Status::internal("a thread panicked"))?;
        if let Some(Some(home)) = places.get(self.place) {
            return Ok(vec![home.clone()]);
        }
        let up: Vec<Address> = places.iter().flatten().cloned().collect();
        if up.is_empty() { Err(Status::unavailable("no node is up").into()) } else { Ok(up) }
    }

    async fn open(
        &self,
        server: &Address,
        outgoing: mpsc::Receiver<ChatRequest>,
    ) -> Result<Opened, OpenError> {
        self.remote.open(server, outgoing).await
    }
}

/// One who speaks and listens.
struct Speaker {
    name: &'static str,
    chat: Chat,
}

/// A message on its way.
#[derive(Debug)]
struct Said {
    by: usize,
    at: Instant,
    text: String,
    acknowledged: Option<Duration>,
    /// When each speaker saw it.
    seen: BTreeMap<usize, Duration>,
}

/// The conversation.
pub(super) struct Demo {
    speakers: Vec<Speaker>,
    homes: Vec<String>,
    places: Places,
    events: futures_util::stream::SelectAll<futures_util::stream::BoxStream<'static, Told>>,
    waiting: BTreeMap<String, Said>,
    /// The last seq that each speaker saw.
    last: Vec<u64>,
    said: u64,
    complete: u64,
    /// Set when a node has ended: what had been said by then.
    ended: Option<u64>,
}

/// Something happened to a speaker.
type Told = (usize, Option<Event>);

impl Demo {
    /// Makes the room and has everybody join it.
    pub(super) async fn start(env: &Env, children: &[Child]) -> Result<Self, Failure> {
        let addresses = children.iter().map(Child::address).collect();
        let places: Places = Arc::new(Mutex::new(addresses));
        make_room(env, children).await?;
        let mut speakers = Vec::new();
        let mut events = futures_util::stream::SelectAll::new();
        for (place, (child, name)) in children.iter().zip(NAMES).enumerate() {
            let target = target(env, child.dir().to_owned(), name)?;
            let remote = Remote {
                servers: Vec::new(),
                server_name: Some("localhost".to_owned()),
                tls: target.tls()?,
                tokens: Arc::new(target.credential),
            };
            let opener = Home { place, places: places.clone(), remote };
            let (chat, heard) = start(Arc::new(opener), Options::default());
            // An end of the chat is told by its last event.
            let _ = chat.join(ROOM, From::Latest).await;
            events.push(told(place, heard).boxed());
            speakers.push(Speaker { name, chat });
        }
        Ok(Self {
            last: vec![0; speakers.len()],
            homes: children.iter().map(|child| child.name().to_owned()).collect(),
            speakers,
            places,
            events,
            waiting: BTreeMap::new(),
            said: 0,
            complete: 0,
            ended: None,
        })
    }

    /// What happens next to anybody. Cancel safe.
    pub(super) async fn next(&mut self) -> Told {
        match self.events.next().await {
            Some(told) => told,
            None => std::future::pending().await,
        }
    }

    /// The next one says something.
    pub(super) async fn say(&mut self) {
        let by = usize::try_from(self.said).unwrap_or_default() % self.speakers.len().max(1);
        // Nobody has joined yet, or too much is under way: later.
        if self.waiting.len() >= 64 || self.last.contains(&0) {
            return;
        }
        let Some(speaker) = self.speakers.get(by) else { return };
        let text = format!("message {}", self.said + 1);
        let Ok(id) = speaker.chat.send(ROOM, text.clone(), 0).await else { return };
        self.said += 1;
        let said = Said { by, at: Instant::now(), text, acknowledged: None, seen: BTreeMap::new() };
        self.waiting.insert(id, said);
    }

    /// A node went away or came back: its clients learn where it is.
    pub(super) fn moved(&mut self, child: &Child) {
        let place = self.homes.iter().position(|home| home == child.name());
        if let (Some(place), Ok(mut places)) = (place, self.places.lock())
            && let Some(there) = places.get_mut(place)
        {
            *there = child.address();
            if there.is_none() {
                self.ended = Some(self.said);
            }
        }
    }

    /// Takes note of an event.
    pub(super) fn event(&mut self, env: &Env, (who, event): Told) -> Result<(), Failure> {
        let Some(speaker) = self.speakers.get(who) else { return Ok(()) };
        let name = speaker.name;
        match event {
            Some(Event::Joined { joined, .. }) => {
                if let Some(last) = self.last.get_mut(who) {
                    *last = (*last).max(joined.cursor.max(1));
                }
            }
            Some(Event::Message(message)) => return self.message(env, who, &message),
            Some(Event::Sent(sent)) => {
                if let Some(said) = self.waiting.get_mut(&sent.client_message_id) {
                    said.acknowledged = Some(said.at.elapsed());
                }
                return self.settle(env, &sent.client_message_id, sent.seq);
            }
            Some(Event::Failed(failed)) => {
                self.waiting.remove(&failed.client_message_id);
                say(env, "refused", name, &format!("was refused: {}", plain(&failed.message)))?;
            }
            Some(Event::Lost(why)) => {
                say(env, "lost", name, &format!("lost the node: {}", plain(&why.to_string())))?;
            }
            Some(Event::Connected { server } | Event::Moved { server }) => {
                say(env, "connected", name, &format!("is at {server}"))?;
            }
            Some(Event::Refused(failed)) => {
                return Err(Failure::unavailable(format!("{name}: {}", failed.message)));
            }
            Some(Event::Ended { why, .. }) => {
                return Err(Failure::unavailable(format!("{name}: {why}")));
            }
            Some(Event::Notice(_)) | None => {}
        }
        Ok(())
    }

    /// An entry came to a speaker: each must come once and in order.
    fn message(&mut self, env: &Env, who: usize, message: &Message) -> Result<(), Failure> {
        if let Some(last) = self.last.get_mut(who) {
            if message.seq <= *last && *last > 1 {
                let text = format!("saw {} after {last}", message.seq);
                say(env, "doubled", self.homes.get(who).map_or("", String::as_str), &text)?;
            }
            *last = message.seq;
        }
        let id = &message.client_message_id;
        if let Some(said) = self.waiting.get_mut(id) {
            let after = said.at.elapsed();
            said.seen.entry(who).or_insert(after);
        } else if who == 0 && !self.is_ours(id) && !message.body.is_empty() {
            // Somebody who takes part by hand.
            let text =
                format!("{:>5}  {}: {}", message.seq, plain(&message.sender), plain(&message.body));
            let json = json!({"type": "message", "seq": message.seq, "sender": message.sender,
                "body": message.body});
            env.output.say(&json, || text)?;
        }
        self.settle(env, id, message.seq)
    }

    fn is_ours(&self, id: &str) -> bool {
        self.speakers.iter().any(|speaker| speaker.chat.is_ours(id))
    }

    /// Shows a message that everybody has seen and its sender knows of.
    fn settle(&mut self, env: &Env, id: &str, seq: u64) -> Result<(), Failure> {
        let all = self.speakers.len();
        let done = |said: &Said| said.seen.len() == all && said.acknowledged.is_some();
        if !self.waiting.get(id).is_some_and(done) {
            return Ok(());
        }
        let Some(said) = self.waiting.remove(id) else { return Ok(()) };
        self.complete += 1;
        let at = |place: usize| {
            let name = self.speakers.get(place).map_or("", |speaker| speaker.name);
            format!("{name}@{}", self.homes.get(place).map_or("", String::as_str))
        };
        let seen: Vec<String> = said
            .seen
            .iter()
            .filter(|(place, _)| **place != said.by)
            .map(|(place, after)| format!("{} {}", at(*place), millis(*after)))
            .collect();
        let acknowledged = said.acknowledged.unwrap_or_default();
        let json = json!({
            "type": "said", "seq": seq, "sender": at(said.by), "body": said.text,
            "acknowledged_seconds": acknowledged.as_secs_f64(), "seen_by": all,
        });
        env.output.say(&json, || {
            format!(
                "{seq:>5}  {:<10} {}  (acknowledged {}, seen by {})",
                at(said.by),
                said.text,
                millis(acknowledged),
                seen.join(", ")
            )
        })
    }

    /// Once everything that had been said when a node ended has come through:
    /// says so.
    pub(super) fn report(&mut self, env: &Env) -> Result<(), Failure> {
        let Some(before) = self.ended.filter(|before| self.complete >= *before) else {
            return Ok(());
        };
        self.ended = None;
        let text = format!(
            "nothing was lost: {before} said, {before} acknowledged, each seen by all {} once and \
             in order",
            self.speakers.len()
        );
        let json = json!({"type": "nothing_lost", "said": before, "text": text});
        env.output.say(&json, || format!("* {text}"))
    }
}

fn told(place: usize, events: Events) -> impl futures_util::Stream<Item = Told> + Send {
    futures_util::stream::unfold(Some(events), move |events| async move {
        let mut events = events?;
        let event = events.next().await;
        let rest = event.is_some().then_some(events);
        Some(((place, event), rest))
    })
}

/// The node of a child, as somebody.
fn target(env: &Env, dir: PathBuf, who: &str) -> Result<Target, Failure> {
    let mut global = env.global.clone();
    global.data_dir = Some(dir);
    global.as_principal = Some(who.to_owned());
    (global.server, global.context, global.token, global.token_file) = (None, None, None, None);
    (global.cert, global.cert_key, global.on_behalf_of) = (None, None, None);
    Target::resolve(&global)
}

/// The first speaker makes the room; everybody is a member of it. The nodes may
/// still be sharing out what they own.
async fn make_room(env: &Env, children: &[Child]) -> Result<(), Failure> {
    let mut patience = Patience::new(Duration::from_secs(30));
    loop {
        match try_room(env, children).await {
            Err(failure) if failure.exit() == Exit::Unavailable && patience.wait().await => {}
            made => return made,
        }
    }
}

/// Does what is left to do of it.
async fn try_room(env: &Env, children: &[Child]) -> Result<(), Failure> {
    let (Some(first), Some(owner)) = (children.first(), NAMES.first()) else { return Ok(()) };
    let client = target(env, first.dir().to_owned(), owner)?.connect().await?;
    let create = CreateRoomRequest { room_id: ROOM.to_owned(), title: String::new() };
    match client.chat().create_room(client.unary(create)).await {
        Ok(_) => {}
        Err(status) if status.code() == Code::AlreadyExists => {}
        Err(status) => return Err(status.into()),
    }
    for name in NAMES.iter().take(children.len()).skip(1) {
        let add = AddMemberRequest {
            room_id: ROOM.to_owned(),
            principal: (*name).to_owned(),
            role: RoomRole::Member.into(),
        };
        client.chat().add_member(client.unary(add)).await?;
    }
    Ok(())
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}
