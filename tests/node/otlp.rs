//! Traces, as a real OTLP receiver gets them.

use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::trace::v1::Span;
use simpul::proto::chat::v1::chat_request::Frame as Ask;
use simpul::proto::chat::v1::chat_response::Frame as Tell;
use simpul::proto::chat::v1::chat_service_client::ChatServiceClient;
use simpul::proto::chat::v1::join::From;
use simpul::proto::chat::v1::{LeaveRoomRequest, Ping, SendMessageRequest};
use simpul::proto::payment::v1::ProcessPaymentRequest;
use simpul::proto::payment::v1::payment_service_client::PaymentServiceClient;
use tonic_types::StatusExt;

use crate::collector::{Collector, PARENT, TRACE, ancestry, attribute, traced};
use crate::pay::to_toko;
use crate::support::{Node, eventually, with_token};
use crate::talk::{Session, room};

/// Whether a span tells of what was asked of the store.
fn of_the_store(span: &Span) -> bool {
    attribute(span, "db.system.name").is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_payment_is_one_trace_from_the_caller_down_to_the_store_and_the_provider() {
    let (collector, url) = Collector::listen().await;
    let node = Node::start_with(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &url),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("OTEL_SERVICE_NAME", "simpul-under-test"),
    ]);
    let alice = node.token("alice", &[]);
    let channel = node.channel().await;
    let mut client = PaymentServiceClient::new(channel.clone());
    client.process_payment(traced(to_toko("k", "sandbox_ok"), &alice)).await.expect("paid");
    eventually("the whole chain", async || {
        let spans = collector.trace(TRACE);
        let chain = |known: &dyn Fn(&Span) -> bool| {
            let mut of_that_sort = spans.iter().filter(|span| known(span));
            of_that_sort.find_map(|span| ancestry(&spans, span, PARENT))
        };
        assert!(spans.iter().all(|span| collector.sent_by(span) == node.info["node_id"]));
        let store = chain(&of_the_store)?;
        let provider = chain(&|span| span.name == "payment.submit")?;
        let call = "simpul.payment.v1.PaymentService/ProcessPayment";
        let books = chain(&|span| span.name == "payment.record")?;
        for way in [&provider, &books] {
            assert_eq!(way.get(1).map(String::as_str), Some("payment.process"), "{way:?}");
        }
        let ends = [&store, &provider, &books].map(|way| way.last().map(String::as_str));
        (ends == [Some(call); 3]).then_some(())
    })
    .await;

    room(channel.clone(), &alice, "r", &[]).await;
    let send = SendMessageRequest {
        room_id: "r".to_owned(),
        client_message_id: "m".to_owned(),
        body: "halo".to_owned(),
        reply_to: 0,
    };
    ChatServiceClient::new(channel).send_message(traced(send, &alice)).await.expect("durable");
    eventually("the message's chain", async || {
        let spans = collector.trace(TRACE);
        let call = "simpul.chat.v1.ChatService/SendMessage";
        spans
            .iter()
            .filter(|span| of_the_store(span) || span.name == "chat.commit")
            .filter_map(|span| ancestry(&spans, span, PARENT))
            .any(|names| names.last().is_some_and(|name| name == call))
            .then_some(())
    })
    .await;
}

/// Each message of a stream has its own span, in the stream's trace and exported
/// while the stream lives; nothing lives as long as the stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_does_not_hold_its_messages_spans() {
    let (collector, url) = Collector::listen().await;
    let node = Node::start_with(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &url),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ]);
    let alice = node.token("alice", &[]);
    let channel = node.channel().await;
    room(channel.clone(), &alice, "r", &[]).await;
    let place = format!("00-{TRACE}-{PARENT}-01");
    let begun = Instant::now();
    let mut session = Session::open_traced(channel, &alice, &place).await.expect("a session");
    session.ask_join("r", From::Latest(true)).await;
    session.next().await;
    session.send("r", "m", "halo").await;
    session.sent().await;
    let call = "simpul.chat.v1.ChatService/Chat";
    eventually("the message's chain, while the stream is open", async || {
        let spans = collector.trace(TRACE);
        let commit = spans.iter().find(|span| span.name == "chat.commit")?;
        let names = ancestry(&spans, commit, PARENT)?;
        (names == ["chat.commit", "chat.send", call]).then_some(())
    })
    .await;
    // Idle, but for a sign of life; then it ends.
    const IDLE: Duration = Duration::from_secs(2);
    tokio::time::sleep_until((begun + IDLE).into()).await;
    session.ask(Ask::Ping(Ping { nonce: 1 })).await;
    while !matches!(session.next().await, Tell::Pong(_)) {}
    drop(session);
    let before = collector.spans().len();
    eventually("the stream's end", async || {
        (node.metric("simpul_chat_sessions") == 0.0 && collector.spans().len() > before)
            .then_some(())
    })
    .await;
    for span in collector.spans() {
        let length = Duration::from_nanos(span.end_time_unix_nano - span.start_time_unix_nano);
        assert!(length < IDLE / 2 && span.name != "task", "{} took {length:?}", span.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_not_there_blocks_nothing() {
    let node = Node::start_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")]);
    let alice = node.token("alice", &[]);
    let mut client = PaymentServiceClient::new(node.channel().await);
    let paid = client.process_payment(traced(to_toko("k", "sandbox_ok"), &alice));
    tokio::time::timeout(std::time::Duration::from_secs(5), paid)
        .await
        .expect("quick")
        .expect("paid");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_the_payment_goes_on_in_the_same_trace() {
    if !cfg!(feature = "fault") {
        crate::support::not_run(
            "the trace over a kill needs `--features fault`, as tests/run gives it",
        );
        return;
    }
    let (collector, url) = Collector::listen().await;
    let faults = tempfile::tempdir().expect("a directory");
    let hold = faults.path().join("payment.submitting.hold");
    std::fs::write(&hold, "").expect("a hold");
    let mut node = Node::start_with(&[
        ("SIMPUL_TEST_FAULT_DIR", faults.path().to_str().expect("UTF-8")),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &url),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ]);
    let alice = node.token("alice", &[]);
    let mut client = PaymentServiceClient::new(node.channel().await);
    let call = traced(to_toko("k", "sandbox_ok"), &alice);
    let paying = simpul::task::spawn("payer", async move { client.process_payment(call).await });
    eventually("it is being sent", async || {
        faults.path().join("payment.submitting").exists().then_some(())
    })
    .await;
    node.kill();
    let cut = paying.await.expect("no panic");
    assert!(cut.is_err(), "a killed node answered");
    std::fs::remove_file(&hold).expect("released");
    node.restart();
    eventually("the provider is asked in the trace of the caller", async || {
        let spans = collector.trace(TRACE);
        let asked = spans.iter().find(|span| {
            span.name == "payment.submit" && attribute(span, "payment.call") == Some("query")
        })?;
        let parent = spans.iter().find(|span| span.span_id == asked.parent_span_id)?;
        // Its own parent, the call's span, may have died with the process: the
        // link says that it is a further attempt at the same.
        let linked = parent.links.iter().any(|link| link.span_id == parent.parent_span_id);
        (parent.name == "payment.process" && linked).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_and_the_lines_of_its_payment_name_the_callers_trace() {
    let node = Node::start();
    let alice = node.token("alice", &[]);
    let mut client = PaymentServiceClient::new(node.channel().await);
    let refused = client.process_payment(traced(to_toko("", "sandbox_ok"), &alice)).await;
    let details = refused.expect_err("no key").get_error_details();
    let named = details.request_info().map(|info| info.request_id.as_str());
    assert_eq!(named, Some(TRACE));

    // What the worker says of it later, without an exporter too.
    let (bob, channel) = (node.token("bob", &[]), node.channel().await);
    room(channel.clone(), &bob, "r", &["alice"]).await;
    let named =
        ProcessPaymentRequest { room_id: "r".to_owned(), ..to_toko("k", "sandbox_pending") };
    client.process_payment(traced(named, &alice)).await.expect("pending");
    let leave = LeaveRoomRequest { room_id: "r".to_owned() };
    ChatServiceClient::new(channel).leave_room(with_token(leave, &alice)).await.expect("left");
    eventually("the line of the receipt that nobody takes", async || {
        let log = std::fs::read_to_string(node.dir().join("node.log")).expect("the log");
        let line = log.lines().find(|line| line.contains("does not take the receipt"))?;
        let line: serde_json::Value = serde_json::from_str(line).expect("an object a line");
        assert_eq!(line["trace_id"], TRACE);
        Some(())
    })
    .await;
}
