//! Readers behind the tail, and those that stand still.

use std::sync::atomic::Ordering::Relaxed;

use crate::chat::testing::{World, config};
use crate::config::schema;
use crate::proto::chat::v1::NoticeKind;
use crate::proto::chat::v1::chat_response::Frame;
use crate::proto::chat::v1::join::From;

#[tokio::test]
async fn a_reader_behind_is_told_once_and_misses_nothing() {
    let world = World::new().await;
    world.room("r").await;
    let mut bob = world.client("bob");
    bob.join("r", From::Earliest(true)).await;
    for part in 0..20 {
        world.fill("r", part * 100, 100, 200).await;
    }
    let sessions = &world.chat.owner().shared().sessions;
    assert_eq!(sessions.behind(), 1, "it counts while it reads nothing");
    let (mut seq, mut notices) = (0, Vec::new());
    while seq < 2002 || notices.len() < 2 {
        match bob.next().await.expect("a frame") {
            Frame::Message(message) => {
                seq += 1;
                assert_eq!(message.seq, seq);
            }
            Frame::Notice(notice) => notices.push(notice.kind()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(notices, [NoticeKind::Lagging, NoticeKind::CaughtUp]);
    assert_eq!(sessions.behind(), 0);
}

#[tokio::test]
async fn a_hundred_laggards_cost_at_most_twice_the_reads_of_one() {
    let mut reads = Vec::new();
    for laggards in [1, 100] {
        let world = World::new().await;
        world.room("r").await;
        for part in 0..20 {
            world.fill("r", part * 100, 100, 200).await;
        }
        let before = world.store.page_reads.load(Relaxed);
        let mut clients = Vec::new();
        // They fell behind at different places.
        for place in (0..laggards).rev() {
            let mut client = world.client("bob");
            client.join("r", From::Cursor(place)).await;
            clients.push((client, place));
        }
        let all = clients.iter_mut().map(|(client, place)| client.read(*place, 2002));
        futures_util::future::join_all(all).await;
        reads.push(world.store.page_reads.load(Relaxed) - before);
    }
    assert!(reads[0] > 10, "one laggard was not behind: {reads:?}");
    assert!(reads[1] <= 2 * reads[0], "{reads:?}");
}

#[tokio::test]
async fn a_thousand_stalled_readers_pin_no_more_than_what_they_hold() {
    let world = World::with(schema::Chat { total_tail_bytes: 256 * 1024, ..config() }).await;
    world.room("r").await;
    let mut held = Vec::new();
    for _ in 0..1000 {
        let mut client = world.client("bob");
        client.join("r", From::Cursor(2)).await;
        held.push((client, None));
    }
    for part in 0..30 {
        world.fill("r", part * 50, 50, 200).await;
        // Some take what is there into their send buffers, and stand still.
        for (client, slice) in held.iter_mut().skip(part * 30).take(30) {
            *slice = client.data().await;
        }
    }
    let budget = &world.chat.owner().shared().budget;
    let taken = held.iter().filter(|(_, slice)| slice.is_some()).count();
    assert!(taken >= 900);
    // All who stand still at one place hold one buffer.
    let bound = 256 * 1024 + 30 * 17 * 1024;
    assert!(budget.alive() <= bound, "{} of {bound}", budget.alive());
    let last = held.pop().map(|(client, _)| client);
    last.expect("a thousand").read(2, 1502).await;
}
