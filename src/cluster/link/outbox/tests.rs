use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;

use super::*;

fn pong(nonce: u64) -> Encoded {
    let pong = pb::Pong { nonce, ..pb::Pong::default() };
    Encoded::response(pb::response_frame::Frame::Pong(pong))
}

/// What one message has when the body is asked now; `None` when nothing waits.
fn message<M: prost::Message + Default>(body: &mut OutboxBody) -> Option<M> {
    let mut bytes = Vec::new();
    while let Some(Some(Ok(frame))) = body.frame().now_or_never() {
        bytes.extend_from_slice(frame.data_ref().expect("data"));
        let len = bytes.get(1..5).map(|len| u32::from_be_bytes(len.try_into().expect("four")));
        if len.is_some_and(|len| bytes.len() == 5 + len as usize) {
            return Some(M::decode(&bytes[5..]).expect("a message"));
        }
    }
    assert!(bytes.is_empty(), "a torn message");
    None
}

#[test]
fn whatever_waits_goes_into_one_message_up_to_a_bound() {
    let outbox = Outbox::new(usize::MAX, Gauge::default());
    let mut body = OutboxBody::response(outbox.clone());
    for nonce in 0..100 {
        assert!(outbox.push(pong(nonce)));
    }
    let sent: pb::LinkResponse = message(&mut body).expect("a message");
    assert_eq!(sent.frames.len(), 100);
    assert_eq!(outbox.bytes(), 0);
    let large = || {
        let linked = vec!["n".repeat(BATCH / 2 + 1)];
        let pong = pb::Pong { linked, ..pb::Pong::default() };
        Encoded::response(pb::response_frame::Frame::Pong(pong))
    };
    outbox.push(large());
    outbox.push(large());
    for _ in 0..2 {
        let sent: pb::LinkResponse = message(&mut body).expect("a message");
        assert_eq!(sent.frames.len(), 1);
    }
    assert!(message::<pb::LinkResponse>(&mut body).is_none());
}

#[test]
fn appends_beyond_the_backlog_are_left_out_and_answers_are_not() {
    let frame = pong(1);
    let gauge = Gauge::default();
    let outbox = Outbox::new(2 * frame.len(), gauge.clone());
    assert!(outbox.push_append(frame.clone()) && outbox.push_append(frame.clone()));
    assert!(!outbox.push_append(frame.clone()));
    assert!(outbox.push(frame.clone()));
    assert_eq!(gauge.get(), bytes(3 * frame.len()));
    let mut body = OutboxBody::response(outbox.clone());
    let sent: pb::LinkResponse = message(&mut body).expect("a message");
    assert_eq!((sent.frames.len(), gauge.get()), (3, 0));
    outbox.push(frame);
    drop(body);
    assert_eq!(gauge.get(), 0);
    assert!(!outbox.push(pong(2)), "the link has ended");
    assert!(outbox.closed().now_or_never().is_some());
}

#[test]
fn the_newest_wish_for_a_room_counts_and_wishes_go_together() {
    use pb::request_frame::Frame;
    let outbox = Outbox::new(usize::MAX, Gauge::default());
    let mut body = OutboxBody::request(outbox.clone());
    for room in ["a", "b", "c"] {
        outbox.interest(7, &room.into(), true);
    }
    outbox.interest(7, &"c".into(), false);
    outbox.interest(8, &"d".into(), true);
    outbox.touched(&["user/bob@x".into()], &[]);
    outbox.touched(&["user/bob@x".into()], &[vec![1; 16]]);
    let sent: pb::LinkRequest = message(&mut body).expect("a message");
    let frames: Vec<_> = sent.frames.into_iter().filter_map(|frame| frame.frame).collect();
    let rooms = |rooms: &[&str]| rooms.iter().map(|room| room.to_string()).collect();
    let touched = pb::Touched { accounts: rooms(&["user/bob@x"]), payment_ids: vec![vec![1; 16]] };
    assert_eq!(
        frames,
        [
            Frame::Subscribe(pb::Subscribe { partition: 7, room_ids: rooms(&["a", "b"]) }),
            Frame::Unsubscribe(pb::Unsubscribe { partition: 7, room_ids: rooms(&["c"]) }),
            Frame::Subscribe(pb::Subscribe { partition: 8, room_ids: rooms(&["d"]) }),
            Frame::Touched(touched),
        ]
    );
}
