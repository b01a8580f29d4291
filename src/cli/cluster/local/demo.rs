//! The conversation across the local nodes: each speaker is a client of its own
//! on a node of its own, and everybody reads everything. Whoever loses its node
//! goes on at another one, and home once that is back. What is said is checked:
//! each message must be acknowledged, and seen by all, once and in order,
//! whatever happens to the nodes.

mod home;
mod room;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::json;
use tokio::time::Instant;

use self::home::{Home, Places};
use self::room::{make_room, target};
use super::child::Child;
use super::say;
use crate::cli::env::Env;
use crate::cli::failure::Failure;
use crate::cli::text::plain;
use crate::client::chat::{Chat, Event, Events, From, Options, Remote, Why, start};
use crate::client::dial::Address;
use crate::proto::chat::v1::Message;

const ROOM: &str = "lobby";
const NAMES: [&str; 9] =
    ["alice", "budi", "citra", "dewi", "eko", "fitri", "gita", "hadi", "indah"];

/// One who speaks and listens.
struct Speaker {
    name: &'static str,
    chat: Chat,
    /// The node that it is on by right.
    home: String,
    /// The node that it is on; none before the first and after a lost one.
    at: Option<String>,
    /// The last seq that it saw; none before it has joined.
    last: Option<u64>,
    /// Whether its loss was told.
    lost: bool,
    /// Whether its own node sent it away: it does not go back before that has
    /// ended and come again.
    sent_away: bool,
}

impl Speaker {
    fn shown(&self) -> String {
        format!("{}@{}", self.name, self.at.as_deref().unwrap_or("nowhere"))
    }
}

/// A message on its way.
#[derive(Debug)]
struct Said {
    by: usize,
    number: u64,
    at: Instant,
    acknowledged: Option<Duration>,
    /// When each speaker saw it.
    seen: BTreeMap<usize, Duration>,
}

/// The conversation.
pub(super) struct Demo {
    speakers: Vec<Speaker>,
    places: Places,
    events: futures_util::stream::SelectAll<futures_util::stream::BoxStream<'static, Told>>,
    waiting: BTreeMap<String, Said>,
    /// Messages so far, and how many of them all have seen.
    said: u64,
    complete: u64,
    /// What came twice, or left a gap.
    wrong: u64,
    /// Set when a node has ended: once everything up to this message has come
    /// through, the conversation has gone on without it.
    until: Option<u64>,
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
            let options = Options { quiet: Duration::from_secs(1), ..Options::default() };
            let (chat, heard) = start(Arc::new(opener), options);
            // An end of the chat is told by its last event.
            let _ = chat.join(ROOM, From::Latest).await;
            events.push(told(place, heard).boxed());
            let home = child.name().to_owned();
            speakers.push(Speaker {
                name,
                chat,
                home,
                at: None,
                last: None,
                lost: false,
                sent_away: false,
            });
        }
        let waiting = BTreeMap::new();
        Ok(Self { speakers, places, events, waiting, said: 0, complete: 0, wrong: 0, until: None })
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
        // Not all have joined yet, or too much is under way: later.
        if self.waiting.len() >= 64 || self.speakers.iter().any(|one| one.last.is_none()) {
            return;
        }
        let Some(speaker) = self.speakers.get(by) else { return };
        let number = self.said + 1;
        let Ok(id) = speaker.chat.send(ROOM, text_of(number), 0).await else { return };
        self.said = number;
        let (acknowledged, seen) = (None, BTreeMap::new());
        self.waiting.insert(id, Said { by, number, at: Instant::now(), acknowledged, seen });
    }

    /// A node went away or came back: its clients learn where it is.
    pub(super) async fn moved(&mut self, child: &Child) {
        let place = self.speakers.iter().position(|one| one.home == child.name());
        let Some(place) = place else { return };
        if let Ok(mut places) = self.places.lock()
            && let Some(there) = places.get_mut(place)
        {
            *there = child.address();
        }
        if let Some(speaker) = self.speakers.get_mut(place) {
            speaker.sent_away = false;
        }
        if child.address().is_none() {
            // Until each has said something more.
            self.until = Some(self.said + u64::try_from(self.speakers.len()).unwrap_or(1));
        }
        self.go_home(place).await;
    }

    /// Has a speaker that is elsewhere go home, where that is up.
    async fn go_home(&self, place: usize) {
        let Some(speaker) = self.speakers.get(place) else { return };
        let home = self.places.lock().ok().and_then(|places| places.get(place).cloned().flatten());
        if let (Some(home), Some(at)) = (home, &speaker.at)
            && *at != speaker.home
            && !speaker.sent_away
        {
            // An end of the chat is told by its last event.
            let _ = speaker.chat.go(vec![home.to_string()]).await;
        }
    }

    /// Takes note of an event.
    pub(super) async fn event(&mut self, env: &Env, (who, event): Told) -> Result<(), Failure> {
        let Some(name) = self.speakers.get(who).map(|speaker| speaker.name) else { return Ok(()) };
        match event {
            Some(Event::Joined { joined, .. }) => {
                if let Some(speaker) = self.speakers.get_mut(who) {
                    speaker.last.get_or_insert(joined.cursor);
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
            Some(Event::Lost(why)) => self.lost(env, who, why)?,
            Some(Event::Connected { server }) => self.came(env, who, &server, "is at").await?,
            Some(Event::Moved { server }) => {
                self.came(env, who, &server, "went on without a pause at").await?;
            }
            Some(Event::Refused(failed)) => {
                return Err(Failure::unavailable(format!("{name}: {}", failed.message)));
            }
            Some(Event::Ended { why, .. }) => {
                return Err(Failure::unavailable(format!("{name}: {why}")));
            }
            Some(Event::Waiting(_) | Event::Notice(_)) | None => {}
        }
        Ok(())
    }

    /// A speaker has no node: told once, however often others are tried.
    fn lost(&mut self, env: &Env, who: usize, why: Why) -> Result<(), Failure> {
        let Some(speaker) = self.speakers.get_mut(who) else { return Ok(()) };
        speaker.at = None;
        if std::mem::replace(&mut speaker.lost, true) {
            return Ok(());
        }
        let why = match why {
            Why::Status(status) => Failure::from(status).message().to_owned(),
            other => other.to_string(),
        };
        say(env, "lost", speaker.name, &format!("lost its node: {}", plain(&why)))
    }

    /// A speaker is at a node.
    async fn came(&mut self, env: &Env, who: usize, to: &str, how: &str) -> Result<(), Failure> {
        let is_it = |place: &Option<Address>| place.as_ref().is_some_and(|it| it.to_string() == to);
        let found = self.places.lock().ok().and_then(|places| places.iter().position(is_it));
        // A node that has ended since has no name any more.
        let node = found.and_then(|place| self.speakers.get(place)).map(|there| there.home.clone());
        let node = node.unwrap_or_else(|| to.to_owned());
        let Some(speaker) = self.speakers.get_mut(who) else { return Ok(()) };
        say(env, "connected", speaker.name, &format!("{how} {node}"))?;
        // By itself it goes nowhere but home.
        speaker.sent_away |= speaker.at.is_some() && node != speaker.home;
        speaker.at = Some(node);
        speaker.lost = false;
        self.go_home(who).await;
        Ok(())
    }

    /// An entry came to a speaker: each must come once and in order.
    fn message(&mut self, env: &Env, who: usize, message: &Message) -> Result<(), Failure> {
        if let Some(speaker) = self.speakers.get_mut(who) {
            let last = speaker.last.replace(message.seq);
            if last.is_some_and(|last| message.seq != last + 1) {
                self.wrong += 1;
                let text = format!("saw {} after {}", message.seq, last.unwrap_or_default());
                say(env, "out_of_order", speaker.name, &text)?;
            }
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
        let at = |place: usize| self.speakers.get(place).map(Speaker::shown).unwrap_or_default();
        let seen: Vec<String> = said
            .seen
            .iter()
            .filter(|(place, _)| **place != said.by)
            .map(|(place, after)| format!("{} {}", at(*place), millis(*after)))
            .collect();
        let acknowledged = said.acknowledged.unwrap_or_default();
        let text = text_of(said.number);
        let json = json!({
            "type": "said", "seq": seq, "sender": at(said.by), "body": text,
            "acknowledged_seconds": acknowledged.as_secs_f64(), "seen_by": all,
        });
        env.output.say(&json, || {
            format!(
                "{seq:>5}  {:<10} {text}  (acknowledged {}, seen by {})",
                at(said.by),
                millis(acknowledged),
                seen.join(", ")
            )
        })
    }

    /// Once the conversation has gone on without a node that ended, says what has
    /// become of everything.
    pub(super) fn report(&mut self, env: &Env) -> Result<(), Failure> {
        let through = |until: &u64| {
            self.said >= *until && self.waiting.values().all(|said| said.number > *until)
        };
        if self.until.take_if(|until| through(until)).is_none() {
            return Ok(());
        }
        let (complete, all) = (self.complete, self.speakers.len());
        let (kind, text) = match self.wrong {
            0 => (
                "nothing_lost",
                format!(
                    "nothing was lost: {complete} messages, each acknowledged, and seen by all \
                     {all} once and in order"
                ),
            ),
            wrong => (
                "something_lost",
                format!("{wrong} times a message came twice or one was left out"),
            ),
        };
        let json = json!({"type": kind, "said": complete, "text": text});
        env.output.say(&json, || format!("* {text}"))
    }
}

fn text_of(number: u64) -> String {
    format!("message {number}")
}

fn told(place: usize, events: Events) -> impl futures_util::Stream<Item = Told> + Send {
    futures_util::stream::unfold(Some(events), move |events| async move {
        let mut events = events?;
        let event = events.next().await;
        let rest = event.is_some().then_some(events);
        Some(((place, event), rest))
    })
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}
