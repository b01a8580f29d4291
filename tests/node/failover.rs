//! Clients that go from node to node: the command line with a list of servers,
//! and the client module against servers that cut it off, move it about and
//! drain whenever they like, while a checker looks at what its caller sees.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use simpul::client::chat::{Event, From, Open, OpenError, Opened, Options, start};
use simpul::client::dial::{Address, DialError};
use simpul::proto::chat::v1::chat_request::Frame as Ask;
use simpul::proto::chat::v1::chat_response::Frame as Tell;
use simpul::proto::chat::v1::chat_service_client::ChatServiceClient;
use simpul::proto::chat::v1::join::From as Begin;
use simpul::proto::chat::v1::{
    ChatRequest, ChatResponse, Failed, Joined, Message, Notice, NoticeKind, Pong, Sent,
};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::Service;

use crate::support::{LONG, Node};

const ROOM: &str = "lobby";

/// What the servers share: one room's ids in order, and where the servers are.
struct Shared {
    log: Mutex<Vec<String>>,
    head: watch::Sender<usize>,
    servers: Mutex<Vec<String>>,
    chance: Mutex<StdRng>,
    done: watch::Sender<BTreeMap<&'static str, u32>>,
}

impl Shared {
    fn append(&self, id: &str) -> u64 {
        let mut log = self.log.lock().expect("unpoisoned");
        let at = log.iter().position(|there| there == id).unwrap_or_else(|| {
            log.push(id.to_owned());
            log.len() - 1
        });
        self.head.send_replace(log.len());
        at as u64 + 1
    }

    fn entry(&self, seq: u64) -> Option<String> {
        self.log.lock().expect("unpoisoned").get(seq as usize - 1).cloned()
    }

    fn dice(&self, sides: u32) -> u32 {
        self.chance.lock().expect("unpoisoned").random_range(0..sides)
    }

    fn did(&self, what: &'static str) {
        self.done.send_modify(|done| *done.entry(what).or_default() += 1);
    }
}

/// A server that speaks the Chat contract for one room.
#[derive(Clone)]
struct Fake(Arc<Shared>);

impl NamedService for Fake {
    const NAME: &'static str = "simpul.chat.v1.ChatService";
}

impl Service<http::Request<Body>> for Fake {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let fake = self.clone();
        Box::pin(async move {
            let codec = ProstCodec::<ChatResponse, ChatRequest>::default();
            Ok(Grpc::new(codec).streaming(fake, request).await)
        })
    }
}

impl StreamingService<ChatRequest> for Fake {
    type Response = ChatResponse;
    type ResponseStream = ReceiverStream<Result<ChatResponse, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<ChatRequest>>) -> Self::Future {
        let shared = self.0.clone();
        Box::pin(async move {
            let (told, telling) = mpsc::channel(16);
            simpul::task::spawn("fake session", session(shared, request.into_inner(), told));
            Ok(Response::new(ReceiverStream::new(telling)))
        })
    }
}

type Out = mpsc::Sender<Result<ChatResponse, Status>>;

async fn tell(out: &Out, frame: Tell) -> Option<()> {
    out.send(Ok(ChatResponse { frame: Some(frame) })).await.ok()
}

/// One stream, until either side has enough.
async fn session(shared: Arc<Shared>, mut asked: Streaming<ChatRequest>, out: Out) -> Option<()> {
    let mut head = shared.head.subscribe();
    let mut cursor: Option<u64> = None;
    let mut drained = false;
    loop {
        match shared.dice(60) {
            0 => {
                shared.did("cut");
                let _ = out.send(Err(Status::unavailable("cut"))).await;
                return None;
            }
            1 => {
                shared.did("dropped");
                return None;
            }
            2 | 3 if cursor.is_some() => {
                shared.did("moved");
                let mut addresses = shared.servers.lock().expect("unpoisoned").clone();
                addresses.insert(0, "127.0.0.1:1".to_owned());
                let jitter = Some(prost_types::Duration { seconds: 0, nanos: 20_000_000 });
                let kind = NoticeKind::Move.into();
                tell(&out, Tell::Notice(Notice { kind, addresses, jitter, ..Notice::default() }))
                    .await?;
            }
            4 if !drained => {
                shared.did("drained");
                drained = true;
                let kind = NoticeKind::Draining.into();
                tell(&out, Tell::Notice(Notice { kind, ..Notice::default() })).await?;
            }
            _ => {}
        }
        let next = cursor.map(|cursor| cursor + 1);
        let entry = next.and_then(|seq| Some((seq, shared.entry(seq)?)));
        tokio::select! {
            ask = asked.message() => match ask.ok()??.frame? {
                Ask::Join(join) => {
                    let there = *shared.head.borrow() as u64;
                    let from = match join.from? {
                        Begin::Cursor(cursor) => cursor,
                        _ => 0,
                    };
                    assert!(from <= there, "a cursor ahead of the log");
                    cursor = Some(from);
                    let room_id = join.room_id;
                    tell(&out, Tell::Joined(Joined {
                        room_id, head: there, cursor: from, ..Joined::default()
                    })).await?;
                }
                Ask::Send(send) => {
                    assert!(cursor.is_some(), "sent before it has joined");
                    let (room_id, id) = (send.room_id, send.client_message_id);
                    let answer = if shared.dice(20) == 0 {
                        shared.did("refused");
                        let code = Code::Unavailable.into();
                        Tell::Failed(Failed {
                            room_id, client_message_id: id, code, ..Failed::default()
                        })
                    } else {
                        let seq = shared.append(&id);
                        Tell::Sent(Sent {
                            room_id, client_message_id: id, seq, ..Sent::default()
                        })
                    };
                    // Written, and the answer is lost.
                    if shared.dice(40) == 0 {
                        shared.did("unanswered");
                        return None;
                    }
                    tell(&out, answer).await?;
                }
                Ask::Ping(ping) => tell(&out, Tell::Pong(Pong { nonce: ping.nonce })).await?,
                Ask::Leave(_) | Ask::Reauthenticate(_) => {}
            },
            sent = async { out.reserve().await }, if entry.is_some() => {
                let (seq, id) = entry?;
                let message = Message {
                    room_id: ROOM.to_owned(), seq, client_message_id: id, ..Message::default()
                };
                sent.ok()?.send(Ok(ChatResponse { frame: Some(Tell::Message(message)) }));
                cursor = Some(seq);
            }
            changed = head.changed() => changed.ok()?,
        }
    }
}

/// Plain HTTP/2 to the fakes.
struct Plain(Arc<Shared>);

#[async_trait::async_trait]
impl Open for Plain {
    fn servers(&self) -> Result<Vec<Address>, OpenError> {
        let servers = self.0.servers.lock().expect("unpoisoned").clone();
        Ok(servers.iter().map(|server| server.parse().expect("an address")).collect())
    }

    async fn open(
        &self,
        server: &Address,
        outgoing: mpsc::Receiver<ChatRequest>,
    ) -> Result<Opened, OpenError> {
        let endpoint = Endpoint::from_shared(format!("http://{server}")).expect("a URI");
        let why = |error: tonic::transport::Error| DialError::Connect {
            server: server.to_string(),
            why: error.to_string(),
        };
        let channel = endpoint.connect().await.map_err(why)?;
        let mut client = ChatServiceClient::new(channel);
        Ok(Opened::new(client.chat(ReceiverStream::new(outgoing)).await?.into_inner()))
    }
}

async fn fakes(seed: u64, count: usize) -> Arc<Shared> {
    let shared = Arc::new(Shared {
        log: Mutex::default(),
        head: watch::channel(0).0,
        servers: Mutex::default(),
        chance: Mutex::new(StdRng::seed_from_u64(seed)),
        done: watch::channel(BTreeMap::new()).0,
    });
    for _ in 0..count {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address: SocketAddr = listener.local_addr().expect("bound");
        shared.servers.lock().expect("unpoisoned").push(address.to_string());
        let serving = Server::builder()
            .add_service(Fake(shared.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        simpul::task::spawn("fake server", serving);
    }
    shared
}

/// What the caller of the client module sees of 300 messages and as many of
/// others, whatever the servers do.
async fn converse(seed: u64) -> BTreeMap<&'static str, u32> {
    const MESSAGES: usize = 300;
    let shared = fakes(seed, 3).await;
    let options = Options { buffer: 4, ..Options::default() };
    let (chat, mut events) = start(Arc::new(Plain(shared.clone())), options);
    chat.join(ROOM, From::Earliest).await.expect("it goes on");
    let saying = simpul::task::spawn("speaker", {
        let shared = shared.clone();
        async move {
            let mut said = Vec::new();
            for n in 0..MESSAGES {
                said.push(chat.send(ROOM, format!("message {n}"), 0).await.expect("it goes on"));
                shared.append(&format!("other-{n}"));
            }
            (said, chat)
        }
    });
    let (mut seen, mut acknowledged) = (Vec::new(), Vec::new());
    let all = async {
        while seen.len() < 2 * MESSAGES || acknowledged.len() < MESSAGES {
            match events.next().await.expect("it goes on") {
                Event::Message(message) => seen.push((message.seq, message.client_message_id)),
                Event::Sent(sent) => acknowledged.push(sent.client_message_id),
                Event::Failed(failed) => panic!("refused: {failed:?}"),
                Event::Refused(failed) => panic!("a room was lost: {failed:?}"),
                Event::Ended { why, .. } => panic!("it ended: {why}"),
                _ => {}
            }
        }
    };
    let done = tokio::time::timeout(LONG, all).await;
    let (said, _chat) = saying.await.expect("everything was said");
    let so_far = shared.done.borrow().clone();
    assert!(done.is_ok(), "seed {seed}: {so_far:?}, {} acknowledged", acknowledged.len());
    let log = shared.log.lock().expect("unpoisoned").clone();
    let whole: Vec<(u64, String)> = (1..).zip(log).collect();
    assert_eq!(seen, whole, "seed {seed}: not everything once and in order");
    acknowledged.sort();
    let mut once = said;
    once.sort();
    assert_eq!(acknowledged, once, "seed {seed}: not each answer once");
    so_far
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_that_is_cut_moved_and_drained_sees_everything_once_and_in_order() {
    let mut done: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 1..=4 {
        for (what, times) in converse(seed).await {
            *done.entry(what).or_default() += times;
        }
    }
    for what in ["cut", "dropped", "moved", "drained", "refused", "unanswered"] {
        assert!(done.get(what).is_some_and(|times| *times > 0), "never {what}: {done:?}");
    }
}

/// A port that nobody listens on.
fn dead() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").to_string()
}

#[test]
fn commands_go_to_whichever_server_of_the_list_answers() {
    let node = Node::start();
    node.ok(&["room", "create", "lobby", "--as", "alice"]);
    let ca = node.info["ca_file"].as_str().expect("a file").to_owned();
    let list = format!("{},{},{}", dead(), node.address("public"), dead());
    let at = ["--server", list.as_str(), "--ca", ca.as_str(), "--as", "alice"];
    // Begun at a random one each time.
    for _ in 0..6 {
        node.ok(&[&["whoami"][..], &at].concat());
    }
    let sent = node.cli_with_input(&[&["chat", "lobby"][..], &at].concat(), "satu\ndua\n");
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    let read = ["chat", "lobby", "--from", "earliest", "--count", "2"];
    assert!(node.ok(&[&read[..], &at].concat()).contains("dua"));

    // One that takes connections and says nothing, as a frozen one does.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent_at = silent.local_addr().expect("bound");
    let list = format!("{silent_at},{}", node.address("public"));
    let at = ["--server", list.as_str(), "--ca", ca.as_str(), "--as", "alice"];
    for _ in 0..4 {
        let begun = std::time::Instant::now();
        node.ok(&[&["whoami"][..], &at].concat());
        assert!(begun.elapsed().as_secs() < 8, "it waited for the silent one");
    }

    let list = format!("{},{}", dead(), dead());
    let none = node.cli(&["whoami", "--server", &list, "--ca", &ca, "--as", "alice"]);
    assert_eq!(none.status.code(), Some(69));
    let wrong = node.cli(&["whoami", "--server", "a:1,,b:2", "--ca", &ca, "--as", "alice"]);
    assert_eq!(wrong.status.code(), Some(64));
}

#[test]
fn a_lone_node_says_that_it_is_one() {
    let node = Node::start();
    let operator = ["--as", "alice", "--role", "operator"];
    let status = node.cli(&[&["cluster", "status", "--output", "json"][..], &operator].concat());
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    let drained = node.cli(&[&["cluster", "drain"][..], &operator].concat());
    let said = String::from_utf8_lossy(&drained.stderr).into_owned();
    assert_eq!(drained.status.code(), Some(1), "{said}");
    assert!(said.contains("alone"), "{said}");
}
