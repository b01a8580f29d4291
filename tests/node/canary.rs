//! What must never be seen is planted everywhere, and then looked for in logs,
//! spans, metrics, error texts, the audit log and the database files.

use std::path::Path;
use std::time::Duration;

use prost::Message;
use rustix::process::Signal;
use simpul::proto::chat::v1::SendMessageRequest;
use simpul::proto::chat::v1::chat_service_client::ChatServiceClient;
use simpul::proto::payment::v1::ProcessPaymentRequest;

use crate::collector::Collector;
use crate::pay::{process, to_toko};
use crate::support::{Node, eventually, with_token};
use crate::talk::room;

const BODY: &str = "kenari-in-a-message-body";
const METHOD: &str = "kenari-in-a-method-token";
const CARD: &str = "4111111111111111";
const CARD_SPACED: &str = "4111 1111 1111 1111";

/// The names of the planted values that the bytes contain.
fn seen(bytes: &[u8], planted: &[(&'static str, String)]) -> Vec<&'static str> {
    let holds = |value: &str| bytes.windows(value.len()).any(|window| window == value.as_bytes());
    planted.iter().filter(|(_, value)| holds(value)).map(|(name, _)| *name).collect()
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_token_card_number_or_body_is_seen_anywhere() {
    let (collector, url) = Collector::listen().await;
    let mut node = Node::start_with(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &url),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("SIMPUL_TELEMETRY__LOG", "trace"),
    ]);
    let alice = node.token("alice", &[]);
    let channel = node.channel().await;
    let mut planted = vec![
        ("token", alice.clone()),
        ("body", BODY.to_owned()),
        ("method", METHOD.to_owned()),
        ("card", CARD.to_owned()),
        ("card with spaces", CARD_SPACED.to_owned()),
    ];

    room(channel.clone(), &alice, "r", &[]).await;
    let mut chat = ChatServiceClient::new(channel.clone());
    let send = |id: &str, body: String| SendMessageRequest {
        room_id: "r".to_owned(),
        client_message_id: id.to_owned(),
        body,
        reply_to: 0,
    };
    chat.send_message(with_token(send("a", BODY.to_owned()), &alice)).await.expect("durable");
    let card = format!("take {CARD} or {CARD_SPACED}");
    chat.send_message(with_token(send("b", card.clone()), &alice)).await.expect("durable");
    let mut errors = Vec::new();
    for method in ["sandbox_ok", "sandbox_declined", "sandbox_pending", "sandbox_lost_reply"] {
        let pay = to_toko(method, &format!("{method}:{METHOD}"));
        process(&channel, &alice, pay).await.expect("a payment");
    }
    for bad in [
        ProcessPaymentRequest { description: card.clone(), ..to_toko("c1", "sandbox_ok") },
        to_toko("c2", CARD),
        to_toko("c3", &format!("unknown:{METHOD}")),
        ProcessPaymentRequest { payee: CARD.to_owned(), ..to_toko("c4", "sandbox_ok") },
    ] {
        if let Err(status) = process(&channel, &alice, bad).await {
            errors.extend(format!("{status:?}").into_bytes());
            errors.extend(status.details());
        }
    }
    let spoiled = format!("{alice}spoiled");
    let send = chat.send_message(with_token(send("d", BODY.to_owned()), &spoiled)).await;
    errors.extend(format!("{:?}", send.expect_err("not believed")).into_bytes());

    eventually("spans", async || (collector.spans().len() > 20).then_some(())).await;
    let (_, metrics) = node.admin("/metrics");
    assert!(metrics.len() > 1_000);
    node.signal(Signal::TERM);
    assert_eq!(node.wait(Duration::from_secs(30)), Some(0));

    let spans: Vec<u8> = collector.spans().iter().flat_map(Message::encode_to_vec).collect();
    assert_eq!(seen(&spans, &planted), [""; 0], "in spans");
    assert_eq!(seen(metrics.as_bytes(), &planted), [""; 0], "in metrics");
    assert_eq!(seen(&errors, &planted), [""; 0], "in errors");

    let (mut logs, mut databases) = (0, 0);
    for key in ["dev/token-key.pem", "dev/server-key.pem", "dev/ca-key.pem"] {
        let pem = std::fs::read_to_string(node.dir().join(key)).expect(key);
        let secret = pem.lines().nth(1).expect("base64").to_owned();
        planted.push(("key", secret));
    }
    for path in files(node.dir()) {
        let bytes = std::fs::read(&path).expect("a file");
        let name = path.strip_prefix(node.dir()).expect("inside").to_string_lossy().into_owned();
        if name.starts_with("dev/") {
            continue; // Where the keys live.
        }
        let mut found = seen(&bytes, &planted);
        if name.contains(".db") {
            databases += 1;
            found.retain(|what| *what != "body"); // Where bodies live.
        }
        logs += usize::from(name.ends_with(".log"));
        assert_eq!(found, [""; 0], "in {name}");
    }
    assert!(logs >= 2 && databases >= 2, "{logs} logs and {databases} databases");
}
