//! Clients that are none of ours: Python's grpcio, grpcurl, h2spec. tests/run
//! brings them; without one its test says that it was not run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::{Node, not_run};

/// A program that a variable names, or that stands on PATH.
fn tool(variable: &str, name: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).map(PathBuf::from);
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = named.or_else(|| {
        let mut files = std::env::split_paths(&paths).map(|folder| folder.join(name));
        files.find(|file| file.is_file())
    });
    if found.is_none() {
        not_run(&format!("{name}: not on PATH, and {variable} does not name it"));
    }
    found
}

fn ca(node: &Node) -> &str {
    node.info["ca_file"].as_str().expect("a file")
}

/// Runs a client that must succeed; what it printed.
fn run(command: &mut Command) -> String {
    let output = command.output().expect("the client starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {:?}\n{errors}", output.status);
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// A client in Python, with stubs made from proto/ by protoc.
struct Python<'a> {
    node: &'a Node,
    program: PathBuf,
}

impl Python<'_> {
    /// The objects that a command printed.
    fn ok(&self, token: &str, arguments: &[&str]) -> Vec<Value> {
        let client = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/client.py");
        let printed = run(Command::new(&self.program)
            .args([client, "--server", &self.node.address("public"), "--ca", ca(self.node)])
            .args(["--token", token])
            .args(arguments));
        printed.lines().map(|line| serde_json::from_str(line).expect("an object")).collect()
    }
}

#[test]
fn a_python_client_chats_pays_and_reads_its_history() {
    let Some(program) = std::env::var_os("SIMPUL_TEST_PYTHON").map(PathBuf::from) else {
        return not_run("the Python client: SIMPUL_TEST_PYTHON names no Python with grpcio");
    };
    let node = Node::start();
    let python = Python { node: &node, program };
    let (alice, bob) = (node.token("alice", &[]), node.token("bob", &[]));
    node.ok(&["room", "create", "lobby", "--as", "alice"]);
    node.ok(&["room", "add", "lobby", "bob", "--as", "alice"]);

    let shown = python.ok(&alice, &["chat", "lobby", "--send", "halo", "--send", "apa kabar"]);
    let sent = shown.iter().filter(|line| line["type"] == "sent").count();
    assert_eq!(sent, 2, "{shown:?}");
    let shown = python.ok(&bob, &["chat", "lobby", "--earliest", "--count", "2"]);
    let read: Vec<_> = shown.iter().filter(|line| line["type"] == "message").collect();
    let bodies: Vec<_> = read.iter().map(|line| line["body"].as_str().expect("text")).collect();
    assert_eq!(bodies, ["halo", "apa kabar"]);
    assert!(read.iter().all(|line| line["sender"] == "user/alice@dev.simpul"), "{read:?}");

    let pay = ["pay", "--to", "toko", "--minor-units", "5000000", "--method", "sandbox_ok"];
    let paid = python.ok(&alice, &pay);
    assert_eq!(paid[0]["status"], "SUCCEEDED");
    let history = python.ok(&alice, &["history"]);
    let spent: Vec<_> = history.iter().filter(|line| line["kind"] == "PAYMENT").collect();
    assert_eq!(spent.len(), 1, "{history:?}");
    assert_eq!(spent[0]["minor_units"], -5_000_000);
    assert_eq!(spent[0]["payment_id"], paid[0]["payment_id"]);
}

/// grpcurl, which knows the contracts by reflection alone.
struct Grpcurl<'a> {
    node: &'a Node,
    program: PathBuf,
    token: String,
    /// Services of which a method was called.
    called: BTreeSet<String>,
}

impl Grpcurl<'_> {
    fn run(&self, options: &[&str], what: &[&str]) -> String {
        run(Command::new(&self.program)
            .args(["-cacert", ca(self.node), "-max-time", "30"])
            .args(["-H", &format!("authorization: Bearer {}", self.token)])
            .args(options)
            .arg(self.node.address("public"))
            .args(what))
    }

    /// Calls a method; its answers, which must hold a text.
    fn call(&mut self, service: &str, method: &str, data: &str, expected: &str) -> String {
        let answers = self.run(&["-d", data], &[&format!("{service}/{method}")]);
        assert!(answers.contains(expected), "{service}/{method}: {answers}");
        self.called.insert(service.to_owned());
        answers
    }
}

#[test]
fn grpcurl_lists_describes_and_calls_every_service() {
    let Some(program) = tool("SIMPUL_TEST_GRPCURL", "grpcurl") else { return };
    let node = Node::start();
    let token = node.token("alice", &["customer", "merchant", "operator"]);
    let mut grpcurl = Grpcurl { node: &node, program, token, called: BTreeSet::new() };
    let listed = grpcurl.run(&[], &["list"]);
    let listed: BTreeSet<String> = listed.lines().map(str::to_owned).collect();
    for service in &listed {
        let described = grpcurl.run(&[], &["describe", service]);
        assert!(described.contains(&format!("{service} is a service")), "{described}");
        assert!(described.contains("rpc "), "{described}");
        let ours = service.starts_with("simpul.");
        assert_eq!(described.contains("(.simpul.auth.v1.access)"), ours, "{described}");
    }

    let all = "{\"list_services\": \"\"}";
    for reflection in
        ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"]
    {
        grpcurl.call(reflection, "ServerReflectionInfo", all, "simpul.chat.v1.ChatService");
    }
    grpcurl.call("grpc.health.v1.Health", "Check", "{}", "\"SERVING\"");
    let one = "{\"service\": \"simpul.chat.v1.ChatService\"}";
    grpcurl.call("grpc.health.v1.Health", "Check", one, "\"SERVING\"");
    let identity = "simpul.identity.v1.IdentityService";
    grpcurl.call(identity, "WhoAmI", "{}", "\"user/alice@dev.simpul\"");
    let cluster = "simpul.cluster.v1.ClusterService";
    grpcurl.call(cluster, "GetCluster", "{}", "\"NODE_STATE_LIVE\"");
    let operator = "simpul.operate.v1.OperatorService";
    grpcurl.call(operator, "GetLogLevel", "{}", "\"directive\"");
    chats(&mut grpcurl);
    pays(&mut grpcurl);
    assert_eq!(grpcurl.called, listed, "every service is called");
}

fn chats(grpcurl: &mut Grpcurl<'_>) {
    let service = "simpul.chat.v1.ChatService";
    grpcurl.call(service, "CreateRoom", "{\"room_id\": \"lobby\"}", "ROOM_ROLE_OWNER");
    let send = "{\"room_id\": \"lobby\", \"client_message_id\": \"m1\", \"body\": \"halo\"}";
    grpcurl.call(service, "SendMessage", send, "\"seq\": \"2\"");
    let join = "{\"join\": {\"room_id\": \"lobby\", \"earliest\": true}}";
    let session = format!("{join} {{\"send\": {}}}", send.replace("m1", "m2"));
    grpcurl.call(service, "Chat", &session, "\"sent\"");
    let get = "{\"room_id\": \"lobby\"}";
    grpcurl.call(service, "GetMessages", get, "\"m2\"");
}

fn pays(grpcurl: &mut Grpcurl<'_>) {
    let service = "simpul.payment.v1.PaymentService";
    let pay = "{\"idempotency_key\": \"k1\", \"payee\": \"toko\", \
               \"amount\": {\"currency\": \"IDR\", \"minor_units\": 5000000}, \
               \"payment_method\": \"sandbox_requires_action\"}";
    let waiting = "\"PAYMENT_STATUS_REQUIRES_ACTION\"";
    let answer = grpcurl.call(service, "ProcessPayment", pay, waiting);
    let answer: Value = serde_json::from_str(&answer).expect("an object");
    let id = answer["payment"]["paymentId"].as_str().expect("an id");
    let payment = format!("{{\"payment_id\": \"{id}\"}}");
    grpcurl.call(service, "GetPayment", &payment, waiting);
    let confirm =
        format!("{{\"payment_id\": \"{id}\", \"decision\": \"ACTION_DECISION_APPROVE\"}}");
    let sandbox = "simpul.sandbox.v1.SandboxService";
    grpcurl.call(sandbox, "CompleteAction", &confirm, "{");
    let watch = format!("{{\"payment_id\": \"{id}\", \"until_settled\": true}}");
    let done = "\"PAYMENT_STATUS_SUCCEEDED\"";
    grpcurl.call(service, "WatchPayment", &watch, done);
    let transaction = "simpul.transaction.v1.TransactionService";
    grpcurl.call(transaction, "GetTransactionHistory", "{}", id);
    grpcurl.call(transaction, "GetBalance", "{}", "\"IDR\"");
}

/// What a bare server of these libraries fails too, because it answers before it
/// has read: generic 2/2 and 2/3, 5.1.2/1, 8.1.2.6/1.
const BARE: [&str; 4] = [
    "× 2: Sends a WINDOW_UPDATE frame on half-closed (remote) stream",
    "× 3: Sends a PRIORITY frame on half-closed (remote) stream",
    "× 1: Sends HEADERS frames that causes their advertised concurrent stream limit to be exceeded",
    "× 1: Sends a HEADERS frame with the \"content-length\" header field which does not equal the \
     DATA frame payload length",
];

/// One run; the cases that failed.
fn h2spec(program: &Path, node: &Node) -> BTreeSet<String> {
    let address = node.address("public");
    let (host, port) = address.rsplit_once(':').expect("a port");
    // It ends with 1 when anything failed; what failed is read below.
    let output = Command::new(program).args(["-t", "-k", "-h", host, "-p", port]).output();
    let text = String::from_utf8(output.expect("h2spec starts").stdout).expect("UTF-8");
    assert!(text.contains("145 tests, "), "it ran to its end: {text}");
    let failures = text.split("Failures:").nth(1).unwrap_or_default();
    let failed: Vec<_> =
        failures.lines().map(str::trim).filter(|line| line.starts_with('×')).collect();
    assert!(text.contains(&format!(" {} failed", failed.len())), "every failure is read: {text}");
    failed.into_iter().filter(|line| !BARE.contains(line)).map(str::to_owned).collect()
}

/// To answer before everything was read is a race with the client's next frame,
/// and other cases may lose it now and then (a second HEADERS frame that comes
/// after the answer is passed over, as it should be). What fails counts when it
/// fails three times.
#[test]
fn h2spec_finds_what_it_finds_in_a_bare_server() {
    let Some(program) = tool("SIMPUL_TEST_H2SPEC", "h2spec") else { return };
    let node = Node::start();
    let mut failed = h2spec(&program, &node);
    for _ in 0..2 {
        if !failed.is_empty() {
            let again = h2spec(&program, &node);
            failed.retain(|case| again.contains(case));
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
    node.ok(&["whoami", "--as", "alice"]);
}
