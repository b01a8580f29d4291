//! Who may read, and how a stream ends.

use crate::security::audit::AuditTrail;
use std::time::Duration;

use tonic::Code;

use crate::chat::Content;
use crate::chat::session::{Reader, Session};
use crate::chat::testing::{Client, World, permit, who};
use crate::proto::chat::v1::chat_response::Frame;
use crate::proto::chat::v1::join::From;
use crate::proto::chat::v1::{NoticeKind, RoomRole as Role};
use crate::refusal::{Reason, Refusal};
use crate::store::chat::RoomRole;

async fn left(client: &mut Client, kind: NoticeKind) {
    let Some(Frame::Notice(notice)) = client.next().await else { panic!("no notice") };
    assert_eq!(notice.kind(), kind);
}

#[tokio::test]
async fn removal_stops_a_reader_at_once_whatever_its_backlog() {
    let world = World::new().await;
    world.room("r").await;
    let mut bob = world.client("bob");
    bob.join("r", From::Earliest(true)).await;
    world.fill("r", 0, 500, 100).await;
    let remove = Content::RemoveMember { member: who("bob") };
    world.propose("r", "alice", "", remove).await.expect("removed");
    left(&mut bob, NoticeKind::AccessChanged).await;
    assert!(bob.is_silent());
    let Frame::Failed(failed) = bob.join("r", From::Latest(true)).await else { panic!("joined") };
    assert_eq!(failed.code, i32::from(Code::NotFound));
}

#[tokio::test]
async fn joined_is_said_while_the_membership_cannot_change() {
    let world = World::new().await;
    world.room("r").await;
    let room = world.chat.owner().open(&"r".into()).await.expect("owned").expect("there");
    let reader = Reader::new(Session::new(who("bob"), AuditTrail::default()), "r".into());
    let mut told = false;
    let entered = room.enter(&reader, |_, _| {
        let (locked, other) = (std::sync::mpsc::sync_channel(1), room.clone());
        std::thread::spawn(move || locked.0.send(other.readers().len()));
        // Whoever ends the membership takes the same lock, and gets it afterwards.
        told = locked.1.recv_timeout(Duration::from_millis(100)).is_err();
    });
    assert!(entered.expect("it is in memory"), "bob is a member");
    assert!(told, "a removal could be told before");
}

#[tokio::test]
async fn a_deleted_room_is_left() {
    let world = World::new().await;
    world.room("r").await;
    let mut bob = world.client("bob");
    bob.join("r", From::Earliest(true)).await;
    let refused = world.chat.router().delete_room("r".into(), who("bob")).await;
    assert_eq!(refused.expect_err("not an owner").reason, Reason::NotAllowed);
    world.chat.router().delete_room("r".into(), who("alice")).await.expect("deleted");
    left(&mut bob, NoticeKind::AccessChanged).await;
    assert!(bob.is_silent());
    let created = Content::CreateRoom { title: String::new() };
    let again = world.propose("r", "alice", "", created).await;
    assert_eq!(again.expect_err("its id stays taken").reason, Reason::AlreadyExists);
}

#[tokio::test]
async fn another_role_is_told_and_reading_goes_on() {
    let world = World::new().await;
    world.room("r").await;
    let mut bob = world.client("bob");
    // The role that Joined shows is what a later change is told against.
    let Frame::Joined(joined) = bob.join("r", From::Latest(true)).await else { panic!("refused") };
    assert_eq!(joined.role(), Role::Member);
    let role = Content::SetRole { member: who("bob"), role: RoomRole::Reader };
    world.propose("r", "alice", "", role).await.expect("changed");
    left(&mut bob, NoticeKind::AccessChanged).await;
    bob.read(2, 3).await;
    bob.send("r", "x", "body").await;
    let Frame::Failed(failed) = bob.answer().await else { panic!("sent") };
    assert_eq!(failed.code, i32::from(Code::PermissionDenied));
}

#[tokio::test]
async fn a_stale_view_halts_readers_until_it_is_confirmed() {
    let world = World::new().await;
    world.room("r").await;
    let mut bob = world.client("bob");
    bob.join("r", From::Latest(true)).await;
    world.text("r", "id", "body").await.expect("durable");
    let shared = world.chat.owner().shared();
    let states = crate::store::ChatStore::partition_states(&*world.store).await.expect("states");
    let before = crate::chat::owner::now();
    // As after a freeze of two seconds.
    shared.view.take(&states, before.saturating_sub(Duration::from_secs(2)));
    assert!(bob.is_silent());
    // The refresher confirms it, and the reader is woken.
    bob.read(2, 3).await;
}

#[tokio::test]
async fn a_stop_tells_acknowledges_and_ends() {
    let world = World::new().await;
    world.room("r").await;
    let mut bob = world.client("bob");
    bob.join("r", From::Latest(true)).await;
    for n in 0..20 {
        bob.send("r", &format!("b{n}"), "body").await;
    }
    let Frame::Sent(_) = bob.answer().await else { panic!("no acknowledgement") };
    let reader = async {
        let (mut acks, mut told) = (1, false);
        while let Some(frame) = bob.next().await {
            match frame {
                Frame::Sent(_) => acks += 1,
                Frame::Notice(notice) => told |= notice.kind() == NoticeKind::Draining,
                _ => {}
            }
        }
        let code = bob.code();
        drop(bob);
        (acks, told, code)
    };
    let (clean, (acks, told, code)) =
        tokio::join!(world.drain.drain(Duration::from_secs(10)), reader);
    assert!(clean && told);
    assert_eq!(code, i32::from(Code::Unavailable));
    // What was committed was acknowledged, and nothing else.
    assert_eq!(world.store.log("r").len() - 2, acks);
}

#[tokio::test]
async fn the_end_of_the_permit_ends_the_stream() {
    let world = World::new().await;
    world.room("r").await;
    let permit = permit("bob");
    let validity = permit.validity().clone();
    let mut bob = Client::open(&world.chat, permit);
    bob.join("r", From::Earliest(true)).await;
    validity.revoke(Refusal::new(Reason::TokenExpired, "over"));
    while bob.next().await.is_some() {}
    assert_eq!(bob.code(), i32::from(Code::Unauthenticated));
}
