//! Rooms that are read on a node that does not own them.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::chat::follower::watch::tidy;
use crate::chat::owner::now;
use crate::chat::testing::{Client, Cluster, Weather};
use crate::proto::chat::v1::NoticeKind;
use crate::proto::chat::v1::chat_response::Frame;
use crate::proto::chat::v1::join::From;

/// How soon what was committed is read elsewhere without a link.
const SOON: Duration = Duration::from_secs(1);

async fn join(client: &mut Client, from: From) {
    let Frame::Joined(_) = client.join("r", from).await else { panic!("it was refused") };
}

/// Waits until the link of a node's room is what is expected.
async fn linked(cluster: &Cluster, node: usize, linked: bool) {
    let shared = cluster.chats[node].owner().shared();
    let room = shared.in_memory(&"r".into()).expect("in memory");
    while room.is_linked() != linked {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn everybody_reads_and_sends_wherever_they_are() {
    let cluster = Cluster::new(3).await;
    cluster.room("r").await;
    let mut alice = cluster.client(0, "alice");
    let mut bob = cluster.client(1, "bob");
    let mut other = cluster.client(2, "bob");
    for client in [&mut alice, &mut bob, &mut other] {
        join(client, From::Cursor(2)).await;
    }
    for n in 0..50 {
        bob.send("r", &format!("b{n}"), "from afar").await;
        alice.send("r", &format!("a{n}"), "from here").await;
    }
    let (mut acks, mut seq) = (Vec::new(), 2);
    while seq < 102 || acks.len() < 50 {
        match bob.next().await.expect("a frame") {
            Frame::Sent(sent) => acks.push((sent.client_message_id, sent.seq)),
            Frame::Message(message) => {
                seq += 1;
                assert_eq!(message.seq, seq);
            }
            unexpected => panic!("{unexpected:?}"),
        }
    }
    assert!(acks.windows(2).all(|pair| pair[0].1 < pair[1].1), "{acks:?}");
    let names: Vec<_> = acks.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, (0..50).map(|n| format!("b{n}")).collect::<Vec<_>>());
    alice.read(2, 102).await;
    other.read(2, 102).await;
}

#[tokio::test]
async fn a_followed_room_gives_the_owner_s_very_bytes() {
    let cluster = Cluster::new(2).await;
    cluster.room("r").await;
    let (mut here, mut there) = (cluster.client(0, "bob"), cluster.client(1, "bob"));
    join(&mut here, From::Latest(true)).await;
    join(&mut there, From::Latest(true)).await;
    linked(&cluster, 1, true).await;
    cluster.text(0, "r", "m").await;
    let (one, two) = (here.data().await.expect("it"), there.data().await.expect("it"));
    assert_eq!((one.as_ptr(), one.len()), (two.as_ptr(), two.len()));
    // What was read from the store is encoded alike.
    let (mut here, mut there) = (cluster.client(0, "bob"), cluster.client(1, "bob"));
    join(&mut here, From::Earliest(true)).await;
    join(&mut there, From::Earliest(true)).await;
    for seq in 1..=3 {
        assert_eq!(here.message().await, there.message().await, "{seq}");
    }
}

#[tokio::test]
async fn whatever_links_do_readers_miss_nothing_and_get_nothing_twice() {
    for weather in [Weather::Dropping, Weather::Doubling, Weather::Delaying, Weather::Cut] {
        let cluster = Cluster::new(2).await;
        cluster.room("r").await;
        let mut bob = cluster.client(1, "bob");
        join(&mut bob, From::Earliest(true)).await;
        linked(&cluster, 1, true).await;
        cluster.weather(weather);
        for n in 0..40 {
            cluster.text(0, "r", &format!("m{n}")).await;
        }
        bob.read(0, 42).await;
        // And back.
        cluster.weather(Weather::Fine);
        linked(&cluster, 1, true).await;
        cluster.text(1, "r", "last").await;
        bob.read(42, 43).await;
        assert!(bob.is_silent(), "{weather:?}");
    }
}

#[tokio::test]
async fn without_a_link_a_message_comes_within_a_second() {
    let cluster = Cluster::new(2).await;
    cluster.room("r").await;
    let mut bob = cluster.client(1, "bob");
    join(&mut bob, From::Latest(true)).await;
    cluster.weather(Weather::Cut);
    for n in 0..5 {
        cluster.text(0, "r", &format!("m{n}")).await;
        tokio::time::timeout(SOON, bob.read(n + 2, n + 3)).await.expect("within a second");
    }
}

#[tokio::test]
async fn who_is_not_told_of_the_store_stops_reading_and_goes_on_when_it_is() {
    let cluster = Cluster::new(2).await;
    cluster.room("r").await;
    let mut bob = cluster.client(1, "bob");
    join(&mut bob, From::Latest(true)).await;
    linked(&cluster, 1, true).await;
    cluster.mesh.frozen.store(true, Relaxed);
    let shared = cluster.chats[1].owner().shared();
    let room = shared.in_memory(&"r".into()).expect("in memory");
    while shared.is_fresh(&room, now()) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The owner's own view is as old: what it took still commits.
    let _ = cluster.text(0, "r", "m").await;
    assert_eq!(room.head(), 3, "the link brings it");
    assert!(bob.is_silent());
    assert!(shared.metrics.stale_views.get() > 0);
    cluster.mesh.frozen.store(false, Relaxed);
    bob.read(2, 3).await;
}

#[tokio::test]
async fn a_reader_behind_on_another_node_reads_pages_from_the_store() {
    let cluster = Cluster::new(2).await;
    cluster.room("r").await;
    let mut bob = cluster.client(1, "bob");
    join(&mut bob, From::Earliest(true)).await;
    linked(&cluster, 1, true).await;
    let body = "x".repeat(300);
    for n in 0..600 {
        let text = crate::chat::Content::Text { body: body.clone(), reply_to: 0 };
        cluster.propose(0, "r", "alice", &format!("m{n}"), text).await.expect("durable");
    }
    let (mut seq, mut notices) = (0, Vec::new());
    while seq < 602 || notices.len() < 2 {
        match bob.next().await.expect("a frame") {
            Frame::Message(message) => {
                seq += 1;
                assert_eq!(message.seq, seq);
            }
            Frame::Notice(notice) => notices.push(notice.kind()),
            unexpected => panic!("{unexpected:?}"),
        }
    }
    assert_eq!(notices, [NoticeKind::Lagging, NoticeKind::CaughtUp]);
    assert!(cluster.store.page_reads.load(Relaxed) > 0);
}

#[tokio::test]
async fn a_cursor_ahead_of_this_node_is_taken_and_waited_for() {
    let cluster = Cluster::new(2).await;
    cluster.room("r").await;
    let mut slow = cluster.client(1, "bob");
    join(&mut slow, From::Latest(true)).await;
    linked(&cluster, 1, true).await;
    // The node is told nothing of what comes now.
    cluster.weather(Weather::Cut);
    cluster.mesh.frozen.store(true, Relaxed);
    for n in 0..3 {
        cluster.text(0, "r", &format!("m{n}")).await;
    }
    let mut moved = cluster.client(1, "bob");
    join(&mut moved, From::Cursor(5)).await;
    let Frame::Failed(_) = cluster.client(1, "bob").join("r", From::Cursor(9)).await else {
        panic!("nobody has read so much");
    };
    cluster.mesh.frozen.store(false, Relaxed);
    cluster.text(0, "r", "next").await;
    moved.read(5, 6).await;
    slow.read(2, 6).await;
}

#[tokio::test]
async fn what_nobody_reads_is_let_go_of() {
    let cluster = Cluster::new(2).await;
    cluster.room("r").await;
    let mut bob = cluster.client(1, "bob");
    join(&mut bob, From::Latest(true)).await;
    let (shared, partition) = (cluster.chats[1].owner().shared(), cluster.partition("r"));
    linked(&cluster, 1, true).await;
    tidy(shared, partition, now());
    tidy(shared, partition, now() + Duration::from_secs(100));
    assert!(shared.in_memory(&"r".into()).is_some(), "it is read");
    drop(bob);
    tidy(shared, partition, now());
    assert!(shared.in_memory(&"r".into()).is_some(), "it was just read");
    tidy(shared, partition, now() + Duration::from_secs(100));
    assert!(shared.in_memory(&"r".into()).is_none());
    assert_eq!(cluster.peers[1].unfollowed.load(Relaxed), 1);
}
