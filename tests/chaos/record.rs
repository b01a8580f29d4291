//! What the clients of a run did and saw, on one clock, and what stands in the
//! log, in the judge's words.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use simpul::client::Client;
use simpul::proto::chat::v1::{GetMessagesRequest, Message, MessageKind};
use tokio_stream::StreamExt;
use tonic::Status;

use crate::history::{Entry, Event, What};

/// The record of a run.
#[derive(Debug)]
pub struct Record {
    begun: Instant,
    events: Mutex<Vec<Event>>,
}

impl Record {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { begun: Instant::now(), events: Mutex::default() }
    }

    /// Since the run began.
    pub fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Something happened just now. What is sent is told before it is sent, what
    /// is received after it was.
    pub fn tell(&self, client: &str, room: &str, what: What) {
        self.tell_at(self.now(), client, room, what);
    }

    /// Something happened at a time.
    pub fn tell_at(&self, at: Duration, client: &str, room: &str, what: What) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.push(Event { at, client: client.into(), room: room.into(), what });
    }

    /// Everything so far.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// An entry as the judge knows it.
pub fn entry(message: &Message) -> Entry {
    let said = message.kind() == MessageKind::Text;
    let sender = message.sender.strip_prefix("user/").and_then(|name| name.split('@').next());
    Entry {
        seq: message.seq,
        sender: sender.filter(|_| said).unwrap_or_default().to_owned(),
        id: if said { message.client_message_id.clone() } else { String::new() },
        body: if said { message.body.clone() } else { String::new() },
    }
}

/// What stands in a room.
pub async fn log(client: &Client, room: &str) -> Result<Vec<Entry>, Status> {
    const PAGE: u32 = 10_000;
    let mut log: Vec<Entry> = Vec::new();
    loop {
        let after_seq = log.last().map_or(0, |entry| entry.seq);
        let request = GetMessagesRequest { room_id: room.to_owned(), after_seq, limit: PAGE };
        let mut stream = client.chat().get_messages(request).await?.into_inner();
        let before = log.len();
        while let Some(response) = stream.next().await {
            log.extend(response?.message.as_ref().map(entry));
        }
        if log.len() - before < PAGE as usize {
            return Ok(log);
        }
    }
}
