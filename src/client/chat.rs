//! A conversation that outlives its connections.
//!
//! [`start`] gives a [`Chat`] to speak with and the [`Events`] to listen to.
//! Behind them is one task. It opens a stream at one of the servers, and another
//! one when that is lost: after a wait with full jitter it resumes every joined
//! room after the last entry that the caller was given, and sends again what
//! was not acknowledged, in order, under the same ids. When a node asks it to
//! move, it opens a stream elsewhere first, joins there, and ends the old one
//! after its last answer: the caller sees no pause.
//!
//! The caller gets every entry of a room exactly once and in order, and exactly
//! one answer for each message. What it says in a room stands there in the order
//! in which it was said, whatever was refused for a passing reason, lost or sent
//! again meanwhile.
//!
//! Both ways are bounded. A caller that does not take its events slows the
//! reading and loses nothing; [`Chat::send`] waits while 128 messages have no
//! answer, so events must be taken meanwhile.
//!
//! How a stream is opened is pluggable ([`Open`]): over TLS it is [`Remote`].

mod core;
mod driver;
mod event;
mod link;
mod open;
mod outbox;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use self::core::{Core, Settings};
use self::driver::{Command, Driver};
pub use self::event::{Event, From, Why, status_of};
pub use self::open::{Open, OpenError, Opened, Remote, is_final};
pub use self::outbox::LIMIT;
use crate::proto::chat::v1::Send;
use crate::task;

/// How a chat behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// The beginning of the ids of what is sent, 1 to 53 characters of
    /// `[A-Za-z0-9._-]`; the same beginning with the same messages does not
    /// send them twice. Made up when absent.
    pub prefix: Option<String>,
    /// Ends when no room could be joined anywhere for so long, and tells a
    /// message refused that was refused for passing reasons for so long; tries
    /// for ever when absent.
    pub patience: Option<Duration>,
    /// Whether it goes on trying before any node has answered at all.
    pub insist: bool,
    /// Events that may wait for the caller.
    pub buffer: usize,
    /// The longest silence before a node is asked whether it is there: one that is
    /// frozen or cut off closes nothing, and is left two seconds after it was
    /// asked. In a chat that is alive a second of silence is enough; in one where
    /// nothing was said for long, an eighth of that time up to this, 15 s. A chat
    /// at rest so costs its node a frame each way every 15 s: ten million of them
    /// 0.7 million pings a second, and ten million pings with one second here.
    /// That is for few chats whose readers look on.
    pub quiet: Duration,
    /// Uniform in [0, 1): what the waits are drawn from.
    pub chance: fn() -> f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            prefix: None,
            patience: None,
            insist: true,
            buffer: 256,
            quiet: Duration::from_secs(15),
            chance: crate::chance::unit,
        }
    }
}

/// Why nothing more can be said: the chat has ended, its last event says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the chat has ended")]
pub struct Ended;

/// The speaking half. Clones speak in the same chat.
#[derive(Debug, Clone)]
pub struct Chat {
    commands: mpsc::Sender<Command>,
    prefix: Arc<str>,
    next: Arc<AtomicU32>,
}

impl Chat {
    /// Reads a room from now on; [`Event::Joined`] or [`Event::Refused`]
    /// follows. Does nothing for a room that is read already. Cancel safe.
    pub async fn join(&self, room: &str, from: From) -> Result<(), Ended> {
        self.command(Command::Join(room.to_owned(), from)).await
    }

    /// Reads a room no more; what was sent there is still answered. Cancel
    /// safe.
    pub async fn leave(&self, room: &str) -> Result<(), Ended> {
        self.command(Command::Leave(room.to_owned())).await
    }

    /// Says something in a joined room; returns its id. Exactly one
    /// [`Event::Sent`] or [`Event::Failed`] with the id follows, unless the chat
    /// ends. `reply_to` is a seq; 0 for none. Waits for a place: take events
    /// meanwhile. Cancel safe: what was cancelled is not said.
    pub async fn send(&self, room: &str, body: String, reply_to: u64) -> Result<String, Ended> {
        let place = self.commands.reserve().await.map_err(|_| Ended)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{number}", self.prefix);
        place.send(Command::Send(Send {
            room_id: room.to_owned(),
            client_message_id: id.clone(),
            body,
            reply_to,
            after: String::new(),
        }));
        Ok(id)
    }

    /// Whether this chat gave the id.
    pub fn is_ours(&self, id: &str) -> bool {
        id.strip_prefix(&*self.prefix).is_some_and(|rest| rest.starts_with('-'))
    }

    /// Goes to one of these nodes, `host:port`, where they can be reached, without
    /// a pause: [`Event::Moved`] follows. Does nothing at one of them, or while no
    /// stream stands. Cancel safe.
    pub async fn go(&self, to: Vec<String>) -> Result<(), Ended> {
        self.command(Command::Go(to)).await
    }

    async fn command(&self, command: Command) -> Result<(), Ended> {
        self.commands.send(command).await.map_err(|_| Ended)
    }
}

/// The listening half. Dropping it ends the chat at once.
#[derive(Debug)]
pub struct Events(mpsc::Receiver<Event>);

impl Events {
    /// The next event; none after [`Event::Ended`]. Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }
}

/// Begins a chat; it connects when the first room is joined. Must be called
/// within a runtime.
pub fn start(opener: Arc<dyn Open>, options: Options) -> (Chat, Events) {
    let (commands, received) = mpsc::channel(LIMIT);
    let (sender, events) = mpsc::channel(options.buffer.max(1));
    let prefix = options.prefix.unwrap_or_else(|| crate::id::fresh().simple().to_string());
    let settings =
        Settings { patience: options.patience, insist: options.insist, quiet: options.quiet };
    let core = Core::new(settings, options.chance);
    let driver = Driver::new(core, opener, options.chance, received, sender);
    task::spawn("chat client", driver.run());
    let chat = Chat { commands, prefix: prefix.into(), next: Arc::new(AtomicU32::new(1)) };
    (chat, Events(events))
}

#[cfg(test)]
mod tests;
