//! Clients that read nothing, and clients that are far behind.

use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use simpul::proto::chat::v1::chat_request::Frame as Ask;
use simpul::proto::chat::v1::chat_response::Frame as Tell;
use simpul::proto::chat::v1::join::From;
use simpul::proto::chat::v1::{ChatRequest, GetMessagesRequest, Join};
use tokio::task::JoinSet;

use crate::support::{LONG, Node, eventually};
use crate::talk::{Session, room};

const CHAT: &str = "/simpul.chat.v1.ChatService/Chat";
const GET: &str = "/simpul.chat.v1.ChatService/GetMessages";

/// A connection whose streams have this window, and it as many as it likes.
async fn connect(node: &Node, window: u32) -> SendRequest<Bytes> {
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window).initial_connection_window_size(1 << 30);
    let (client, connection) =
        builder.handshake::<_, Bytes>(node.stream().await).await.expect("HTTP/2");
    simpul::task::spawn("raw connection", async move {
        let _ = connection.await;
    });
    client.ready().await.expect("ready")
}

fn framed(message: &impl prost::Message) -> Bytes {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).expect("short").to_be_bytes();
    [&[0][..], &length[..], &message[..]].concat().into()
}

fn join(room: &str, from: From) -> Bytes {
    let join = Join { room_id: room.to_owned(), from: Some(from) };
    framed(&ChatRequest { frame: Some(Ask::Join(join)) })
}

/// A stream of which nothing is read but what fits its window.
struct Stalled {
    _asking: h2::SendStream<Bytes>,
    telling: h2::RecvStream,
}

impl Stalled {
    async fn open(
        client: &mut SendRequest<Bytes>,
        token: &str,
        path: &str,
        first: Bytes,
        last: bool,
    ) -> Stalled {
        let request = Request::builder()
            .method("POST")
            .uri(format!("https://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {token}"))
            .body(())
            .expect("a request");
        let mut ready = client.clone().ready().await.expect("ready");
        let (response, mut asking) = ready.send_request(request, false).expect("sent");
        asking.send_data(first, last).expect("sent");
        let response = tokio::time::timeout(LONG, response).await.expect("in time");
        let response = response.expect("an answer");
        assert!(response.headers().get("grpc-status").is_none(), "{:?}", response.headers());
        Stalled { _asking: asking, telling: response.into_body() }
    }

    /// Takes what comes, without giving its window back, to the end.
    async fn end(mut self) -> (usize, h2::Error) {
        let mut bytes = 0;
        loop {
            match tokio::time::timeout(LONG, self.telling.data()).await.expect("in time") {
                Some(Ok(data)) => bytes += data.len(),
                Some(Err(error)) => return (bytes, error),
                None => panic!("the stream ended by itself after {bytes} bytes"),
            }
        }
    }
}

/// Writes messages of a size, many at a time, until all are acknowledged.
async fn fill(session: &mut Session, room: &str, count: usize, size: usize) {
    let (mut sent, mut acked) = (0, 0);
    while acked < count {
        while sent < count && sent - acked < 64 {
            session.send(room, &format!("f{sent}"), &format!("{sent:.<size$}")).await;
            sent += 1;
        }
        match session.next().await {
            Tell::Sent(_) => acked += 1,
            Tell::Failed(failed) => panic!("{failed:?}"),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_stream_is_reset_when_its_permit_has_ended() {
    let node = Node::start();
    let alice = node.token("alice", &[]);
    let channel = node.channel().await;
    room(channel.clone(), &alice, "r", &["bob"]).await;
    let mut writer = Session::join(channel, &alice, "r", From::Latest(true)).await;
    fill(&mut writer, "r", 100, 10_000).await;

    let begun = Instant::now();
    let short = node.ok(&["token", "--as", "bob", "--ttl", "3s"]).trim().to_owned();
    let mut client = connect(&node, 65_535).await;
    let from = join("r", From::Earliest(true));
    let chat = Stalled::open(&mut client, &short, CHAT, from.clone(), false).await;
    let get = GetMessagesRequest { room_id: "r".to_owned(), after_seq: 0, limit: 10_000 };
    let get = Stalled::open(&mut client, &short, GET, framed(&get), true).await;
    let long = node.token("bob", &[]);
    let goes_on = Stalled::open(&mut client, &long, CHAT, from, false).await;
    for stream in [chat, get] {
        let (bytes, error) = stream.end().await;
        assert!(error.is_reset() && error.is_remote(), "{error:?}");
        assert!((1..=65_535).contains(&bytes), "it read {bytes} bytes");
        // Three seconds of token, and a second at most beyond it.
        let after = begun.elapsed();
        assert!(
            (Duration::from_secs(2)..Duration::from_millis(4500)).contains(&after),
            "{after:?}"
        );
    }
    // Nothing of it lingers, and the connection's other stream lives.
    eventually("its session is gone", async || {
        (node.metric("simpul_chat_sessions") == 2.0).then_some(())
    })
    .await;
    drop(goes_on);
}

/// The node's resident memory, bytes.
fn resident(node: &Node) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
    let kib: usize = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
    kib * 1024
}

/// What ARCHITECTURE.md states: the tails' budget, and for each stream what
/// HTTP/2 may hold of it and the one slice that waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_stalled_readers_stay_within_the_stated_memory() {
    const READERS: usize = 1000;
    const TAILS: usize = 8 * 1024 * 1024;
    const STREAM: usize = (32 + 16) * 1024;
    let node = Node::start_with(&[
        ("SIMPUL_CHAT__TOTAL_TAIL_BYTES", "8388608"),
        ("SIMPUL_TRAFFIC__MAX_STREAMS_PER_PRINCIPAL", "2000"),
        ("SIMPUL_TRAFFIC__RATE_PER_PRINCIPAL", "100000"),
    ]);
    let (alice, bob) = (node.token("alice", &[]), node.token("bob", &[]));
    let channel = node.channel().await;
    room(channel.clone(), &alice, "r", &["bob"]).await;
    let mut stalled = Vec::new();
    for _ in 0..10 {
        let mut client = connect(&node, 65_535).await;
        for _ in 0..READERS / 10 {
            let from = join("r", From::Cursor(2));
            stalled.push(Stalled::open(&mut client, &bob, CHAT, from, false).await);
        }
    }
    eventually("everybody has joined", async || {
        (node.metric("simpul_chat_sessions") == 1000.0).then_some(())
    })
    .await;
    let before = resident(&node);
    let mut writer = Session::join(channel, &alice, "r", From::Latest(true)).await;
    fill(&mut writer, "r", 1300, 16_000).await;
    let grown = resident(&node).saturating_sub(before);
    eprintln!("{READERS} stalled readers, 20 MB written: {} KiB more", grown / 1024);
    assert!(grown <= TAILS + READERS * STREAM, "{grown} bytes more than before");
    assert_eq!(node.metric("simpul_chat_sessions"), 1001.0, "nobody was dropped");
    let lagging = node.metric("simpul_chat_lagging_sessions");
    assert!(lagging >= READERS as f64, "{lagging} count as behind, who read nothing");
    let held = node.metric("simpul_chat_held_bytes") + node.metric("simpul_chat_pinned_bytes");
    assert!(held <= (TAILS + READERS * STREAM) as f64, "{held}");

    // One that reads again has lost nothing.
    let mut late = Session::join(node.channel().await, &bob, "r", From::Cursor(2)).await;
    for seq in 3..1303 {
        assert_eq!(late.message().await.seq, seq);
    }
}

/// Readers that stand still while a room is written to far beyond what memory
/// keeps of it, and then all read: how many pages that takes.
async fn page_loads(readers: usize) -> f64 {
    const MESSAGES: u64 = 5000;
    let node = Node::start_with(&[("SIMPUL_CHAT__ROOM_TAIL_BYTES", "262144")]);
    let (alice, bob) = (node.token("alice", &[]), node.token("bob", &[]));
    let channel = node.channel().await;
    room(channel.clone(), &alice, "r", &["bob"]).await;
    let mut laggards = Vec::new();
    let mut shared = channel.clone();
    for n in 0..readers {
        // A connection's window is shared by its streams: few on each.
        if n % 4 == 0 {
            shared = node.channel().await;
        }
        laggards.push(Session::join(shared.clone(), &bob, "r", From::Earliest(true)).await);
    }
    let mut writer = Session::join(channel, &alice, "r", From::Latest(true)).await;
    fill(&mut writer, "r", MESSAGES as usize, 600).await;
    let mut all = JoinSet::new();
    for mut reader in laggards {
        all.spawn(async move {
            for seq in 1..=MESSAGES + 2 {
                assert_eq!(reader.message().await.seq, seq);
            }
        });
    }
    while let Some(read) = all.join_next().await {
        read.expect("a reader that lost nothing");
    }
    node.metric("simpul_chat_page_loads_total")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_laggards_cost_at_most_twice_the_reads_of_one() {
    let one = page_loads(1).await;
    let hundred = page_loads(100).await;
    eprintln!("page loads: {one} for one laggard, {hundred} for a hundred");
    assert!(one > 3.0 && hundred <= 2.0 * one, "{one} for one, {hundred} for a hundred");
}
