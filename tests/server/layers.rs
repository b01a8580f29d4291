//! Each layer through the whole stack.

use std::time::{Duration, Instant};

use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::{
    Answer, CHECK, Client, HISTORY, Node, WHO_AM_I, call, collect, framed, next, request, soon,
    traffic,
};

fn doing(what: &str) -> http::Request<()> {
    request(WHO_AM_I).header("x-do", what).body(()).expect("request")
}

fn timed(path: &str, timeout: &str) -> http::Request<()> {
    request(path).header("grpc-timeout", timeout).header("x-do", "hang").body(()).expect("request")
}

/// Opens a history stream and reads its first message.
async fn history(client: &Client) -> h2::RecvStream {
    let response = client.open(call(HISTORY), framed(&[])).await.expect("a stream");
    let mut body = response.into_body();
    next(&mut body).await.expect("a message").expect("a message");
    body
}

fn retries(answer: &Answer) -> bool {
    let status = answer.status.as_ref().expect("a status");
    status.get_details_retry_info().is_some_and(|info| info.retry_delay.is_some())
}

#[tokio::test]
async fn a_panic_costs_one_call() {
    let node = Node::defaults().await;
    let client = node.connect().await;
    let answer = client.ask(doing("panic")).await;
    assert_eq!(answer.code(), Some(Code::Internal));
    assert_eq!(answer.reason().as_deref(), Some("INTERNAL"));

    let body = request(HISTORY).header("x-panic", "1").body(()).expect("request");
    let answer = client.ask(body).await;
    assert_eq!(answer.data, framed(&[]), "what came before the panic arrives");
    assert_eq!(answer.code(), Some(Code::Internal));
    assert_eq!(answer.reason().as_deref(), Some("INTERNAL"));
    assert_eq!(client.ask(call(WHO_AM_I)).await.code(), Some(Code::Ok));
}

#[tokio::test]
async fn work_stops_at_its_deadline() {
    let mut traffic = traffic();
    traffic.default_deadline = Duration::from_millis(150);
    traffic.max_deadline = Duration::from_millis(300);
    let node = Node::start(traffic).await;
    let client = node.connect().await;
    let mut unlimited = history(&client).await;

    for request in [doing("hang"), timed(WHO_AM_I, "20m"), timed(WHO_AM_I, "1H")] {
        let begin = Instant::now();
        let answer = client.ask(request).await;
        assert_eq!(answer.code(), Some(Code::DeadlineExceeded));
        assert_eq!(answer.reason().as_deref(), Some("DEADLINE_EXCEEDED"));
        assert!(begin.elapsed() >= Duration::from_millis(15));
    }
    let answer = client.ask(timed(HISTORY, "50m")).await;
    assert_eq!(answer.code(), Some(Code::DeadlineExceeded), "a stream ends when it asks to");

    // More than both bounds has passed by now.
    node.poke.send_modify(|pokes| *pokes += 1);
    assert!(next(&mut unlimited).await.expect("it ended").is_ok(), "a stream has no default");
}

#[tokio::test]
async fn calls_beyond_the_nodes_places_wait_a_little_or_are_refused() {
    let mut traffic = traffic();
    traffic.max_concurrent_calls = 1;
    traffic.max_waiting_calls = 1;
    traffic.max_wait = Duration::from_millis(200);
    let node = Node::start(traffic).await;
    let client = node.connect().await;
    let taken = client.call(timed(WHO_AM_I, "20S"), framed(&[]));
    let others = async {
        while node.handled() == 0 {
            tokio::task::yield_now().await;
        }
        tokio::join!(client.ask(call(WHO_AM_I)), client.ask(call(WHO_AM_I)))
    };
    let (_, (first, second)) = tokio::join!(
        async { tokio::time::timeout(Duration::from_secs(2), taken).await.is_err() },
        others
    );
    let mut reasons = [first.reason(), second.reason()].map(|reason| reason.expect("a reason"));
    reasons.sort();
    assert_eq!(reasons, ["CONCURRENCY_LIMIT", "OVERLOADED"]);
    assert!(retries(&first) && retries(&second));
    assert_eq!(client.ask(call(CHECK)).await.code(), Some(Code::Ok), "health is not shed");
    // Dropping the call above reset its stream, which gives the place back.
    while client.ask(call(WHO_AM_I)).await.code() != Some(Code::Ok) {}
    assert_eq!(node.handled(), 2);
}

#[tokio::test]
async fn a_stream_holds_its_place_to_its_end() {
    let mut traffic = traffic();
    traffic.max_concurrent_streams = 1;
    let node = Node::start(traffic).await;
    let client = node.connect().await;
    let open = history(&client).await;
    let refused = client.ask(call(HISTORY)).await;
    assert_eq!(refused.reason().as_deref(), Some("CONCURRENCY_LIMIT"));
    assert!(retries(&refused));
    assert_eq!(client.ask(call(WHO_AM_I)).await.code(), Some(Code::Ok), "calls are counted apart");
    drop(open);
    soon(async {
        loop {
            let response = client.open(call(HISTORY), framed(&[])).await.expect("an answer");
            if !response.headers().contains_key("grpc-status") {
                break;
            }
            assert!(collect(response).await.is_ok());
        }
    })
    .await;
}

#[tokio::test]
async fn one_principal_has_its_share() {
    let mut traffic = traffic();
    traffic.rate_per_principal = 1;
    traffic.burst_per_principal = 5;
    traffic.max_streams_per_principal = 1;
    let node = Node::start(traffic).await;
    let client = node.connect().await;
    let _open = history(&client).await;
    let second = client.ask(call(HISTORY)).await;
    assert_eq!(second.reason().as_deref(), Some("TOO_MANY_STREAMS"));
    for _ in 0..3 {
        assert_eq!(client.ask(call(WHO_AM_I)).await.code(), Some(Code::Ok));
    }
    let limited = client.ask(call(WHO_AM_I)).await;
    assert_eq!(limited.reason().as_deref(), Some("RATE_LIMITED"));
    assert!(retries(&limited));
    assert_eq!(client.ask(call(CHECK)).await.code(), Some(Code::Ok), "health is not limited");
}
