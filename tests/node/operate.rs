//! An operator's tools against a running node: what they tell, to whom, and
//! what they must never hold.

use std::collections::BTreeMap;
use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::Value;
use simpul::proto::chat::v1::SendMessageRequest;
use simpul::proto::chat::v1::chat_service_client::ChatServiceClient;
use tonic::Code;

use crate::pay::{process, to_toko};
use crate::support::{Node, eventually, with_token};
use crate::talk::room;

const OPERATOR: [&str; 4] = ["--as", "ana", "--role", "operator"];

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Runs a command as an operator, which must succeed, as JSON.
fn operator(node: &Node, args: &[&str]) -> Value {
    json(&node.ok(&[args, &OPERATOR, &["--output", "json"]].concat()))
}

/// The files of a bundle, by path.
fn unpacked(bytes: &[u8]) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(GzDecoder::new(bytes));
    let entries = archive.entries().expect("an archive");
    let text = |entry: std::io::Result<tar::Entry<'_, GzDecoder<&[u8]>>>| {
        let mut entry = entry.expect("an entry");
        let mut text = String::new();
        entry.read_to_string(&mut text).expect("UTF-8");
        (entry.path().expect("a path").display().to_string(), text)
    };
    entries.map(text).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_explained_without_its_text() {
    let node = Node::start();
    let channel = node.channel().await;
    let alice = node.token("alice", &[]);
    room(channel.clone(), &alice, "lobby", &["bob"]).await;
    let mut chat = ChatServiceClient::new(channel);
    let send = SendMessageRequest {
        room_id: "lobby".into(),
        client_message_id: "m-17".into(),
        body: "kenari 4111 1111 1111 1111".into(),
        reply_to: 1,
    };
    let sent = chat.send_message(with_token(send, &alice)).await.expect("durable").into_inner();
    let seq = sent.seq.to_string();

    let told = operator(&node, &["explain", "message", "lobby", &seq]);
    let text = |key: &str| told[key].as_str().unwrap_or_default().to_owned();
    assert_eq!((text("kind"), text("sender")), ("TEXT".into(), "user/alice@dev.simpul".into()));
    assert_eq!(text("client_message_id"), "m-17");
    assert_eq!((&told["redactions"], &told["reply_to"]), (&1.into(), &1.into()));
    assert!(told["body_bytes"].as_u64() > Some(6) && !told.to_string().contains("kenari"));
    assert!(text("committed_at") < text("key_kept_until"), "{told}");
    let readers: Vec<_> = told["readers"].as_array().expect("a list").iter().collect();
    assert_eq!(readers.len(), 2);
    assert_eq!(readers[1]["member"], "user/bob@dev.simpul");
    let place = &told["placement"];
    assert_eq!((&place["owner"], &place["in_memory"]), (&node.info["node_id"], &true.into()));
    assert!(place["commit_no"].as_u64() > Some(1), "{place}");

    for by_id in [&["--sender", "alice"][..], &[]] {
        let args = [&["explain", "message", "lobby", "m-17"], by_id].concat();
        assert_eq!(operator(&node, &args)["seq"], told["seq"]);
    }
    let text = node.ok(&[&["explain", "message", "lobby", &seq], &OPERATOR[..]].concat());
    assert!(text.contains("not shown") && text.contains("MAY READ IT"), "{text}");

    for (args, exit) in [
        (&["explain", "message", "lobby", "99"][..], 1),
        (&["explain", "message", "nowhere", "1"], 1),
        (&["explain", "message", "lobby", "m-17", "--sender", "bob"], 1),
        (&["explain", "message", "NO ROOM", "1"], 64),
        (&["explain", "message", "lobby", "4111111111111111", "--by-id"], 64),
    ] {
        let output = node.cli(&[args, &OPERATOR].concat());
        assert_eq!(output.status.code(), Some(exit), "{args:?}: {output:?}");
    }
    let customer = node.cli(&["explain", "message", "lobby", &seq, "--as", "alice"]);
    assert_eq!(customer.status.code(), Some(77), "its own sender has not the role");

    eventually("the audit log", async || {
        let log = std::fs::read_to_string(node.dir().join("audit.log")).unwrap_or_default();
        let line = log.lines().map(json).find(|line| {
            line["method"].as_str().is_some_and(|it| it.ends_with("/ExplainMessage"))
        })?;
        assert_eq!(line["subject"], format!("message lobby {seq}"));
        assert_eq!(line["principal"], "user/ana@dev.simpul");
        log.contains("RoleMissing").then_some(()).or(log.contains("ROLE_MISSING").then_some(()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_is_explained_from_its_charge_to_its_refund() {
    let node = Node::start();
    let pay = ["pay", "--as", "alice", "--to", "toko", "--amount", "IDR 50", "--output", "json"];
    let rest = ["--method", "sandbox_ok", "--key", "order-77", "--description", "kenari"];
    let paid = json(&node.ok(&[&pay[..], &rest].concat()));
    let id = paid["payment_id"].as_str().expect("an id");
    node.ok(&["payment", "refund", id, "--as", "toko", "--key", "back-1"]);

    let told = operator(&node, &["explain", "payment", id]);
    assert_eq!((&told["status"], &told["waiting"]), (&"REFUNDED".into(), &Value::Array(vec![])));
    assert!(!told.to_string().contains("kenari"));
    let kinds: Vec<_> = told["operations"].as_array().expect("a list").iter().collect();
    let kinds: Vec<_> = kinds.iter().map(|o| (o["kind"].as_str(), o["status"].as_str())).collect();
    let done = Some("DONE");
    assert_eq!(kinds, [(Some("CHARGE"), done), (Some("REFUND"), done)]);
    let mut posted: Vec<_> = told["postings"].as_array().expect("a list").iter().collect();
    assert_eq!(posted.len(), 10, "five movements, two sides each: {told}");
    let sum: i64 = posted.iter().filter_map(|p| p["amount"]["minor_units"].as_i64()).sum();
    assert_eq!(sum, 0);
    posted.retain(|p| p["account"] == "user/toko@dev.simpul");
    assert_eq!(posted.last().expect("an entry")["balance_after"], 0);
    let history: Vec<_> = told["history"].as_array().expect("a list").iter().collect();
    let times: Vec<_> = history.iter().map(|event| event["at"].as_str()).collect();
    assert!(times.is_sorted(), "{history:?}");
    assert_eq!(history[0]["what"], "the payment was recorded");
    assert_eq!(history.last().expect("an event")["what"], "the payment is REFUNDED");

    for (key, account) in [("order-77", "alice"), ("back-1", "toko")] {
        let found = operator(&node, &["explain", "payment", key, "--account", account]);
        assert_eq!(found["payment_id"], id);
    }
    let text = node.ok(&[&["explain", "payment", id], &OPERATOR[..]].concat());
    assert!(text.contains("nothing is left to be done"), "{text}");
    for (args, exit) in [
        (&["explain", "payment", "order-77"][..], 64),
        (&["explain", "payment", "order-77", "--account", "bob"], 1),
        (&["explain", "payment", "0199aa00-5c1b-7e33-8a56-0d5c5b8f4a01"], 1),
    ] {
        assert_eq!(node.cli(&[args, &OPERATOR].concat()).status.code(), Some(exit), "{args:?}");
    }
    let customer = node.cli(&["explain", "payment", id, "--as", "alice"]);
    assert_eq!(customer.status.code(), Some(77));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_that_waits_says_why_and_in_which_trace() {
    let node = Node::start();
    let channel = node.channel().await;
    let alice = node.token("alice", &[]);
    let paid = process(&channel, &alice, to_toko("k", "sandbox_pending")).await.expect("a payment");
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let mut pay = with_token(to_toko("k2", "sandbox_requires_action"), &alice);
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    pay.metadata_mut().insert("traceparent", parent.parse().expect("ASCII"));
    let mut payments =
        simpul::proto::payment::v1::payment_service_client::PaymentServiceClient::new(channel);
    let asked = payments.process_payment(pay).await.expect("a payment").into_inner();
    let asked = asked.payment.expect("a payment").payment_id;

    let told = operator(&node, &["explain", "payment", &paid.payment_id]);
    let waiting = &told["waiting"][0];
    assert_eq!((&told["status"], &waiting["task"]), (&"PENDING".into(), &"DRIVE".into()));
    assert!(waiting["why"].as_str().expect("words").contains("decides later"), "{waiting}");
    let told = operator(&node, &["explain", "payment", &asked]);
    assert_eq!(told["waiting"][0]["trace_id"], trace, "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_holds_what_the_node_knows_and_nothing_that_was_written() {
    let node = Node::start();
    let channel = node.channel().await;
    let alice = node.token("alice", &[]);
    room(channel.clone(), &alice, "lobby", &["bob"]).await;
    let mut chat = ChatServiceClient::new(channel.clone());
    let send = SendMessageRequest {
        room_id: "lobby".into(),
        client_message_id: "m".into(),
        body: "kenari-in-a-body".into(),
        reply_to: 0,
    };
    chat.send_message(with_token(send, &alice)).await.expect("durable");
    let method = "sandbox_ok:kenari-in-a-method";
    process(&channel, &alice, to_toko("k", method)).await.expect("a payment");
    let wrong = "kenari-in-a-wrong-token";
    let refused = node.cli(&["room", "list", "--token", wrong]);
    assert_eq!(refused.status.code(), Some(77));

    let file = node.dir().join("bundle.tar.gz");
    let name = file.to_str().expect("UTF-8");
    let made = operator(&node, &["debug", "bundle", "--out", name]);
    let bytes = std::fs::read(&file).expect("a file");
    assert_eq!(made["bytes"], bytes.len());
    use std::os::unix::fs::PermissionsExt;
    let mode = file.metadata().expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = node.cli(&[&["debug", "bundle", "--out", name], &OPERATOR[..]].concat());
    assert_eq!(again.status.code(), Some(64), "nothing is overwritten");

    let files = unpacked(&bytes);
    let folder = format!("simpul-{}", node.info["node_id"].as_str().expect("a name"));
    let part = |name: &str| files[&format!("{folder}/{name}")].clone();
    let object = |name: &str| json(&part(name));
    assert_eq!(object("about.json")["release"], env!("CARGO_PKG_VERSION"));
    assert_eq!(object("health.json")["ready"], true);
    let settings = object("configuration.json");
    let store = settings.as_array().expect("a list").iter().find(|s| s["key"] == "store.url");
    assert_eq!(store.expect("the key")["value"], "********");
    let rooms = object("rooms.json");
    assert_eq!(rooms["rooms"][0]["room"], "lobby");
    let tasks = object("tasks.json");
    let owner =
        tasks["tasks"].as_array().expect("a list").iter().find(|t| t["name"] == "room owner");
    assert_eq!(owner.expect("the task")["running"], 1);
    assert_eq!(object("cluster.json")["nodes"][0]["node_id"], node.info["node_id"]);
    assert!(part("metrics.txt").contains("simpul_"), "metrics");
    assert_eq!(object("payments.json")["outbox_rows"], 0);
    // A development node warns of itself: the newest warnings are kept.
    assert!(part("recent.jsonl").lines().map(json).any(|line| line["level"] == "WARN"));

    let ca = std::fs::read_to_string(node.dir().join("dev/ca-key.pem")).expect("a key");
    let key = ca.lines().nth(1).expect("base64");
    for (name, text) in &files {
        for planted in ["kenari", alice.as_str(), key] {
            assert!(!text.contains(planted), "{planted} in {name}");
        }
    }
    let customer = node.cli(&["debug", "bundle", "--out", "-", "--as", "alice"]);
    assert_eq!(customer.status.code(), Some(77));
    let all = node.dir().join("all.tar.gz");
    let all = all.to_str().expect("UTF-8");
    assert_eq!(operator(&node, &["debug", "bundle", "--all", "--out", all])["nodes"], 1);
    assert!(unpacked(&std::fs::read(all).expect("a file")).len() == files.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_level_changes_while_running_and_comes_back() {
    let node = Node::start_with(&[("SIMPUL_TELEMETRY__LOG", "info")]);
    let logged = |what: &str| {
        let log = std::fs::read_to_string(node.dir().join("node.log")).expect("a log");
        log.lines().filter(|line| line.contains(what)).count()
    };
    // A denied call is told at debug alone.
    let denied = || {
        let output = node.cli(&["cluster", "status", "--as", "alice"]);
        assert_eq!(output.status.code(), Some(77));
    };
    assert_eq!(operator(&node, &["debug", "log-level"])["directive"], "info");
    denied();
    assert_eq!(logged("call denied"), 0);
    let set = ["debug", "log-level", "info,simpul::security=debug", "--for", "1h"];
    let level = operator(&node, &set);
    assert_eq!(level["directive"], "info,simpul::security=debug");
    assert!(level["until"].is_string() && level["configured"] == "info", "{level}");
    denied();
    eventually("a line at debug", async || (logged("call denied") == 1).then_some(())).await;
    assert_eq!(operator(&node, &["debug", "log-level", "--reset"])["directive"], "info");
    denied();
    assert_eq!(logged("call denied"), 1);
    operator(&node, &["debug", "log-level", "debug", "--for", "1s"]);
    eventually("it comes back", async || {
        (operator(&node, &["debug", "log-level"])["until"].is_null()).then_some(())
    })
    .await;
    assert_eq!(operator(&node, &["debug", "log-level"])["directive"], "info");

    for bad in ["trace", "simpul[span]=debug", "debug,", "h2=trace"] {
        let output = node.cli(&[&["debug", "log-level", bad], &OPERATOR[..]].concat());
        assert_eq!(output.status.code(), Some(64), "{bad}: {output:?}");
    }
    for time in ["0s", "25h"] {
        let args = ["debug", "log-level", "debug", "--for", time];
        assert_eq!(node.cli(&[&args, &OPERATOR[..]].concat()).status.code(), Some(64), "{time}");
    }
    let customer = node.cli(&["debug", "log-level", "debug", "--as", "alice"]);
    assert_eq!(customer.status.code(), Some(77));
    let (status, _) = node.admin("/log-level");
    assert_eq!(status, 404, "the admin listener changes nothing");
    let log = std::fs::read_to_string(node.dir().join("audit.log")).expect("a log");
    let subject = "log level info,simpul::security=debug";
    assert!(
        log.lines().any(|line| line.contains("SetLogLevel") && line.contains(subject)),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_names_the_nodes_own_functions_and_there_is_one_at_a_time() {
    let node = Node::start();
    let channel = node.channel().await;
    let (alice, ana) = (node.token("alice", &[]), node.token("ana", &["operator"]));
    room(channel.clone(), &alice, "lobby", &[]).await;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let busy = async {
        let mut n = 0;
        let mut chat = ChatServiceClient::new(channel.clone());
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            n += 1;
            let send = SendMessageRequest {
                room_id: "lobby".into(),
                client_message_id: format!("m-{n}"),
                body: "kenari".into(),
                reply_to: 0,
            };
            chat.send_message(with_token(send, &alice)).await.expect("durable");
        }
        n
    };
    let profile = async {
        let mut operator =
            simpul::proto::operate::v1::operator_service_client::OperatorServiceClient::new(
                node.channel().await,
            );
        let request = |seconds| simpul::proto::operate::v1::ProfileCpuRequest {
            duration: Some(prost_types::Duration { seconds, nanos: 0 }),
            frequency: 500,
        };
        let mut second = operator.clone();
        let (first, refused) = tokio::join!(
            // The other one may come first.
            eventually("a profile", async || {
                operator.profile_cpu(with_token(request(3), &ana)).await.ok()
            }),
            eventually("another is refused meanwhile", async || {
                let asked = second.profile_cpu(with_token(request(1), &ana)).await;
                asked.err().filter(|status| status.code() == Code::ResourceExhausted)
            }),
        );
        assert!(refused.message().contains("another profile"), "{refused}");
        let mut stream = first.into_inner();
        let mut bytes = Vec::new();
        while let Some(part) = stream.message().await.expect("a part") {
            bytes.extend(part.chunk);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        bytes
    };
    let (sent, bytes) = tokio::join!(busy, profile);
    assert!(sent > 0);
    let mut decoded = Vec::new();
    GzDecoder::new(bytes.as_slice()).read_to_end(&mut decoded).expect("gzip");
    let text = String::from_utf8_lossy(&decoded);
    for part in ["simpul::", "nanoseconds", "tokio"] {
        assert!(text.contains(part), "{part} is not in {} bytes", decoded.len());
    }
    assert!(!text.contains("kenari"), "what is said is in the profile");
}
