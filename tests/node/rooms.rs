//! What rooms and streams cost, and how they end.

use std::time::{Duration, Instant};

use simpul::proto::chat::v1::chat_request::Frame as Ask;
use simpul::proto::chat::v1::chat_response::Frame as Tell;
use simpul::proto::chat::v1::chat_service_client::ChatServiceClient;
use simpul::proto::chat::v1::join::From;
use simpul::proto::chat::v1::{
    DeleteRoomRequest, Ping, RoomRole, SendMessageRequest, SetMemberRoleRequest,
};
use sqlx::ConnectOptions;
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::{Node, eventually, with_token};
use crate::talk::{Session, room};

fn message(room: &str, id: &str, body: &str) -> SendMessageRequest {
    SendMessageRequest {
        room_id: room.to_owned(),
        client_message_id: id.to_owned(),
        body: body.to_owned(),
        reply_to: 0,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demoted_sender_still_learns_that_its_message_was_taken() {
    let node = Node::start();
    let (alice, bob) = (node.token("alice", &[]), node.token("bob", &[]));
    let mut client = ChatServiceClient::new(node.channel().await);
    room(node.channel().await, &alice, "r", &["bob"]).await;
    let send = || message("r", "once", "halo");
    let first = client.send_message(with_token(send(), &bob)).await.expect("durable").into_inner();
    let demote = SetMemberRoleRequest {
        room_id: "r".to_owned(),
        principal: "bob".to_owned(),
        role: RoomRole::Reader.into(),
    };
    client.set_member_role(with_token(demote, &alice)).await.expect("a reader now");
    let again = client.send_message(with_token(send(), &bob)).await.expect("acknowledged again");
    assert_eq!(again.into_inner().seq, first.seq);
    let new = client.send_message(with_token(message("r", "new", "halo"), &bob)).await;
    assert_eq!(new.expect_err("readers do not send").code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_rooms_leave_memory_and_come_back_whole() {
    let node = Node::start_with(&[("SIMPUL_CHAT__IDLE_ROOM", "1s")]);
    let alice = node.token("alice", &[]);
    let channel = node.channel().await;
    let mut client = ChatServiceClient::new(channel.clone());
    for n in 0..20 {
        let name = format!("r{n}");
        room(channel.clone(), &alice, &name, &[]).await;
        client.send_message(with_token(message(&name, "m", "halo"), &alice)).await.expect("sent");
    }
    let read = Session::join(channel.clone(), &alice, "r7", From::Latest(true)).await;
    eventually("idle rooms leave, the one that is read stays", async || {
        (node.metric("simpul_chat_rooms_in_memory") == 1.0).then_some(())
    })
    .await;
    drop(read);
    let mut session = Session::join(channel, &alice, "r3", From::Earliest(true)).await;
    assert_eq!(session.message().await.seq, 1);
    assert_eq!(session.message().await.body, "halo");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn message_ids_are_remembered_over_a_restart_and_forgotten_in_time() {
    let mut node = Node::start();
    let alice = node.token("alice", &[]);
    room(node.channel().await, &alice, "r", &[]).await;
    let mut client = ChatServiceClient::new(node.channel().await);
    let first = client.send_message(with_token(message("r", "id", "one"), &alice)).await;
    let first = first.expect("durable").into_inner().seq;
    node.restart();
    let mut client = ChatServiceClient::new(node.channel().await);
    let again = client.send_message(with_token(message("r", "id", "one"), &alice)).await;
    assert_eq!(again.expect("remembered").into_inner().seq, first);
    let reused = client.send_message(with_token(message("r", "id", "two"), &alice)).await;
    let reused = reused.expect_err("another body");
    assert_eq!(reused.get_details_error_info().expect("a reason").reason, "KEY_REUSED");

    node.set_env("SIMPUL_CHAT__CLIENT_MESSAGE_ID_KEPT", "1ms");
    node.restart();
    let mut client = ChatServiceClient::new(node.channel().await);
    eventually("the id is forgotten", async || {
        client.send_message(with_token(message("r", "id", "two"), &alice)).await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_frames_are_refused_one_by_one_and_the_stream_lives_on() {
    let node = Node::start_with(&[
        ("SIMPUL_TRAFFIC__FRAME_RATE_PER_PRINCIPAL", "10"),
        ("SIMPUL_TRAFFIC__FRAME_BURST_PER_PRINCIPAL", "20"),
    ]);
    let alice = node.token("alice", &[]);
    let channel = node.channel().await;
    room(channel.clone(), &alice, "r", &[]).await;
    let mut session = Session::join(channel, &alice, "r", From::Latest(true)).await;
    for nonce in 0..60 {
        session.ask(Ask::Ping(Ping { nonce })).await;
    }
    let (mut answered, mut refused) = (0, 0);
    while answered + refused < 60 {
        match session.next().await {
            Tell::Pong(_) => answered += 1,
            Tell::Failed(failed) => {
                assert_eq!(failed.code, Code::ResourceExhausted as i32, "{failed:?}");
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(answered >= 15 && refused >= 20, "{answered} answered, {refused} refused");
    // What was refused was not executed; later there is room again.
    eventually("the stream goes on", async || {
        session.ask(Ask::Ping(Ping { nonce: 99 })).await;
        matches!(session.next().await, Tell::Pong(pong) if pong.nonce == 99).then_some(())
    })
    .await;
}

/// Others commit while a large room is erased, slice by slice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_a_large_room_holds_nobody_up() {
    const ENTRIES: i64 = 100_000;
    let node = Node::start();
    let alice = node.token("alice", &[]);
    let channel = node.channel().await;
    room(channel.clone(), &alice, "small", &[]).await;
    room(channel.clone(), &alice, "large", &[]).await;
    let url = format!("sqlite:{}", node.dir().join("simpul.db").display());
    let options: sqlx::sqlite::SqliteConnectOptions = url.parse().expect("a URL");
    let mut database = options.connect().await.expect("the database");
    // As if it had been talked in for long.
    sqlx::query(
        "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) \
         INSERT INTO entry SELECT \"partition\", room, i, 1, sender, 'm' || i, \
         CAST(x'00' || printf('%0200d', i) AS BLOB), 0, committed_at \
         FROM entry, n WHERE room = 'large'",
    )
    .bind(ENTRIES)
    .execute(&mut database)
    .await
    .expect("many entries");

    let mut client = ChatServiceClient::new(channel.clone());
    let delete = DeleteRoomRequest { room_id: "large".to_owned() };
    let deletion = {
        let (mut client, alice) = (client.clone(), alice.clone());
        simpul::task::spawn("deletion", async move {
            client.delete_room(with_token(delete, &alice)).await.expect("deleted");
        })
    };
    let (mut longest, mut sent) = (Duration::ZERO, 0);
    while !deletion.is_finished() {
        let begun = Instant::now();
        let send = message("small", &format!("m{sent}"), "halo");
        client.send_message(with_token(send, &alice)).await.expect("durable");
        longest = longest.max(begun.elapsed());
        sent += 1;
    }
    deletion.await.expect("no panic");
    eprintln!("{sent} messages during the deletion, the slowest took {longest:?}");
    assert!(sent > 10 && longest < Duration::from_secs(1), "{sent} sent, {longest:?}");
    for table in ["entry", "entry_key", "member"] {
        let sql = format!("SELECT count(*) FROM {table} WHERE room = 'large'");
        let left: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_one(&mut database)
            .await
            .expect("a count");
        assert_eq!(left, 0, "{table}");
    }
}
