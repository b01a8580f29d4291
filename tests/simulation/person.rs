//! Somebody who talks: the product's client, and what is noted of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use simpul::chance;
use simpul::client::chat::{self, Chat, Event, Events, From, Open, OpenError, Opened, Options};
use simpul::client::dial::Address;
use simpul::proto::chat::v1::ChatRequest;
use simpul::proto::chat::v1::chat_service_client::ChatServiceClient;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::{Endpoint, Uri};
use turmoil::net::TcpStream;

use crate::history::{Fact, History};
use crate::network::{PUBLIC, WHO};

/// What each says in a round, when all has been well for long.
pub(crate) const AFTERWARDS: usize = 8;

/// Who it is and what it does.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub(crate) name: String,
    pub(crate) servers: Vec<String>,
    pub(crate) rooms: Vec<String>,
    /// When it says something, after it began.
    pub(crate) says: Vec<(Duration, String)>,
    pub(crate) history: History,
    pub(crate) begin: Arc<AtomicBool>,
    /// How many rounds are to be said: none until all has been well for long.
    pub(crate) rounds: Arc<AtomicUsize>,
    pub(crate) end: Arc<AtomicBool>,
}

/// Opens streams over the simulated network.
struct Door {
    name: String,
    servers: Vec<Address>,
}

#[async_trait]
impl Open for Door {
    fn servers(&self) -> Result<Vec<Address>, OpenError> {
        Ok(self.servers.clone())
    }

    async fn open(
        &self,
        server: &Address,
        outgoing: mpsc::Receiver<ChatRequest>,
    ) -> Result<Opened, OpenError> {
        let to = (server.host.clone(), server.port);
        let connector = tower::service_fn(move |_: Uri| {
            let to = to.clone();
            async move { TcpStream::connect(to).await.map(TokioIo::new) }
        });
        let opening = async {
            let endpoint = Endpoint::from_shared(format!("http://{server}"))
                .map_err(|_| Status::internal("an address"))?
                .http2_keep_alive_interval(Duration::from_secs(1))
                .keep_alive_timeout(Duration::from_secs(1))
                .keep_alive_while_idle(true);
            let channel = endpoint
                .connect_with_connector(connector)
                .await
                .map_err(|error| Status::unavailable(error.to_string()))?;
            let mut request = tonic::Request::new(ReceiverStream::new(outgoing));
            request.metadata_mut().insert(WHO, self.name.parse().expect("a name"));
            Ok(ChatServiceClient::new(channel).chat(request).await?.into_inner())
        };
        match tokio::time::timeout(Duration::from_secs(2), opening).await {
            Ok(opened) => opened.map(Opened::new).map_err(|status: Status| status.into()),
            Err(_) => Err(Status::unavailable("no answer").into()),
        }
    }
}

impl Person {
    fn now(&self) -> Duration {
        turmoil::sim_elapsed().unwrap_or_default()
    }

    fn fact(&self, fact: Fact) {
        self.history.fact(self.now(), &self.name, fact);
    }

    /// Talks and listens until the end.
    pub(crate) async fn live(self) -> turmoil::Result {
        while !self.begin.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(20)).await;
        }
        let address = |host: &String| Address { host: host.clone(), port: PUBLIC };
        let servers = self.servers.iter().map(address).collect();
        let door = Arc::new(Door { name: self.name.clone(), servers });
        let options = Options {
            prefix: Some(self.name.clone()),
            patience: None,
            insist: true,
            buffer: 64,
            chance: chance::unit,
            ..Options::default()
        };
        let (chat, mut events) = chat::start(door, options);
        for room in &self.rooms {
            chat.join(room, From::Earliest).await?;
        }
        self.talk(&chat, &mut events).await
    }

    async fn talk(&self, chat: &Chat, events: &mut Events) -> turmoil::Result {
        let began = Instant::now();
        let mut says = self.says.iter().cloned().enumerate();
        let mut next = says.next();
        let mut afterwards = 0;
        while !self.end.load(Ordering::Relaxed) {
            if next.is_none() && afterwards < self.rounds.load(Ordering::Relaxed) * AFTERWARDS {
                let number = afterwards;
                afterwards += 1;
                let room = &self.rooms[number % self.rooms.len()];
                let after = began.elapsed() + chance_of(200);
                next = Some((self.says.len() + number, (after, room.clone())));
            }
            let due = next.as_ref().map_or(Duration::MAX / 4, |(_, (after, _))| *after);
            let due = began + due.min(Duration::from_secs(3_600));
            tokio::select! {
                biased;
                event = events.next() => match event {
                    Some(event) => self.hear(event),
                    None => return Err("the chat ended".into()),
                },
                () = sleep_until(due), if next.is_some() => {
                    if let Some((number, (_, room))) = next.take() {
                        let body = format!("{} says {number}", self.name);
                        let id = format!("{}-{}", self.name, number + 1);
                        let said = Fact::Said { room: room.clone(), id, body: body.clone() };
                        self.fact(said);
                        chat.send(&room, body, 0).await?;
                    }
                    next = says.next();
                }
                () = sleep(Duration::from_millis(100)) => {}
            }
        }
        Ok(())
    }

    fn hear(&self, event: Event) {
        match event {
            Event::Message(message) => self.fact(Fact::Saw {
                room: message.room_id,
                seq: message.seq,
                id: message.client_message_id,
                body: message.body,
            }),
            Event::Sent(sent) => {
                self.fact(Fact::Acknowledged { id: sent.client_message_id, seq: sent.seq });
            }
            Event::Failed(failed) if !failed.client_message_id.is_empty() => {
                self.fact(Fact::Refused { id: failed.client_message_id, why: failed.message });
            }
            other => self.history.note(self.now(), &self.name, told(&other)),
        }
    }
}

/// Up to so many milliseconds.
fn chance_of(millis: u64) -> Duration {
    Duration::from_millis(millis).mul_f64(chance::unit())
}

/// For the trace: what is the same each time.
fn told(event: &Event) -> String {
    match event {
        Event::Connected { server } => format!("connected to {server}"),
        Event::Joined { joined, again } => format!("joined {} again={again}", joined.room_id),
        Event::Waiting(failed) => format!("waits for {}: {}", failed.room_id, failed.message),
        Event::Refused(failed) => format!("may not read {}: {}", failed.room_id, failed.message),
        Event::Failed(failed) => format!("a frame failed: {}", failed.message),
        Event::Notice(notice) => format!("notice {} {}", notice.kind, notice.room_id),
        Event::Moved { server } => format!("moved to {server}"),
        Event::Lost(why) => format!("lost the stream: {why}"),
        Event::Ended { why, unanswered } => format!("ended with {unanswered} open: {why}"),
        Event::Message(_) | Event::Sent(_) => String::new(),
    }
}
