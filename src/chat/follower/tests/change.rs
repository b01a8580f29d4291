//! Changes of members and rooms, seen from another node.

use std::time::Duration;

use crate::chat::testing::{Client, Cluster, Weather, who};
use crate::chat::{Content, RoomsView as _};
use crate::proto::chat::v1::NoticeKind;
use crate::proto::chat::v1::chat_response::Frame;
use crate::proto::chat::v1::join::From;
use crate::store::chat::RoomRole;

const SOON: Duration = Duration::from_secs(1);

async fn told(client: &mut Client) {
    let Frame::Notice(notice) = client.answer().await else { panic!("no notice") };
    assert_eq!(notice.kind(), NoticeKind::AccessChanged);
}

async fn joined(cluster: &Cluster) -> Client {
    cluster.room("r").await;
    let mut bob = cluster.client(1, "bob");
    let Frame::Joined(_) = bob.join("r", From::Latest(true)).await else { panic!("refused") };
    bob
}

#[tokio::test]
async fn removal_ends_reading_on_another_node_within_a_second_linked_or_not() {
    for weather in [Weather::Fine, Weather::Cut] {
        let cluster = Cluster::new(2).await;
        let mut bob = joined(&cluster).await;
        cluster.weather(weather);
        let remove = Content::RemoveMember { member: who("bob") };
        cluster.propose(0, "r", "alice", "", remove).await.expect("removed");
        tokio::time::timeout(SOON, told(&mut bob)).await.expect("within a second");
        cluster.text(0, "r", "m").await;
        assert!(bob.is_silent());
        let Frame::Failed(_) = bob.join("r", From::Latest(true)).await else { panic!("joined") };
    }
}

#[tokio::test]
async fn roles_and_titles_are_those_of_the_owner() {
    for weather in [Weather::Fine, Weather::Cut] {
        let cluster = Cluster::new(2).await;
        let mut bob = joined(&cluster).await;
        cluster.weather(weather);
        let role = Content::SetRole { member: who("bob"), role: RoomRole::Reader };
        cluster.propose(1, "r", "alice", "", role).await.expect("changed");
        let title = Content::SetTitle { title: "another".into() };
        cluster.propose(1, "r", "alice", "", title).await.expect("changed");
        told(&mut bob).await;
        bob.read(2, 4).await;
        let view = cluster.chats[1].owner();
        let access = view.access(&"r".into(), &who("bob")).await.expect("fresh").expect("a member");
        assert_eq!((access.role, &*access.title, access.head), (RoomRole::Reader, "another", 4));
    }
}

#[tokio::test]
async fn a_deleted_room_is_left_on_another_node() {
    for weather in [Weather::Fine, Weather::Cut] {
        let cluster = Cluster::new(2).await;
        let mut bob = joined(&cluster).await;
        cluster.weather(weather);
        // Asked for where it is not owned.
        let router = cluster.chats[1].router();
        router.delete_room("r".into(), who("alice")).await.expect("deleted");
        told(&mut bob).await;
        assert!(bob.is_silent());
        let shared = cluster.chats[1].owner().shared();
        assert!(shared.in_memory(&"r".into()).is_none());
        let Frame::Failed(_) = bob.join("r", From::Latest(true)).await else { panic!("joined") };
    }
}

#[tokio::test]
async fn a_room_made_elsewhere_can_be_joined_at_once() {
    let cluster = Cluster::new(3).await;
    let created = Content::CreateRoom { title: "t".into() };
    cluster.propose(2, "r", "alice", "", created).await.expect("a new room");
    let mut alice = cluster.client(1, "alice");
    let Frame::Joined(_) = alice.join("r", From::Earliest(true)).await else { panic!("refused") };
    let first = alice.message().await;
    assert_eq!((first.seq, &*first.client_message_id), (1, ""));
    let mut other = cluster.client(1, "alice");
    let Frame::Failed(_) = other.join("none", From::Latest(true)).await else { panic!("joined") };
}
