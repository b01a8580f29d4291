use super::*;
use crate::principal::Kind;

fn principal(id: &str) -> Principal {
    Principal::new(Kind::User, id, &"example.org".parse().expect("domain")).expect("principal")
}

fn share() -> Share {
    Share { calls: 1, call_burst: 3, frames: 1, frame_burst: 2, streams: 2 }
}

#[test]
fn each_principal_has_its_own_share_of_calls_and_frames() {
    let limits = FrameLimits::new(share());
    let (alice, bob) = (principal("alice"), principal("bob"));
    for _ in 0..3 {
        assert!(limits.take_call(&alice).is_ok());
    }
    let refused = limits.take_call(&alice).expect_err("the burst is used up");
    assert_eq!(refused.reason, Reason::RateLimited);
    let wait = refused.retry_after.expect("when to come again");
    assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1));
    assert!(limits.take_call(&bob).is_ok());

    assert!(limits.take(&alice).is_ok(), "frames are counted apart");
    assert!(limits.take(&alice).is_ok());
    assert!(limits.take(&alice).is_err());
}

#[test]
fn a_stream_gives_its_place_back_when_it_ends() {
    let limits = FrameLimits::new(share());
    let alice = principal("alice");
    let open = || limits.take_call(&alice).and_then(|entry| limits.take_stream(entry));
    let first = open().expect("first");
    let _second = open().expect("second");
    assert_eq!(open().map(drop).expect_err("third").reason, Reason::TooManyStreams);
    drop(first);
    let entry = limits.table.entry(&alice).expect("entry");
    assert!(limits.take_stream(entry).is_ok());
}

#[test]
fn idle_principals_are_forgotten_and_those_with_streams_are_not() {
    let limits = FrameLimits::new(share());
    let alice = principal("alice");
    let entry = limits.table.entry(&alice).expect("entry");
    let _stream = limits.take_stream(entry).expect("stream");
    for n in 0..10 {
        limits.table.entry(&principal(&format!("u{n}"))).expect("entry");
    }
    let mut entries = limits.table.entries.lock().expect("lock");
    limits.table.sweep(&mut entries, 0);
    assert_eq!(entries.map.len(), 11, "nobody is idle yet");
    limits.table.sweep(&mut entries, 60_000);
    assert_eq!(entries.map.keys().collect::<Vec<_>>(), [&alice]);
}
