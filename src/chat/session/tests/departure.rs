//! Clients that are sent away while the node stops.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tonic::Code;

use crate::chat::testing::{Client, World};
use crate::proto::chat::v1::chat_response::Frame;
use crate::proto::chat::v1::join::From;
use crate::proto::chat::v1::{Notice, NoticeKind};

const GRACE: Duration = Duration::from_secs(10);
const JITTER: Duration = Duration::from_secs(2);

/// Somebody in a room who was told to go elsewhere.
async fn told(world: &World) -> Client {
    world.room("r").await;
    let mut bob = world.client("bob");
    bob.join("r", From::Latest(true)).await;
    let hints = ["other:7443".to_owned()];
    assert_eq!(world.chat.owner().shared().sessions.tell_move(1, &hints, JITTER), 1);
    assert_eq!(notice(&mut bob).await.kind(), NoticeKind::Move);
    bob
}

async fn notice(client: &mut Client) -> Notice {
    loop {
        match client.next().await {
            Some(Frame::Notice(notice)) => return notice,
            Some(_) => {}
            None => panic!("the stream ended without a notice"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_was_told_to_go_is_served_until_the_jitter_is_over() {
    let world = World::new().await;
    let mut bob = told(&world).await;
    let begun = Instant::now();
    let reader = async {
        for n in 0..20 {
            bob.send("r", &format!("b{n}"), "body").await;
            let Frame::Sent(_) = bob.answer().await else { panic!("no acknowledgement") };
            tokio::time::sleep(JITTER / 20).await;
        }
        assert!(begun.elapsed() >= JITTER);
        assert_eq!(notice(&mut bob).await.kind(), NoticeKind::Draining);
        while bob.next().await.is_some() {}
        let (code, took) = (bob.code(), begun.elapsed());
        drop(bob);
        (code, took)
    };
    let (clean, (code, took)) = tokio::join!(world.drain.drain(GRACE), reader);
    assert!(clean);
    assert_eq!(code, i32::from(Code::Unavailable));
    assert!(took > JITTER && took < GRACE / 2, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn who_goes_within_the_jitter_sees_no_error() {
    let world = World::new().await;
    let mut bob = told(&world).await;
    let reader = async {
        tokio::time::sleep(JITTER).await;
        bob.send("r", "last", "body").await;
        bob.input = None;
        let Frame::Sent(_) = bob.answer().await else { panic!("no acknowledgement") };
        while let Some(frame) = bob.next().await {
            assert!(!matches!(frame, Frame::Notice(_)), "{frame:?}");
        }
        let code = bob.code();
        drop(bob);
        code
    };
    let (clean, code) = tokio::join!(world.drain.drain(GRACE), reader);
    assert!(clean);
    assert_eq!(code, i32::from(Code::Ok));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_grace_period_comes_before_the_end_of_the_jitter() {
    let world = World::new().await;
    let mut bob = told(&world).await;
    let begun = Instant::now();
    let reader = async {
        assert_eq!(notice(&mut bob).await.kind(), NoticeKind::Draining);
        let at = begun.elapsed();
        while bob.next().await.is_some() {}
        at
    };
    let both = async { tokio::join!(world.drain.drain(JITTER / 2), reader) };
    let (clean, at) = timeout(GRACE, both).await.expect("it ends");
    assert!(!clean && at >= JITTER / 2 && at < JITTER, "{at:?}");
}
