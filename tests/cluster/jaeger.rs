//! The traces as a real Jaeger has them: one message over three nodes, and one
//! payment from its call to the books.
//!
//! `SIMPUL_TEST_JAEGER` names the program (Jaeger 2, all in one). What is looked
//! for here, the tests of the receiver in this process look for always.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use simpul::proto::chat::v1::SendMessageRequest;
use simpul::proto::chat::v1::chat_service_client::ChatServiceClient;
use simpul::proto::chat::v1::join::From;
use simpul::proto::money::v1::Money;
use simpul::proto::payment::v1::ProcessPaymentRequest;
use simpul::proto::payment::v1::payment_service_client::PaymentServiceClient;

use crate::cluster::Cluster;
use crate::collector::{PARENT, TRACE, traced};
use crate::support::{eventually, not_run};
use crate::talk::{Session, room};

/// A running Jaeger that keeps its traces in memory.
struct Jaeger {
    child: Child,
    otlp: String,
    api: String,
    _dir: tempfile::TempDir,
}

impl Drop for Jaeger {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that is free now: Jaeger does not say which it took.
fn address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").to_string()
}

impl Jaeger {
    async fn start() -> Option<Self> {
        let Ok(program) = std::env::var("SIMPUL_TEST_JAEGER") else {
            not_run("traces in a real Jaeger: SIMPUL_TEST_JAEGER names no program");
            return None;
        };
        let (otlp, api, grpc) = (address(), address(), address());
        let config = json!({
            "service": {
                "extensions": ["jaeger_storage", "jaeger_query"],
                "pipelines": {
                    "traces": { "receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"] },
                },
                "telemetry": { "metrics": { "level": "none" } },
            },
            "extensions": {
                "jaeger_storage": { "backends": { "kept": { "memory": { "max_traces": 10_000 } } } },
                "jaeger_query": {
                    "storage": { "traces": "kept" },
                    "grpc": { "endpoint": grpc },
                    "http": { "endpoint": api },
                },
            },
            "receivers": { "otlp": { "protocols": { "grpc": { "endpoint": otlp } } } },
            "exporters": { "jaeger_storage_exporter": { "trace_storage": "kept" } },
        });
        let dir = tempfile::tempdir().expect("a directory");
        // YAML takes JSON as it is.
        let file = dir.path().join("jaeger.yaml");
        std::fs::write(&file, config.to_string()).expect("written");
        let child = Command::new(program)
            .arg(format!("--config=file:{}", file.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("jaeger starts");
        let jaeger = Self { child, otlp, api, _dir: dir };
        eventually("Jaeger answers", async || {
            TcpStream::connect(&jaeger.api).is_ok().then_some(())
        })
        .await;
        Some(jaeger)
    }

    /// The body of an answer. HTTP/1.0, so that it comes in one piece.
    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.api).expect("it listens");
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
    }

    /// The spans of the trace that callers begin; empty while there is none.
    fn spans(&self) -> Vec<Span> {
        let answer = self.get(&format!("/api/traces/{TRACE}"));
        let Ok(body) = serde_json::from_str::<Value>(&answer) else { return Vec::new() };
        let trace = &body["data"][0];
        let spans = trace["spans"].as_array().map(Vec::as_slice).unwrap_or_default();
        spans.iter().map(|span| Span::read(span, &trace["processes"])).collect()
    }
}

/// A span as Jaeger's API tells it.
#[derive(Debug, Clone)]
struct Span {
    id: String,
    parent: String,
    name: String,
    node: String,
}

impl Span {
    fn read(span: &Value, processes: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let parent = list(&span["references"]);
        let parent = parent.iter().find(|reference| reference["refType"] == "CHILD_OF");
        let process = &processes[text(&span["processID"])];
        let node = list(&process["tags"]);
        let node = node.iter().find(|tag| tag["key"] == "service.instance.id");
        Self {
            id: text(&span["spanID"]),
            parent: parent.map(|reference| text(&reference["spanID"])).unwrap_or_default(),
            name: text(&span["operationName"]),
            node: node.map(|tag| text(&tag["value"])).unwrap_or_default(),
        }
    }
}

/// The way of the first such span up to the caller's: names and nodes.
fn way(spans: &[Span], name: &str) -> Option<Vec<(String, String)>> {
    spans.iter().filter(|span| span.name == name).find_map(|first| {
        let (mut way, mut at) = (Vec::new(), first);
        loop {
            way.push((at.name.clone(), at.node.clone()));
            if at.parent == PARENT {
                return Some(way);
            }
            at = spans.iter().find(|span| span.id == at.parent)?;
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jaeger_has_the_whole_way_of_a_message_and_of_a_payment() {
    let Some(jaeger) = Jaeger::start().await else { return };
    let url = format!("http://{}", jaeger.otlp);
    let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "50")];
    let Some(cluster) = Cluster::start_with("traces in Jaeger", 3, &env).await else { return };
    let alice = cluster.token("alice", &[]);
    room(cluster.nodes[0].channel().await, &alice, "lobby", &[]).await;
    let owner = cluster.owner_of("lobby").await;
    let (sender, reader) = ((owner + 1) % 3, (owner + 2) % 3);
    let channel = cluster.nodes[reader].channel().await;
    let mut session = Session::join(channel, &alice, "lobby", From::Latest(true)).await;
    let channel = cluster.nodes[sender].channel().await;
    let mut client = ChatServiceClient::new(channel.clone());
    let send = |id: &str| SendMessageRequest {
        room_id: "lobby".to_owned(),
        client_message_id: id.to_owned(),
        body: "halo".to_owned(),
        reply_to: 0,
    };
    // After the first one the reader's node follows the room over the link.
    client.send_message(crate::support::with_token(send("first"), &alice)).await.expect("sent");
    assert_eq!(session.message().await.client_message_id, "first");
    client.send_message(traced(send("traced"), &alice)).await.expect("sent");
    assert_eq!(session.message().await.client_message_id, "traced");
    let mut payments = PaymentServiceClient::new(channel);
    let order = ProcessPaymentRequest {
        idempotency_key: "k".to_owned(),
        payee: "toko".to_owned(),
        amount: Some(Money { currency: "IDR".to_owned(), minor_units: 5_000_000 }),
        payment_method: "sandbox_ok".to_owned(),
        ..Default::default()
    };
    payments.process_payment(traced(order, &alice)).await.expect("paid");

    let node = |at: usize, name: &str| (name.to_owned(), format!("n{at}"));
    let message = [
        node(owner, "chat.order"),
        node(sender, "chat.send"),
        node(sender, "simpul.chat.v1.ChatService/SendMessage"),
    ];
    let durable = [node(owner, "chat.append"), node(owner, "chat.commit")];
    let payment = [
        node(sender, "payment.process"),
        node(sender, "simpul.payment.v1.PaymentService/ProcessPayment"),
    ];
    for (first, then) in [
        (&durable[..], &message[..]),
        (&[node(reader, "chat.deliver")], &message),
        (&[node(sender, "payment.submit")], &payment),
        (&[node(sender, "payment.record")], &payment),
    ] {
        let expected = [first, then].concat();
        eventually(&format!("in Jaeger: {expected:?}"), async || {
            (way(&jaeger.spans(), &expected[0].0)? == expected).then_some(())
        })
        .await;
    }
    cluster.end().await;
}
