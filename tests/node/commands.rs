//! Every command against a real node, as scripts use them: one JSON object a
//! line, and the exit code that tells the class.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{LONG, Node, cli_in, command};

fn lines(text: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(text).expect("UTF-8");
    let object = |line: &str| {
        let value: Value = serde_json::from_str(line).expect("JSON");
        assert!(value.is_object(), "no object: {line}");
        value
    };
    text.lines().map(object).collect()
}

/// Runs a command with JSON output; every line of both outputs is an object.
fn run(node: &Node, args: &[&str]) -> (i32, Vec<Value>) {
    let output = node.cli(&[args, &["--output", "json"]].concat());
    lines(&output.stderr);
    (output.status.code().expect("a code"), lines(&output.stdout))
}

/// Runs a command that must succeed; its lines.
fn done(node: &Node, args: &[&str]) -> Vec<Value> {
    let (code, lines) = run(node, args);
    assert_eq!(code, 0, "simpul {args:?}: {lines:?}");
    lines
}

fn pay(node: &Node, method: &str, more: &[&str]) -> (i32, String) {
    let args =
        ["pay", "--as", "alice", "--to", "toko", "--amount", "IDR 50000", "--method", method];
    let (code, lines) = run(node, &[&args[..], more].concat());
    (code, lines[0]["payment_id"].as_str().expect("an id").to_owned())
}

/// Waits for the end of a child, which must come by itself.
fn ended(child: &mut Child) -> i32 {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status.code().expect("no signal");
        }
        if begun.elapsed() > LONG {
            let _ = child.kill();
            panic!("it did not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn spawn(node: &Node, args: &[&str]) -> Child {
    command(node.dir()).args(args).stdout(Stdio::piped()).spawn().expect("it starts")
}

#[test]
fn every_payment_command_does_what_it_says() {
    let node = Node::start();
    let (code, id) = pay(&node, "sandbox_ok", &["--capture", "manual"]);
    assert_eq!(code, 0);
    let got = done(&node, &["payment", "get", &id, "--as", "toko"]);
    assert_eq!((got.len(), got[0]["status"].as_str()), (1, Some("AUTHORIZED")));
    let captured =
        done(&node, &["payment", "capture", &id, "--as", "toko", "--amount", "IDR 30000"]);
    assert_eq!(captured[0]["status"], "SUCCEEDED");
    let part = done(&node, &["payment", "refund", &id, "--as", "toko", "--amount", "IDR 10000"]);
    assert_eq!(part[0]["status"], "PARTIALLY_REFUNDED");
    let rest = done(&node, &["payment", "refund", &id, "--as", "toko"]);
    assert_eq!(rest[0]["status"], "REFUNDED");
    let (code, _) = run(&node, &["payment", "refund", &id, "--as", "toko"]);
    assert_eq!(code, 1, "nothing is left to refund");

    let (code, canceled) = pay(&node, "sandbox_ok", &["--capture", "manual"]);
    assert_eq!(code, 0);
    let after = done(&node, &["payment", "cancel", &canceled, "--as", "toko"]);
    assert_eq!(after[0]["status"], "CANCELED");

    let (code, asked) = pay(&node, "sandbox_requires_action", &[]);
    assert_eq!(code, 75, "not settled yet");
    let acted = done(&node, &["payment", "act", &asked, "--as", "alice"]);
    assert_eq!(acted[0]["status"], "SUCCEEDED");
    let (_, refused) = pay(&node, "sandbox_requires_action", &[]);
    let (code, acted) = run(&node, &["payment", "act", &refused, "--decline", "--as", "alice"]);
    assert_eq!((code, acted[0]["status"].as_str()), (0, Some("FAILED")), "as it was asked");

    let (code, pending) = pay(&node, "sandbox_pending", &[]);
    assert_eq!(code, 75);
    let watched = done(&node, &["payment", "watch", &pending, "--as", "alice"]);
    assert!(watched.len() >= 2, "{watched:?}");
    assert_eq!(watched.last().expect("a line")["status"], "SUCCEEDED");

    let all = done(&node, &["payment", "list", "--as", "toko"]);
    assert_eq!(all.len(), 5);
    let failed = done(&node, &["payment", "list", "--as", "alice", "--status", "failed"]);
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0]["payment_id"], Value::from(refused));
    assert_eq!(done(&node, &["payment", "list", "--as", "alice", "--limit", "2"]).len(), 2);
    assert_eq!(run(&node, &["payment", "get", &id, "--as", "eve"]).0, 1, "it is not hers");
}

#[test]
fn every_room_command_does_what_it_says() {
    let node = Node::start();
    let room = |args: &[&str]| done(&node, &[&["room"][..], args].concat());
    room(&["create", "r", "--as", "alice"]);
    room(&["add", "r", "bob", "--as", "alice"]);
    room(&["add", "r", "eve", "--as", "alice"]);
    room(&["update", "r", "--title", "Warung", "--as", "alice"]);
    assert_eq!(room(&["get", "r", "--as", "bob"])[0]["title"], "Warung");
    assert_eq!(room(&["list", "--as", "bob"]).len(), 1);
    room(&["role", "r", "bob", "moderator", "--as", "alice"]);
    let members = room(&["members", "r", "--as", "alice"]);
    assert_eq!(members.len(), 3);
    let bob = members.iter().find(|m| m.to_string().contains("user/bob")).expect("bob");
    assert!(bob.to_string().to_lowercase().contains("moderator"), "{bob}");
    room(&["remove", "r", "eve", "--as", "bob"]);
    assert_eq!(run(&node, &["room", "get", "r", "--as", "eve"]).0, 1, "eve is no member");
    room(&["leave", "r", "--as", "bob"]);
    assert_eq!(run(&node, &["room", "leave", "r", "--as", "alice"]).0, 1, "the last owner");
    assert_eq!(run(&node, &["room", "delete", "r", "--as", "eve"]).0, 1);
    room(&["delete", "r", "--as", "alice"]);
    assert!(room(&["list", "--as", "alice"]).is_empty());
}

#[test]
fn every_line_of_the_tour_gives_one_object_a_line() {
    let node = Node::start();
    done(&node, &["room", "create", "lobby", "--as", "alice"]);
    done(&node, &["room", "add", "lobby", "bob", "--as", "alice"]);
    let chat = ["chat", "lobby", "--as", "alice", "--output", "json"];
    let sent = lines(&node.cli_with_input(&chat, "halo\napa kabar\n").stdout);
    assert_eq!(sent.len(), 2);
    assert!(sent.iter().all(|line| line["type"] == "sent"), "{sent:?}");
    let read = done(&node, &["chat", "lobby", "--as", "bob", "--from", "earliest", "--count", "2"]);
    assert_eq!(read.len(), 2);
    assert_eq!(read[1]["body"], "apa kabar");
    assert_eq!(pay(&node, "sandbox_ok", &[]).0, 0);
    for args in [
        &["history", "--as", "alice"][..],
        &["balance", "--as", "toko"],
        &["token", "--as", "alice", "--ttl", "1h"],
        &["policy", "list"],
        &["policy", "explain", "simpul.payment.v1.PaymentService/RefundPayment"],
        &["whoami", "--as", "alice"],
        &["config", "show"],
        &["config", "check"],
        &["health"],
    ] {
        assert!(!done(&node, args).is_empty(), "{args:?} says nothing");
    }
    let healthy = serde_json::json!({"ok": true, "errors": 0, "warnings": 0, "notes": 0});
    assert_eq!(done(&node, &["doctor"]), [healthy], "there is something wrong");
    let args = ["history", "--as", "toko", "--follow", "--output", "json"];
    let mut follow = spawn(&node, &args);
    let mut out = BufReader::new(follow.stdout.take().expect("a pipe"));
    let mut line = String::new();
    out.read_line(&mut line).expect("a line");
    assert_eq!(lines(line.as_bytes())[0]["position"], 1);
    // The reader goes away; nothing more is posted, and it ends all the same.
    drop(out);
    assert_eq!(ended(&mut follow), 0);
}

#[test]
fn followers_end_when_nobody_reads_them() {
    let node = Node::start();
    done(&node, &["room", "create", "r", "--as", "alice"]);
    let (_, asked) = pay(&node, "sandbox_requires_action", &[]);
    for args in [
        &["chat", "r", "--as", "alice", "--follow"][..],
        &["health", "--watch"],
        &["payment", "watch", &asked, "--until-final", "--as", "alice"],
    ] {
        let mut child = spawn(&node, args);
        drop(child.stdout.take());
        assert_eq!(ended(&mut child), 0, "{args:?}");
    }
}

#[test]
fn health_is_watched_until_the_node_ends() {
    let mut node = Node::start_with(&[("SIMPUL_SHUTDOWN__DELAY", "500ms")]);
    let mut watch = spawn(&node, &["health", "--watch", "--output", "json"]);
    let mut out = BufReader::new(watch.stdout.take().expect("a pipe"));
    let mut line = String::new();
    out.read_line(&mut line).expect("a line");
    assert_eq!(lines(line.as_bytes())[0]["status"], "SERVING");
    node.signal(rustix::process::Signal::TERM);
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("the end");
    assert_eq!(lines(rest.as_bytes())[0]["status"], "NOT_SERVING", "{rest}");
    assert_eq!(ended(&mut watch), 69);
    node.wait(Duration::from_secs(20));
}

/// Runs the command line without a data directory of its own.
fn remote(home: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_simpul"))
        .env_clear()
        .env("HOME", home)
        .current_dir(home)
        .args(args)
        .output()
        .expect("it ran")
}

#[test]
fn a_remote_node_is_called_with_contexts_certificates_and_delegation() {
    let pki = tempfile::tempdir().expect("a directory");
    let at = |name: &str| pki.path().join(name).to_str().expect("UTF-8").to_owned();
    let dir = at("");
    let ok = |args: &[&str]| {
        let output = cli_in(pki.path(), args, "");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    ok(&["cert", "init", "--dir", &dir]);
    ok(&["cert", "issue", "shop", "--dir", &dir, "--principal", "service/shop@example.com"]);
    ok(&["cert", "issue", "alice", "--dir", &dir, "--principal", "user/alice@example.com"]);
    let again = cli_in(pki.path(), &["cert", "init", "--dir", &dir], "");
    assert_eq!(again.status.code(), Some(1), "nothing is overwritten");

    let bundle = serde_json::json!([{
        "file": at("ca.pem"), "trust_domain": "example.com", "kinds": ["user", "service"],
        "roles": ["customer", "merchant", "backend"],
    }]);
    let node = Node::start_with(&[
        ("SIMPUL_AUTH__CA", &bundle.to_string()),
        ("SIMPUL_AUTH__MAY_DELEGATE", "service/shop@example.com"),
    ]);
    let ca = node.info["ca_file"].as_str().expect("a file").to_owned();
    let server = node.address("public");
    let home = tempfile::tempdir().expect("a directory");
    let call = |args: &[&str]| remote(home.path(), &[args, &["--output", "json"]].concat());
    let (cert, key) = (at("shop.pem"), at("shop-key.pem"));
    let set = [
        "context", "set", "shop", "--server", &server, "--ca", &ca, "--cert", &cert, "--key", &key,
    ];
    assert!(call(&set).status.success());
    let who = call(&["whoami", "--context", "shop"]);
    assert!(who.status.success(), "{}", String::from_utf8_lossy(&who.stderr));
    assert_eq!(lines(&who.stdout)[0]["principal"], "service/shop@example.com");

    let user = "user/ani@example.com";
    let who = call(&["whoami", "--context", "shop", "--on-behalf-of", user]);
    assert!(who.status.success(), "{}", String::from_utf8_lossy(&who.stderr));
    let who = lines(&who.stdout);
    assert_eq!(who[0]["principal"], user);
    assert!(who[0].to_string().contains("service/shop@example.com"), "{who:?}");

    assert!(call(&["context", "use", "shop"]).status.success());
    assert!(call(&["whoami"]).status.success(), "the current context");
    assert_eq!(lines(&call(&["context", "list"]).stdout).len(), 1);
    assert!(call(&["context", "show"]).status.success());
    let (cert, key) = (at("alice.pem"), at("alice-key.pem"));
    let alice = ["whoami", "--server", &server, "--ca", &ca, "--cert", &cert, "--key", &key];
    assert_eq!(lines(&call(&alice).stdout)[0]["principal"], "user/alice@example.com");
    let denied = call(&[&alice[..], &["--on-behalf-of", user]].concat());
    assert_eq!(denied.status.code(), Some(77), "a user does not act for others");
    assert_eq!(lines(&denied.stderr)[0]["reason"], "DELEGATION_DENIED");
    assert_eq!(lines(&denied.stderr)[0]["trace_id"].as_str().map(str::len), Some(32));
    assert!(call(&["context", "remove", "shop"]).status.success());
    assert_eq!(call(&["whoami", "--context", "shop"]).status.code(), Some(64));
}

#[test]
fn a_chat_goes_on_with_a_fresh_token_on_the_same_connection() {
    let node = Node::start();
    done(&node, &["room", "create", "r", "--as", "alice"]);
    let say = |line: &str| {
        let sent = node.cli_with_input(&["chat", "r", "--as", "alice"], line);
        assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    };
    say("first\n");
    let file = node.dir().join("token");
    let token = |ttl: &str| node.ok(&["token", "--as", "alice", "--ttl", ttl]);
    std::fs::write(&file, token("6s")).expect("written");
    let begun = Instant::now();
    let path = file.to_str().expect("UTF-8");
    let args = ["chat", "r", "--token-file", path, "--from", "earliest", "--follow", "--output"];
    let mut chat = spawn(&node, &[&args[..], &["json"]].concat());
    let mut out = BufReader::new(chat.stdout.take().expect("a pipe"));
    let mut next = || {
        let mut line = String::new();
        out.read_line(&mut line).expect("a line");
        lines(line.as_bytes()).remove(0)
    };
    // It has connected with the short token; from now on there is a long one.
    assert_eq!(next()["body"], "first");
    let swapped = node.dir().join("next");
    std::fs::write(&swapped, token("1h")).expect("written");
    std::fs::rename(&swapped, &file).expect("swapped");
    // Past the end of the first token, and what a node grants beyond it.
    while begun.elapsed() < Duration::from_secs(9) {
        assert!(chat.try_wait().expect("a child").is_none(), "it ended");
        std::thread::sleep(Duration::from_millis(100));
    }
    say("still here\n");
    let second = next();
    assert_eq!(second["body"], "still here", "it lost its connection: {second}");
    chat.kill().expect("it ran on");
    chat.wait().expect("it ended");
}
