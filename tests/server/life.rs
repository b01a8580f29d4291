//! How connections begin and end.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tonic::Code;

use crate::harness::{Client, HISTORY, Node, WHO_AM_I, call, framed, next, soon, traffic};

async fn open(client: &Client) -> h2::RecvStream {
    let response = client.open(call(HISTORY), framed(&[])).await.expect("a stream");
    let mut body = response.into_body();
    next(&mut body).await.expect("a message").expect("a message");
    body
}

#[tokio::test]
async fn an_old_connection_gets_goaway_and_its_streams_a_grace() {
    let mut traffic = traffic();
    traffic.max_connection_age = Duration::from_millis(300);
    traffic.connection_age_grace = Duration::from_millis(1500);
    let node = Node::start(traffic).await;
    let begin = Instant::now();
    let idle = node.connect().await;
    let client = node.connect().await;
    let mut stream = open(&client).await;

    let ended = soon(idle.connection).await.expect("a task");
    assert!(ended.is_ok(), "GOAWAY without an error: {ended:?}");
    let age = begin.elapsed();
    assert!(age >= Duration::from_millis(270), "{age:?}");

    node.poke.send_modify(|pokes| *pokes += 1);
    assert!(next(&mut stream).await.expect("it ended").is_ok(), "the stream has its grace");
    let cut = next(&mut stream).await;
    assert!(cut.is_none_or(|end| end.is_err()), "and ends with it");
    assert!(begin.elapsed() >= Duration::from_millis(1700));
    let again = node.connect().await;
    assert_eq!(again.ask(call(WHO_AM_I)).await.code(), Some(Code::Ok));
}

#[tokio::test]
async fn a_drain_without_streams_is_clean_and_tells_clients() {
    let node = Node::defaults().await;
    let client = node.connect().await;
    assert_eq!(client.ask(call(WHO_AM_I)).await.code(), Some(Code::Ok));
    assert!(soon(node.drain.drain(Duration::from_secs(10))).await, "everything ended by itself");
    assert!(soon(client.connection).await.expect("a task").is_ok());
    soon(node.serving).await.expect("the accept loop");
    assert!(TcpStream::connect(node.address).await.is_err(), "nobody listens");
}

#[tokio::test]
async fn a_drain_ends_at_its_deadline_although_a_stream_is_open() {
    let node = Node::defaults().await;
    let client = node.connect().await;
    let mut stream = open(&client).await;
    let begin = Instant::now();
    let drain = node.drain.drain(Duration::from_millis(1500));
    let meanwhile = async {
        // GOAWAY comes at once: no new stream, the open one goes on.
        while client.call(call(WHO_AM_I), framed(&[])).await.is_ok() {}
        node.poke.send_modify(|pokes| *pokes += 1);
        next(&mut stream).await.expect("it ended").expect("it broke");
        begin.elapsed()
    };
    let (clean, told) = soon(async { tokio::join!(drain, meanwhile) }).await;
    assert!(!clean);
    assert!(told < Duration::from_millis(1500), "{told:?}");
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert!(next(&mut stream).await.is_none_or(|end| end.is_err()));
    assert!(soon(client.connection).await.is_ok());
}

#[tokio::test]
async fn a_slow_handshake_is_cut_and_others_wait_for_its_place() {
    let mut traffic = traffic();
    traffic.max_handshakes = 1;
    traffic.handshake_timeout = Duration::from_secs(1);
    let node = Node::start(traffic).await;
    let begin = Instant::now();
    let mut silent = TcpStream::connect(node.address).await.expect("a connection");
    // The handshake that waits begins only when the silent one is cut.
    let client = node.connect().await;
    assert!(begin.elapsed() >= Duration::from_millis(990), "{:?}", begin.elapsed());
    assert_eq!(client.ask(call(WHO_AM_I)).await.code(), Some(Code::Ok));
    let mut rest = Vec::new();
    soon(silent.read_to_end(&mut rest)).await.ok();
    assert!(rest.is_empty(), "it is closed");
}

#[tokio::test]
async fn a_client_that_says_nothing_after_its_handshake_is_cut() {
    let mut traffic = traffic();
    traffic.handshake_timeout = Duration::from_secs(1);
    let node = Node::start(traffic).await;
    let mut silent = soon(node.tls()).await.expect("handshake");
    let mut rest = Vec::new();
    soon(silent.read_to_end(&mut rest)).await.ok();
    assert!(rest.is_empty(), "it is closed without a word");
}

#[tokio::test]
async fn connections_over_the_cap_are_closed_at_once() {
    let mut traffic = traffic();
    traffic.max_connections = 1;
    let node = Node::start(traffic).await;
    let first = node.connect().await;
    assert_eq!(first.ask(call(WHO_AM_I)).await.code(), Some(Code::Ok));
    assert!(soon(node.tls()).await.is_err());
    drop(first);
    soon(async { while node.tls().await.is_err() {} }).await;
}

#[tokio::test]
async fn a_client_that_is_no_longer_believed_is_told_and_cut() {
    let node = Node::defaults().await;
    let client = node.connect().await;
    let mut stream = open(&client).await;
    node.trust.changes.send_modify(|changes| *changes += 1);
    assert_eq!(client.ask(call(WHO_AM_I)).await.code(), Some(Code::Ok), "it is still believed");

    node.trust.believed.store(false, Ordering::SeqCst);
    node.trust.changes.send_modify(|changes| *changes += 1);
    let begin = Instant::now();
    let cut = next(&mut stream).await;
    assert!(cut.is_none_or(|end| end.is_err()));
    assert!(begin.elapsed() < Duration::from_secs(3));
    assert!(soon(client.connection).await.is_ok());
}
