//! Sessions over a store in memory, their bodies polled by hand.

mod access;
mod departure;
mod lagging;
mod protocol;
mod restart;

use std::collections::BTreeMap;

use crate::chat::Content;
use crate::chat::testing::{Fault, World, who};
use crate::proto::chat::v1::chat_response::Frame;
use crate::proto::chat::v1::join::From;
use crate::refusal::Reason;
use crate::store::chat::RoomRole;
use tonic::Code;

#[tokio::test]
async fn everybody_reads_everything_in_order_and_senders_get_their_acks() {
    let world = World::new().await;
    world.room("r").await;
    let mut alice = world.client("alice");
    let mut bob = world.client("bob");
    alice.join("r", From::Latest(true)).await;
    bob.join("r", From::Earliest(true)).await;
    for n in 0..200 {
        alice.send("r", &format!("a{n}"), "hello").await;
    }
    bob.read(0, 202).await;
    let (mut acks, mut seen) = (Vec::new(), 2);
    while acks.len() < 200 || seen < 202 {
        match alice.next().await.expect("a frame") {
            Frame::Sent(sent) => acks.push((sent.client_message_id, sent.seq)),
            Frame::Message(message) => {
                seen += 1;
                assert_eq!(message.seq, seen);
            }
            other => panic!("{other:?}"),
        }
    }
    let expected: Vec<_> = (0..200).map(|n| (format!("a{n}"), n + 3)).collect();
    assert_eq!(acks, expected);
    let appends = world.store.appends.load(std::sync::atomic::Ordering::Relaxed);
    assert!(appends < 150, "{appends} commits: nothing was grouped");
}

#[tokio::test]
async fn two_sessions_get_one_buffer() {
    let world = World::new().await;
    world.room("r").await;
    let (mut first, mut second) = (world.client("bob"), world.client("bob"));
    for client in [&mut first, &mut second] {
        client.join("r", From::Cursor(2)).await;
    }
    world.fill("r", 0, 20, 100).await;
    let one = first.data().await.expect("entries");
    let two = second.data().await.expect("entries");
    assert!(one.len() > 20 * 100);
    assert_eq!((one.as_ptr(), one.len()), (two.as_ptr(), two.len()));
}

#[tokio::test]
async fn the_same_id_is_appended_once_and_another_body_is_refused() {
    let world = World::new().await;
    world.room("r").await;
    let (one, two, other) = tokio::join!(
        world.text("r", "id", "body"),
        world.text("r", "id", "body"),
        world.text("r", "id", "another"),
    );
    assert_eq!(one.clone().expect("durable"), two.expect("the same"));
    assert_eq!(other.expect_err("another body").reason, Reason::KeyReused);
    assert_eq!(world.text("r", "id", "body").await, one);
    let late = world.text("r", "id", "another").await;
    assert_eq!(late.expect_err("another body").reason, Reason::KeyReused);
    assert_eq!(world.store.log("r").len(), 3);
}

/// Of one group a part is kept, and another is not because a message is sent
/// again: whoever reads the first sees it at once.
#[tokio::test]
async fn what_was_kept_beside_a_message_sent_again_is_shown() {
    let world = World::new().await;
    let partition = |room: &str| world.chat.owner().shared().partition(room);
    let far = (0..64).map(|n| format!("far{n}")).find(|far| partition(far) != partition("near"));
    let far = far.expect("rooms of several partitions");
    world.room("near").await;
    world.room(&far).await;
    let once = world.text(&far, "id", "body").await.expect("durable");
    let mut bob = world.client("bob");
    bob.join("near", From::Latest(true)).await;
    let appends = || world.store.appends.load(std::sync::atomic::Ordering::Relaxed);
    let before = appends();
    let (new, again) =
        tokio::join!(world.text("near", "new", "body"), world.text(&far, "id", "body"));
    assert_eq!((new.expect("durable").seq, again.expect("the same")), (3, once));
    assert_eq!(appends(), before + 1, "one group");
    bob.read(2, 3).await;
    assert_eq!((world.store.log("near").len(), world.store.log(&far).len()), (3, 3));
}

#[tokio::test]
async fn what_was_acknowledged_is_acknowledged_again_to_members_alone() {
    let world = World::new().await;
    world.room("r").await;
    let body = "bob's card is 4111 1111 1111 1111";
    let text = || Content::Text { body: body.into(), reply_to: 0 };
    let first = world.propose("r", "bob", "id", text()).await.expect("durable");
    let role = Content::SetRole { member: who("bob"), role: RoomRole::Reader };
    world.propose("r", "alice", "", role).await.expect("readers do not send");
    assert_eq!(world.propose("r", "bob", "id", text()).await, Ok(first));
    let other = Content::Text { body: "other".into(), reply_to: 0 };
    let reused = world.propose("r", "bob", "id", other.clone()).await.expect_err("another body");
    assert_eq!(reused.reason, Reason::KeyReused);
    let new = world.propose("r", "bob", "new", other).await.expect_err("readers do not send");
    assert_eq!(new.reason, Reason::NotAllowed);
    let gone = Content::RemoveMember { member: who("bob") };
    world.propose("r", "alice", "", gone).await.expect("removed");
    let refused = world.propose("r", "bob", "id", text()).await.expect_err("no member");
    assert_eq!(refused.reason, Reason::NotFound);
}

#[tokio::test]
async fn an_old_epoch_acknowledges_nothing_and_halts_the_room() {
    let world = World::new().await;
    world.room("r").await;
    let mut bob = world.client("bob");
    bob.join("r", From::Latest(true)).await;
    world.store.raise_epochs();
    let refused = world.text("r", "id", "body").await.expect_err("fenced");
    assert_eq!(refused.reason, Reason::NotOwner);
    assert_eq!(world.store.log("r").len(), 2);
    bob.send("r", "b", "body").await;
    let Frame::Failed(failed) = bob.answer().await else { panic!("no refusal") };
    assert_eq!(failed.code, i32::from(Code::Unavailable));
    assert!(bob.is_silent());
}

#[tokio::test]
async fn a_lone_node_that_lost_its_partitions_says_so_though_nobody_writes() {
    let world = World::new().await;
    let shows = |pending: &BTreeMap<&str, usize>| pending.contains_key("partitions owned");
    let mut readiness = world.readiness.subscribe();
    assert!(world.readiness.is_ready());
    world.store.raise_epochs();
    readiness.wait_for(shows).await.expect("told");
    assert!(!world.readiness.is_ready());
}

#[tokio::test]
async fn an_unknown_outcome_is_resolved_by_the_store_and_loses_nobody() {
    for fault in [Fault::Lost, Fault::KeptUnanswered] {
        let world = World::new().await;
        world.room("r").await;
        let mut bob = world.client("bob");
        bob.join("r", From::Earliest(true)).await;
        world.fill("r", 0, 5, 10).await;
        world.store.fail_next(fault);
        let failed = world.text("r", "id", "body").await.expect_err("not acknowledged");
        assert_eq!(failed.reason, Reason::StoreUnavailable);
        let again = world.text("r", "id", "body").await.expect("the store is back");
        assert_eq!(again.seq, 8);
        world.fill("r", 10, 5, 10).await;
        assert!(world.readiness.is_ready());
        bob.read(0, 13).await;
        assert_eq!(world.store.log("r").len(), 13);
    }
}
