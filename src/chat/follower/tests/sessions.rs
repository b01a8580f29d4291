//! Sessions that are told to go.

use std::time::Duration;

use tonic::Code;

use crate::chat::testing::Cluster;
use crate::proto::chat::v1::NoticeKind;
use crate::proto::chat::v1::chat_response::Frame;
use crate::proto::chat::v1::join::From;
use crate::refusal::{Reason, Refusal};

#[tokio::test]
async fn so_many_sessions_are_told_once_where_to_go() {
    let cluster = Cluster::new(1).await;
    let mut clients: Vec<_> = (0..10).map(|_| cluster.client(0, "bob")).collect();
    let node = cluster.node(0);
    assert_eq!(node.sessions(), 10);
    let (hints, jitter) = (["other:7443".to_owned()], Duration::from_millis(1500));
    assert_eq!(node.move_sessions(4, &hints, jitter), 4);
    assert_eq!(node.move_sessions(100, &hints, jitter), 6);
    assert_eq!(node.move_sessions(100, &hints, jitter), 0);
    for client in &mut clients {
        let Some(Frame::Notice(notice)) = client.next().await else { panic!("no notice") };
        assert_eq!((notice.kind(), &notice.addresses[..]), (NoticeKind::Move, &hints[..]));
        let told = notice.jitter.expect("a jitter");
        assert_eq!((told.seconds, told.nanos), (1, 500_000_000));
        assert!(client.is_silent());
    }
    drop(clients);
    assert_eq!(node.sessions(), 0);
}

#[tokio::test]
async fn who_is_turned_away_is_told_and_gets_the_refusal() {
    let cluster = Cluster::new(1).await;
    cluster.room("r").await;
    let mut bob = cluster.client(0, "bob");
    bob.join("r", From::Latest(true)).await;
    let why = Refusal::new(Reason::StoreUnavailable, "nobody can be reached");
    assert_eq!(cluster.node(0).turn_away(&why), 1);
    let Some(Frame::Notice(notice)) = bob.next().await else { panic!("no notice") };
    assert_eq!(notice.kind(), NoticeKind::Draining);
    assert!(bob.next().await.is_none());
    assert_eq!(bob.code(), i32::from(Code::Unavailable));
}
