//! Frames that are refused, and streams that end.

use bytes::Bytes;
use prost::Message as _;
use tonic::Code;

use crate::chat::testing::{Client, World};
use crate::proto::chat::v1 as pb;
use crate::proto::chat::v1::chat_request::Frame as Ask;
use crate::proto::chat::v1::chat_response::Frame;
use crate::proto::chat::v1::join::From;

async fn refused(client: &mut crate::chat::testing::Client, frame: Option<Ask>) -> Code {
    client.ask(frame).await;
    match client.next().await {
        Some(Frame::Failed(failed)) => {
            assert!(!failed.details.is_empty(), "no reason");
            Code::from(failed.code)
        }
        other => panic!("{other:?}"),
    }
}

fn join(room: &str, from: From) -> Option<Ask> {
    Some(Ask::Join(pb::Join { room_id: room.into(), from: Some(from) }))
}

#[tokio::test]
async fn refused_frames_are_answered_and_the_stream_goes_on() {
    let world = World::new().await;
    for room in ["r", "r2", "r3", "r4"] {
        world.room(room).await;
    }
    let mut bob = world.client("bob");
    let ping = || Some(Ask::Ping(pb::Ping { nonce: 7 }));
    assert_eq!(refused(&mut bob, ping()).await, Code::FailedPrecondition);
    assert_eq!(refused(&mut bob, None).await, Code::InvalidArgument);
    assert_eq!(
        refused(&mut bob, join("Not a room", From::Earliest(true))).await,
        Code::InvalidArgument
    );
    assert_eq!(refused(&mut bob, join("r", From::LastN(0))).await, Code::InvalidArgument);
    assert_eq!(refused(&mut bob, join("none", From::Earliest(true))).await, Code::NotFound);
    assert_eq!(refused(&mut bob, join("r", From::Cursor(3))).await, Code::OutOfRange);
    assert_eq!(refused(&mut bob, join("none", From::Cursor(3))).await, Code::NotFound);
    for room in ["r", "r2", "r3"] {
        let joined = bob.join(room, From::Latest(true)).await;
        assert!(matches!(joined, Frame::Joined(_)), "{joined:?}");
    }
    assert_eq!(refused(&mut bob, join("r4", From::Latest(true))).await, Code::ResourceExhausted);
    let send = |room: &str, id: &str, body: &str| {
        let (room_id, client_message_id, body) = (room.into(), id.into(), body.into());
        Some(Ask::Send(pb::Send { room_id, client_message_id, body, ..Default::default() }))
    };
    assert_eq!(refused(&mut bob, send("r4", "x", "y")).await, Code::FailedPrecondition);
    assert_eq!(refused(&mut bob, send("r", "no id!", "y")).await, Code::InvalidArgument);
    assert_eq!(refused(&mut bob, send("r", "x", "")).await, Code::InvalidArgument);
    let leave = || Some(Ask::Leave(pb::Leave { room_id: "r3".into() }));
    bob.ask(leave()).await;
    assert_eq!(refused(&mut bob, leave()).await, Code::FailedPrecondition);
    bob.ask(ping()).await;
    assert_eq!(bob.next().await, Some(Frame::Pong(pb::Pong { nonce: 7 })));
}

#[tokio::test]
async fn a_send_names_every_violated_field_before_the_room_that_is_not_joined() {
    let world = World::new().await;
    world.room("r").await;
    let mut bob = world.client("bob");
    bob.join("r", From::Latest(true)).await;
    let card = "4111-1111-1111-1111";
    for (room, id) in [("Not a room", "no id!"), (card, card)] {
        let (room_id, client_message_id) = (room.into(), id.into());
        let send = pb::Send { room_id, client_message_id, ..Default::default() };
        bob.ask(Some(Ask::Send(send))).await;
        let Some(Frame::Failed(failed)) = bob.next().await else { panic!("it was not refused") };
        assert_eq!(Code::from(failed.code), Code::InvalidArgument);
        let named = failed.details.iter().find(|any| any.type_url.ends_with(".BadRequest"));
        let named = tonic_types::pb::BadRequest::decode(&*named.expect("a BadRequest").value);
        let fields: Vec<_> =
            named.expect("it decodes").field_violations.into_iter().map(|it| it.field).collect();
        assert_eq!(fields, ["room_id", "client_message_id", "body"], "{room}");
    }
}

#[tokio::test]
async fn a_send_is_taken_after_the_one_that_it_names_or_not_at_all() {
    let world = World::new().await;
    world.room("r").await;
    let mut bob = world.client("bob");
    bob.join("r", From::Latest(true)).await;
    let send = |id: &str, after: &str| {
        let (room_id, client_message_id) = ("r".into(), id.into());
        let (body, after) = (id.into(), after.into());
        Some(Ask::Send(pb::Send { room_id, client_message_id, body, after, reply_to: 0 }))
    };
    let sent = async |bob: &mut Client, id: &str, after: &str| {
        bob.ask(send(id, after)).await;
        match bob.answer().await {
            Frame::Sent(sent) => sent.seq,
            other => panic!("{id} was not taken: {other:?}"),
        }
    };
    // Nobody has said a: what is to come after it does not stand before it.
    assert_eq!(refused(&mut bob, send("b", "a")).await, Code::Unavailable);
    assert_eq!(refused(&mut bob, send("c", "b")).await, Code::Unavailable);
    assert_eq!(refused(&mut bob, send("c", "no id!")).await, Code::InvalidArgument);
    let a = sent(&mut bob, "a", "").await;
    assert_eq!(sent(&mut bob, "b", "a").await, a + 1);
    // Not the last one: the store is asked.
    assert_eq!(sent(&mut bob, "c", "a").await, a + 2);
    // What stands is acknowledged again, whatever it names.
    assert_eq!(sent(&mut bob, "b", "never").await, a + 1);
    // Another's message of that name is none of his own.
    world.text("r", "d", "alice's").await.expect("durable");
    let mut waits = bob;
    waits.ask(send("e", "d")).await;
    assert!(matches!(waits.answer().await, Frame::Failed(_)));
}

#[tokio::test]
async fn joining_again_moves_the_cursor() {
    let world = World::new().await;
    world.room("r").await;
    world.fill("r", 0, 10, 10).await;
    let mut bob = world.client("bob");
    bob.join("r", From::Latest(true)).await;
    bob.join("r", From::LastN(4)).await;
    bob.read(8, 12).await;
    bob.join("r", From::Earliest(true)).await;
    bob.read(0, 12).await;
}

#[tokio::test]
async fn a_message_that_does_not_decode_ends_the_stream_after_the_acks() {
    let world = World::new().await;
    world.room("r").await;
    let mut bob = world.client("bob");
    bob.join("r", From::Latest(true)).await;
    bob.send("r", "x", "body").await;
    bob.raw(Bytes::from_static(&[0, 0, 0, 0, 2, 0xff, 0xff])).await;
    let mut acked = false;
    while let Some(frame) = bob.next().await {
        acked |= matches!(frame, Frame::Sent(_));
    }
    assert!(acked);
    assert_eq!(bob.code(), i32::from(Code::InvalidArgument));
}

#[tokio::test]
async fn a_client_that_ends_its_side_gets_what_there_is() {
    let world = World::new().await;
    world.room("r").await;
    world.fill("r", 0, 300, 300).await;
    let mut bob = world.client("bob");
    bob.join("r", From::Earliest(true)).await;
    bob.send("r", "x", "body").await;
    bob.input = None;
    let (mut messages, mut acks) = (0, 0);
    while let Some(frame) = bob.next().await {
        match frame {
            Frame::Message(_) => messages += 1,
            Frame::Sent(_) => acks += 1,
            _ => {}
        }
    }
    assert_eq!((messages, acks, bob.code()), (303, 1, 0));
}

#[tokio::test]
async fn a_client_that_never_reads_is_not_read_on() {
    let world = World::new().await;
    world.room("r").await;
    let mut bob = world.client("bob");
    bob.join("r", From::Latest(true)).await;
    let input = bob.input.clone().expect("open");
    let ping = crate::chat::testing::encoded(Some(Ask::Ping(pb::Ping { nonce: 1 })));
    // The writer stops where the node stops reading: 256 answers wait, and the
    // test's own channel and the decoder hold a few frames more.
    let mut sent = 0;
    loop {
        match tokio::time::timeout(std::time::Duration::from_millis(200), input.send(ping.clone()))
            .await
        {
            Ok(taken) => taken.expect("the node reads"),
            Err(_) => break,
        }
        sent += 1;
        assert!(sent < 300, "the node reads on and on");
    }
    assert!(sent >= 256);
    // Reading sets it going again, and nothing is lost.
    for _ in 0..sent {
        assert_eq!(bob.next().await, Some(Frame::Pong(pb::Pong { nonce: 1 })));
    }
}
