//! The metrics that a node shows, and those that docs/telemetry.md promises.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpStream;
use std::process::{Command, Stdio};

use simpul::proto::chat::v1::SendMessageRequest;
use simpul::proto::chat::v1::chat_service_client::ChatServiceClient;
use simpul::proto::payment::v1::GetPaymentRequest;
use simpul::proto::payment::v1::payment_service_client::PaymentServiceClient;
use tonic::Request;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

use crate::support::{Node, eventually, not_run, with_token};
use crate::talk::room;

/// The names of the families; a counter's ends in `_total` in this format.
fn shown(node: &Node) -> BTreeSet<String> {
    let (status, text) = node.admin("/metrics");
    assert_eq!(status, 200);
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    families.map(|(name, _)| name.to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_of_metrics_is_what_a_node_shows() {
    let docs = include_str!("../../docs/telemetry.md");
    let written: BTreeSet<String> = docs
        .lines()
        .filter_map(|line| line.strip_prefix("| `simpul_")?.split_once('`'))
        .map(|(name, _)| format!("simpul_{name}"))
        .collect();
    let node = Node::start();
    // What has labels is shown once it has happened.
    let amount = ["--amount", "IDR 50000", "--method", "sandbox_ok"];
    node.ok(&[&["pay", "--as", "alice", "--to", "toko"], &amount[..]].concat());
    let stranger = node.cli(&["whoami", "--token", "not-a-token"]);
    assert!(!stranger.status.success(), "{stranger:?}");
    let mut plain = TcpStream::connect(node.address("public")).expect("it listens");
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
    std::fs::write(node.dir().join("dev/jwks.json"), "torn").expect("written");
    let all = eventually("everything in the table is shown", async || {
        let shown = shown(&node);
        written.is_subset(&shown).then_some(shown)
    });
    let all = all.await;
    let missing: Vec<_> = all.difference(&written).collect();
    assert!(missing.is_empty(), "not in docs/telemetry.md: {missing:?}");
}

/// What promtool has to say of what a node shows; it should have nothing.
pub fn lint(text: &str) {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        not_run("promtool check metrics: it is not on PATH");
        return;
    };
    let mut input = promtool.stdin.take().expect("a pipe");
    input.write_all(text.as_bytes()).expect("read");
    drop(input);
    let said = promtool.wait_with_output().expect("an end");
    let text = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    assert!(said.status.success() && text.is_empty(), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promtool_finds_nothing_to_complain_of() {
    let node = Node::start();
    let amount = ["--amount", "IDR 50000", "--method", "sandbox_ok"];
    node.ok(&[&["pay", "--as", "alice", "--to", "toko"], &amount[..]].concat());
    lint(&node.admin("/metrics").1);
}

/// The series of calls, chat, payments and the store, without their values.
fn series(node: &Node) -> BTreeSet<String> {
    let (_, text) = node.admin("/metrics");
    let ours = ["rpc", "chat", "payment", "store", "calls", "traffic"];
    let lines = text
        .lines()
        .filter(|line| ours.iter().any(|area| line.starts_with(&format!("simpul_{area}_"))));
    lines.filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| name.to_owned()).collect()
}

/// One user does a bit of everything, in a room of their own, and calls methods
/// that there are not.
async fn visit(node: &Node, channel: &Channel, name: &str) {
    let token = node.token(name, &[]);
    room(channel.clone(), &token, &format!("room-of-{name}"), &[]).await;
    let message = SendMessageRequest {
        room_id: format!("room-of-{name}"),
        client_message_id: name.to_owned(),
        body: "halo".to_owned(),
        reply_to: 0,
    };
    let mut chat = ChatServiceClient::new(channel.clone());
    chat.send_message(with_token(message, &token)).await.expect("durable");
    let unknown = GetPaymentRequest { payment_id: uuid::Uuid::now_v7().to_string() };
    let mut payments = PaymentServiceClient::new(channel.clone());
    payments.get_payment(with_token(unknown, &token)).await.expect_err("there is none");
    for path in [format!("/{name}.Service/Method"), format!("/simpul.chat.v1.ChatService/{name}")] {
        let mut client = tonic::client::Grpc::new(channel.clone());
        client.ready().await.expect("ready");
        let path = path.parse().expect("a path");
        let codec = ProstCodec::<(), ()>::default();
        let called = client.unary(Request::new(()), path, codec).await;
        assert_eq!(called.expect_err("no such method").code(), tonic::Code::Unimplemented);
    }
    node.cli(&["whoami", "--token", name]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_users_nor_rooms_nor_names_of_methods_make_series() {
    let node = Node::start();
    let channel = node.channel().await;
    visit(&node, &channel, "first").await;
    let before = series(&node);
    for n in 0..12 {
        visit(&node, &channel, &format!("planted{n}")).await;
    }
    let new: Vec<_> = series(&node).difference(&before).cloned().collect();
    assert!(new.is_empty() && before.len() > 100, "{} series, and new ones {new:?}", before.len());
    assert!(!node.admin("/metrics").1.contains("planted"));
}
