//! What is too much: each bound, small, on a real node, and the reason that
//! names it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use simpul::proto::chat::v1::chat_response::Frame as Tell;
use simpul::proto::chat::v1::join::From;
use simpul::proto::identity::v1::WhoAmIRequest;
use simpul::proto::identity::v1::identity_service_client::IdentityServiceClient;
use simpul::proto::payment::v1::ProcessPaymentRequest;
use simpul::proto::payment::v1::payment_service_client::PaymentServiceClient;
use simpul::proto::transaction::v1::GetTransactionHistoryRequest;
use simpul::proto::transaction::v1::transaction_service_client::TransactionServiceClient;
use tokio::io::AsyncReadExt;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::pay::{process, to_toko};
use crate::support::{LONG, Node, eventually, with_token};
use crate::talk::{Session, room};

fn reason(status: &Status) -> String {
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("no reason: {status:?}"));
    assert_eq!(info.domain, "simpul");
    info.reason
}

async fn who_am_i(channel: &Channel, token: &str) -> Result<(), Status> {
    let mut client = IdentityServiceClient::new(channel.clone());
    client.who_am_i(with_token(WhoAmIRequest {}, token)).await.map(|_| ())
}

/// The node's own answer to a call with a deadline, which a client of gRPC that
/// gives up would not wait for.
async fn asked(node: &Node, token: &str, timeout: &str) -> Status {
    let mut raw = crate::raw::connect(node).await;
    let request = crate::raw::call(crate::raw::WHO_AM_I, token).header("grpc-timeout", timeout);
    let request = request.body(()).expect("a request");
    let (response, mut body) = raw.send_request(request, false).expect("sent");
    body.send_data(Bytes::from_static(&[0; 5]), true).expect("sent");
    let response = tokio::time::timeout(LONG, response).await.expect("in time").expect("an answer");
    Status::from_header_map(response.headers()).expect("a status in the headers")
}

type History = tonic::Streaming<simpul::proto::transaction::v1::GetTransactionHistoryResponse>;

async fn follow(channel: &Channel, token: &str, limit: Duration) -> Result<History, Status> {
    let request = GetTransactionHistoryRequest { follow: true, ..Default::default() };
    let mut request = with_token(request, token);
    request.set_timeout(limit);
    let mut client = TransactionServiceClient::new(channel.clone());
    Ok(client.get_transaction_history(request).await?.into_inner())
}

/// A gauge or counter on the admin listener.
fn metric(node: &Node, line: &str) -> u64 {
    let (_, text) = node.admin("/metrics");
    let found = text.lines().find_map(|known| known.strip_prefix(line)?.trim().parse().ok());
    found.unwrap_or_else(|| panic!("no {line} in\n{text}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_principal_has_its_rate_and_its_streams_and_others_have_theirs() {
    let node = Node::start_with(&[
        ("SIMPUL_TRAFFIC__RATE_PER_PRINCIPAL", "1"),
        ("SIMPUL_TRAFFIC__BURST_PER_PRINCIPAL", "4"),
        ("SIMPUL_TRAFFIC__MAX_STREAMS_PER_PRINCIPAL", "1"),
    ]);
    let (alice, bob) = (node.token("alice", &[]), node.token("bob", &[]));
    let channel = node.channel().await;
    let _held = follow(&channel, &alice, Duration::from_secs(60)).await.expect("the first");
    let second = follow(&channel, &alice, Duration::from_secs(60)).await.expect_err("the second");
    assert_eq!(
        (second.code(), reason(&second).as_str()),
        (Code::ResourceExhausted, "TOO_MANY_STREAMS")
    );
    let limited = loop {
        if let Err(limited) = who_am_i(&channel, &alice).await {
            break limited;
        }
    };
    assert_eq!(
        (limited.code(), reason(&limited).as_str()),
        (Code::ResourceExhausted, "RATE_LIMITED")
    );
    assert!(limited.get_details_retry_info().is_some(), "no RetryInfo");
    who_am_i(&channel, &bob).await.expect("bob has his own share");
    let health = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
    health.expect("probes are not limited");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_has_its_places_and_sheds_what_cannot_have_one_in_time() {
    let node = Node::start_with(&[
        ("SIMPUL_TRAFFIC__MAX_CONCURRENT_CALLS", "1"),
        ("SIMPUL_TRAFFIC__MAX_WAITING_CALLS", "1"),
        ("SIMPUL_TRAFFIC__MAX_WAIT", "1s"),
        ("SIMPUL_TRAFFIC__MAX_CONCURRENT_STREAMS", "1"),
        ("SIMPUL_PAYMENT__PROVIDER_TIMEOUT", "20s"),
    ]);
    let alice = node.token("alice", &[]);
    let channel = node.channel().await;
    // Holds the only place: the provider is never reached.
    let (held, token) = (channel.clone(), alice.clone());
    let holder = simpul::task::spawn("holder", async move {
        process(&held, &token, to_toko("held", "sandbox_unreachable")).await
    });
    eventually("the place is taken", async || {
        (metric(&node, "simpul_traffic_calls ") == 1).then_some(())
    })
    .await;
    let (one, other) = tokio::join!(who_am_i(&channel, &alice), who_am_i(&channel, &alice));
    let mut refused = [one, other].map(|answer| {
        let status = answer.expect_err("there is no place");
        assert!(status.get_details_retry_info().is_some(), "no RetryInfo");
        (reason(&status), status.code())
    });
    refused.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(refused[0], ("CONCURRENCY_LIMIT".to_owned(), Code::ResourceExhausted));
    assert_eq!(refused[1], ("OVERLOADED".to_owned(), Code::Unavailable));
    // The caller's own time is shorter than the queue's.
    let ended = asked(&node, &alice, "100m").await;
    assert_eq!(
        (ended.code(), reason(&ended).as_str()),
        (Code::DeadlineExceeded, "DEADLINE_EXCEEDED")
    );
    holder.abort();

    let _stream = follow(&channel, &alice, Duration::from_secs(60)).await.expect("the only one");
    let second = follow(&channel, &alice, Duration::from_secs(60)).await.expect_err("one more");
    assert_eq!(reason(&second), "CONCURRENCY_LIMIT");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_ends_calls_and_streams_with_its_reason() {
    let node = Node::start();
    let alice = node.token("alice", &[]);
    let channel = node.channel().await;
    let began = Instant::now();
    let mut stream = follow(&channel, &alice, Duration::from_millis(700)).await.expect("opens");
    let ended = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended as if it were complete"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::DeadlineExceeded, "{ended:?}");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_and_headers_have_their_sizes() {
    let node = Node::start_with(&[
        ("SIMPUL_TRAFFIC__MAX_HEADER_BYTES", "4096"),
        ("SIMPUL_CHAT__MAX_BODY_BYTES", "1000"),
    ]);
    let alice = node.token("alice", &[]);
    let channel = node.channel().await;
    let large =
        ProcessPaymentRequest { description: "x".repeat(70_000), ..to_toko("large", "sandbox_ok") };
    let refused = process(&channel, &alice, large).await.expect_err("70 kB");
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::OutOfRange, "MESSAGE_TOO_LARGE")
    );

    let mut request = with_token(WhoAmIRequest {}, &alice);
    request.metadata_mut().insert("x-large", "x".repeat(5_000).parse().expect("ASCII"));
    let refused = IdentityServiceClient::new(channel.clone()).who_am_i(request).await;
    let refused = refused.expect_err("5 kB of headers");
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::ResourceExhausted, "HEADERS_TOO_LARGE")
    );
    who_am_i(&channel, &alice).await.expect("the connection lives on");

    // A chat body over its bound fails alone; the stream lives on.
    room(channel.clone(), &alice, "r", &[]).await;
    let mut session = Session::join(channel, &alice, "r", From::Latest(true)).await;
    session.send("r", "large", &"x".repeat(1_001)).await;
    let Tell::Failed(failed) = session.next().await else { panic!("it was taken") };
    assert_eq!(failed.client_message_id, "large");
    session.send("r", "small", "x").await;
    assert_eq!(session.sent().await.client_message_id, "small");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_has_its_streams_and_others_go_on() {
    let node = Node::start_with(&[("SIMPUL_TRAFFIC__MAX_STREAMS_PER_CONNECTION", "2")]);
    let alice = node.token("alice", &[]);
    let channel = node.channel().await;
    let long = Duration::from_secs(60);
    let first = follow(&channel, &alice, long).await.expect("the first");
    let _second = follow(&channel, &alice, long).await.expect("the second");
    // SETTINGS told the client: it keeps the third back until one has ended.
    let mut third = Box::pin(who_am_i(&channel, &alice));
    let kept = tokio::time::timeout(Duration::from_millis(300), third.as_mut()).await;
    assert!(kept.is_err(), "a third stream was opened");
    who_am_i(&node.channel().await, &alice).await.expect("another connection");
    drop(first);
    tokio::time::timeout(long, third).await.expect("in time").expect("there is a place again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_under_way_and_connections_are_bounded() {
    let node = Node::start_with(&[
        ("SIMPUL_TRAFFIC__MAX_HANDSHAKES", "2"),
        ("SIMPUL_TRAFFIC__HANDSHAKE_TIMEOUT", "500ms"),
        ("SIMPUL_TRAFFIC__MAX_CONNECTIONS", "3"),
    ]);
    let alice = node.token("alice", &[]);
    // They hold both places and say nothing, until their time is over.
    let mut silent = Vec::new();
    for _ in 0..2 {
        silent.push(tokio::net::TcpStream::connect(node.address("public")).await.expect("TCP"));
    }
    eventually("both places are held", async || {
        (metric(&node, "simpul_server_handshakes ") == 2).then_some(())
    })
    .await;
    let channel = node.channel().await;
    who_am_i(&channel, &alice).await.expect("after them");
    assert!(metric(&node, "simpul_server_handshake_failures_total{reason=\"timeout\"} ") >= 1);
    for stream in &mut silent {
        assert_eq!(stream.read(&mut [0; 1]).await.ok().unwrap_or(0), 0, "it was not closed");
    }

    let (second, third) = (node.channel().await, node.channel().await);
    who_am_i(&second, &alice).await.expect("the second");
    who_am_i(&third, &alice).await.expect("the third");
    let mut over = tokio::net::TcpStream::connect(node.address("public")).await.expect("TCP");
    assert_eq!(over.read(&mut [0; 1]).await.ok().unwrap_or(0), 0, "a fourth was served");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_much_is_wrong_the_details_stay_within_four_kibibytes() {
    let node = Node::start();
    let alice = node.token("alice", &[]);
    let channel = node.channel().await;
    let card = "4111 1111 1111 1111";
    let metadata = (0..400).map(|n| (format!("{n}-{}", "k".repeat(90)), card.to_owned()));
    let bad = ProcessPaymentRequest {
        idempotency_key: "x y".repeat(300),
        payee: "NOBODY".repeat(300),
        room_id: "NOT A ROOM".repeat(300),
        payment_method: "pm".repeat(300),
        description: "d".repeat(2_000),
        metadata: metadata.collect(),
        ..Default::default()
    };
    let refused = PaymentServiceClient::new(channel).process_payment(with_token(bad, &alice)).await;
    let refused = refused.expect_err("all of it is wrong");
    assert_eq!(reason(&refused), "INVALID_ARGUMENT");
    let named = refused.get_details_bad_request().expect("BadRequest").field_violations;
    assert!(named.iter().any(|violation| violation.field.starts_with("metadata")), "{named:?}");
    assert!(refused.details().len() <= 4096, "{} bytes", refused.details().len());
    assert!(!format!("{refused:?}").contains("4111"), "a card number is shown");
    assert!(refused.get_details_request_info().is_some(), "the trace is missing");
}
