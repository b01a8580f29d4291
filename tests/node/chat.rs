//! Chat through the public listener.

use std::time::{Duration, Instant};

use simpul::proto::chat::v1::chat_request::Frame as Ask;
use simpul::proto::chat::v1::chat_response::Frame as Tell;
use simpul::proto::chat::v1::chat_service_client::ChatServiceClient;
use simpul::proto::chat::v1::join::From;
use simpul::proto::chat::v1::{
    GetMessagesRequest, MessageKind, NoticeKind, Ping, RemoveMemberRequest, SendMessageRequest,
};
use tokio::task::JoinSet;
use tonic::Code;

use crate::support::{LONG, Node, eventually, with_token};
use crate::talk::{Session, room};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_is_acknowledged_once_and_read_in_order_by_everyone() {
    let node = Node::start();
    let (alice, bob) = (node.token("alice", &[]), node.token("bob", &[]));
    let channel = node.channel().await;
    room(channel.clone(), &alice, "lobby", &["bob"]).await;

    let mut reader = Session::join(channel.clone(), &bob, "lobby", From::Earliest(true)).await;
    let mut writer = Session::join(channel.clone(), &alice, "lobby", From::Latest(true)).await;
    for n in 0..100 {
        writer.send("lobby", &format!("m{n}"), &format!("halo {n}")).await;
    }
    writer.send("lobby", "m7", "halo 7").await; // Again: the same position, no second entry.
    let mut acks = Vec::new();
    for _ in 0..101 {
        acks.push(writer.sent().await);
    }
    let seq_of = |id: &str| acks.iter().find(|ack| ack.client_message_id == id).map(|ack| ack.seq);
    assert_eq!(acks.last().map(|ack| ack.seq), seq_of("m7"));

    // Entries 1 and 2 are the room's beginning and bob's membership.
    for seq in 1..=102 {
        let message = reader.message().await;
        assert_eq!(message.seq, seq);
        if seq > 2 {
            assert_eq!(message.kind(), MessageKind::Text);
            assert_eq!(message.body, format!("halo {}", seq - 3));
            assert_eq!(message.sender, "user/alice@dev.simpul");
        }
    }
    reader.ask(Ask::Ping(Ping { nonce: 7 })).await;
    assert!(matches!(reader.next().await, Tell::Pong(pong) if pong.nonce == 7));

    // The same key with another body is refused, and the stream goes on.
    writer.send("lobby", "m7", "something else").await;
    let refused = loop {
        match writer.next().await {
            Tell::Failed(failed) => break failed,
            Tell::Message(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused.code, Code::AlreadyExists as i32);
    writer.send("lobby", "after", "still here").await;
    assert_eq!(writer.sent().await.seq, 103);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_begins_where_it_says() {
    let node = Node::start();
    let alice = node.token("alice", &[]);
    let channel = node.channel().await;
    room(channel.clone(), &alice, "r", &[]).await;
    let mut client = ChatServiceClient::new(channel.clone());
    for n in 0..9 {
        let send = SendMessageRequest {
            room_id: "r".to_owned(),
            client_message_id: format!("u{n}"),
            body: n.to_string(),
            reply_to: 0,
        };
        client.send_message(with_token(send, &alice)).await.expect("durable");
    }
    for (from, first) in [
        (From::Earliest(true), 1),
        (From::Cursor(0), 1),
        (From::Cursor(7), 8),
        (From::LastN(3), 8),
        (From::LastN(100), 1),
    ] {
        let mut session = Session::join(channel.clone(), &alice, "r", from).await;
        for seq in first..=10 {
            assert_eq!(session.message().await.seq, seq, "{from:?}");
        }
    }
    let mut session = Session::open(channel.clone(), &alice).await.expect("a session");
    session.ask_join("r", From::Cursor(11)).await;
    let Tell::Failed(failed) = session.next().await else { panic!("a cursor ahead of the log") };
    assert_eq!(failed.code, Code::OutOfRange as i32);

    let get = GetMessagesRequest { room_id: "r".to_owned(), after_seq: 8, limit: 5 };
    let mut stream =
        client.get_messages(with_token(get, &alice)).await.expect("a stream").into_inner();
    let mut seqs = Vec::new();
    while let Some(response) = stream.message().await.expect("no error") {
        seqs.push(response.message.expect("a message").seq);
    }
    assert_eq!(seqs, [9, 10]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_before_join_is_refused_and_the_stream_lives_on() {
    let node = Node::start();
    let alice = node.token("alice", &[]);
    let channel = node.channel().await;
    room(channel.clone(), &alice, "r", &[]).await;
    let mut session = Session::open(channel, &alice).await.expect("a session");
    session.send("r", "early", "too early").await;
    let Tell::Failed(failed) = session.next().await else { panic!("it was not refused") };
    assert_eq!((failed.code, failed.client_message_id.as_str()), (9, "early"));
    session.ask_join("r", From::Latest(true)).await;
    assert!(matches!(session.next().await, Tell::Joined(_)));
    session.send("r", "now", "now").await;
    assert_eq!(session.sent().await.seq, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_removed_reads_nothing_more_within_a_second() {
    let node = Node::start();
    let (alice, bob) = (node.token("alice", &[]), node.token("bob", &[]));
    let channel = node.channel().await;
    room(channel.clone(), &alice, "r", &["bob"]).await;
    let mut reader = Session::join(channel.clone(), &bob, "r", From::Latest(true)).await;
    let mut client = ChatServiceClient::new(channel.clone());
    let remove = RemoveMemberRequest { room_id: "r".to_owned(), principal: "bob".to_owned() };
    client.remove_member(with_token(remove, &alice)).await.expect("removed");
    let removed = Instant::now();
    loop {
        match reader.next().await {
            Tell::Notice(notice) if notice.kind() == NoticeKind::AccessChanged => break,
            Tell::Message(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(removed.elapsed() < Duration::from_secs(1));
    let send = SendMessageRequest {
        room_id: "r".to_owned(),
        client_message_id: "secret".to_owned(),
        body: "not for bob".to_owned(),
        reply_to: 0,
    };
    client.send_message(with_token(send, &alice)).await.expect("durable");
    reader.ask(Ask::Ping(Ping { nonce: 1 })).await;
    assert!(matches!(reader.next().await, Tell::Pong(_)), "bob read on");
    reader.ask_join("r", From::Earliest(true)).await;
    let Tell::Failed(failed) = reader.next().await else { panic!("bob joined again") };
    assert_eq!(failed.code, Code::NotFound as i32);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_whose_epoch_is_old_acknowledges_nothing() {
    let node = Node::start();
    let alice = node.token("alice", &[]);
    let channel = node.channel().await;
    room(channel.clone(), &alice, "r", &[]).await;
    let mut writer = Session::join(channel.clone(), &alice, "r", From::Latest(true)).await;
    writer.send("r", "a", "a").await;
    assert_eq!(writer.sent().await.seq, 2);

    let url = format!("sqlite:{}", node.dir().join("simpul.db").display());
    let options: sqlx::sqlite::SqliteConnectOptions = url.parse().expect("a URL");
    use sqlx::{ConnectOptions, Connection};
    let mut database = options.connect().await.expect("the database");
    sqlx::query("UPDATE partition SET epoch = epoch + 1")
        .execute(&mut database)
        .await
        .expect("set");
    writer.send("r", "b", "b").await;
    let failed = loop {
        match writer.next().await {
            Tell::Failed(failed) => break failed,
            Tell::Sent(sent) if sent.client_message_id == "b" => panic!("it was acknowledged"),
            _ => {}
        }
    };
    assert_eq!(failed.code, Code::Unavailable as i32);
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM entry WHERE room = 'r' AND seq > 2")
        .fetch_one(&mut database)
        .await
        .expect("a count");
    assert_eq!(kept, 0, "an unacknowledged entry was kept");
    database.close().await.expect("closed");
}

/// 1,000 sessions in 20 rooms, everyone sends and everyone receives everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_sessions_receive_everything_in_order() {
    const ROOMS: usize = 20;
    const EACH: usize = 50;
    let node = Node::start_with(&[("SIMPUL_TRAFFIC__RATE_PER_PRINCIPAL", "100000")]);
    let token = node.token("alice", &[]);
    // One principal may hold 200 streams: five hold a thousand.
    let others: Vec<_> = (0..5).map(|n| node.token(&format!("reader{n}"), &[])).collect();
    let mut channels = Vec::new();
    for _ in 0..ROOMS {
        channels.push(node.channel().await);
    }
    let names: Vec<_> = (0..ROOMS).map(|n| format!("room{n}")).collect();
    for name in &names {
        let members = ["reader0", "reader1", "reader2", "reader3", "reader4"];
        room(channels[0].clone(), &token, name, &members).await;
    }
    let mut readers = JoinSet::new();
    for (at, name) in names.iter().enumerate() {
        for n in 0..EACH {
            let (channel, token) = (channels[at].clone(), others[n % 5].clone());
            let name = name.clone();
            let mut session = Session::join(channel, &token, &name, From::Cursor(6)).await;
            session.send(&name, &format!("s{at}.{n}"), &format!("from {n}")).await;
            readers.spawn(async move {
                let (mut acks, mut next) = (0, 7);
                while acks < 1 || next <= 6 + EACH as u64 {
                    match session.next().await {
                        Tell::Sent(_) => acks += 1,
                        Tell::Message(message) => {
                            assert_eq!((message.seq, &message.room_id), (next, &name));
                            next += 1;
                        }
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
    }
    let all = async {
        while let Some(reader) = readers.join_next().await {
            reader.expect("a reader that got everything");
        }
    };
    tokio::time::timeout(LONG, all).await.expect("in time");
}

/// A reader that stops reading slows nobody and, once it reads again, has lost
/// nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_reader_loses_nothing_and_slows_nobody() {
    const MESSAGES: u64 = 5_000;
    let node = Node::start_with(&[
        ("SIMPUL_CHAT__ROOM_TAIL_BYTES", "262144"),
        ("SIMPUL_CHAT__TOTAL_TAIL_BYTES", "1048576"),
    ]);
    let (alice, bob) = (node.token("alice", &[]), node.token("bob", &[]));
    let channel = node.channel().await;
    room(channel.clone(), &alice, "r", &["bob"]).await;
    let mut stalled = Session::join(node.channel().await, &bob, "r", From::Cursor(2)).await;
    let mut quick = Session::join(node.channel().await, &bob, "r", From::Cursor(2)).await;
    let mut writer = Session::join(channel, &alice, "r", From::Latest(true)).await;

    let body = "x".repeat(600);
    let writing = async {
        let (mut sent, mut acked) = (0, 0);
        while acked < MESSAGES {
            while sent < MESSAGES && sent - acked < 256 {
                writer.send("r", &format!("m{sent}"), &body).await;
                sent += 1;
            }
            if let Tell::Sent(_) = writer.next().await {
                acked += 1;
            }
        }
    };
    let reading = async {
        for seq in 3..MESSAGES + 3 {
            assert_eq!(quick.message().await.seq, seq);
        }
    };
    tokio::join!(writing, reading);

    let (mut next, mut lagging, mut caught_up) = (3, 0, 0);
    while next < MESSAGES + 3 || caught_up < lagging {
        match stalled.next().await {
            Tell::Message(message) => {
                assert_eq!(message.seq, next);
                next += 1;
            }
            Tell::Notice(notice) => match notice.kind() {
                NoticeKind::Lagging => lagging += 1,
                NoticeKind::CaughtUp => caught_up += 1,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((lagging, caught_up), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn card_numbers_are_redacted_before_they_are_stored() {
    let node = Node::start();
    let alice = node.token("alice", &[]);
    let channel = node.channel().await;
    room(channel.clone(), &alice, "r", &[]).await;
    let mut session = Session::join(channel, &alice, "r", From::Latest(true)).await;
    session.send("r", "c", "my card is 4111 1111 1111 1111, thanks").await;
    let mut told = None;
    let body = eventually("the message", async || match session.next().await {
        Tell::Sent(sent) => {
            told = Some(sent.redactions);
            None
        }
        Tell::Message(message) => Some(message.body),
        _ => None,
    })
    .await;
    if told.is_none() {
        told = Some(session.sent().await.redactions);
    }
    assert_eq!(told, Some(1));
    assert!(!body.contains("4111") && body.ends_with(", thanks"), "{body}");
}
