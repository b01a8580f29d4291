//! The lines of the README, as they stand.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::support::{Node, command};

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
}

#[test]
fn the_lines_of_the_tour_work_as_they_stand() {
    let node = Node::start();
    node.ok(&["room", "create", "lobby", "--as", "alice"]);
    node.ok(&["room", "add", "lobby", "bob", "--as", "alice"]);
    let sent = node.cli_with_input(&["chat", "lobby", "--as", "alice"], "halo\napa kabar\n");
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    let read = node.ok(&["chat", "lobby", "--as", "bob", "--from", "earliest", "--count", "2"]);
    assert!(read.contains("halo") && read.contains("apa kabar"), "{read}");

    let amount = ["pay", "--as", "alice", "--to", "toko", "--amount", "IDR 50000"];
    let paid = node.ok(&[&amount[..], &["--method", "sandbox_ok", "--output", "json"]].concat());
    let paid = lines(&paid);
    assert_eq!(paid[0]["status"], "SUCCEEDED");
    for who in ["alice", "toko"] {
        let history = node.ok(&["history", "--as", who, "--output", "json"]);
        assert!(
            lines(&history).iter().any(|line| line["payment_id"] == paid[0]["payment_id"]),
            "{who}: {history}"
        );
    }
    let balance = node.ok(&["balance", "--as", "toko", "--output", "json"]);
    assert!(balance.contains("5000000"), "{balance}");
    assert!(node.ok(&["balance", "--as", "toko"]).contains("IDR 50000"));
    assert_eq!(node.ok(&["token", "--as", "alice", "--ttl", "1h"]).trim().split('.').count(), 3);
    let policy = node.ok(&["policy", "list"]);
    assert!(policy.contains("simpul.payment.v1.PaymentService/ProcessPayment"), "{policy}");
    node.ok(&["whoami", "--as", "alice"]);
    node.ok(&["doctor"]);
    node.ok(&["config", "show"]);
    node.ok(&["completions", "bash"]);

    let mut follow = command(node.dir())
        .args(["history", "--as", "toko", "--follow", "--output", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut followed = BufReader::new(follow.stdout.take().expect("a pipe")).lines();
    assert!(followed.next().expect("the first").is_ok());
    node.ok(&[&amount[..], &["--method", "sandbox_ok"]].concat());
    let line = followed.next().expect("the second").expect("a line");
    assert_eq!(lines(&line)[0]["position"], 2);
    follow.kill().expect("it ran on");
    follow.wait().expect("it ended");
}

#[test]
fn exit_codes_tell_the_class() {
    let node = Node::start();
    let pay = |method: &str, amount: &str| {
        let args = ["pay", "--as", "alice", "--to", "toko", "--amount", amount, "--method", method];
        node.cli(&args).status.code()
    };
    assert_eq!(pay("sandbox_ok", "IDR 1"), Some(0));
    assert_eq!(pay("sandbox_declined", "IDR 1"), Some(1));
    assert_eq!(pay("sandbox_ok", "JPY 1.5"), Some(64));
    assert_eq!(pay("sandbox_ok", "XYZ 1"), Some(64));
    assert_eq!(node.cli(&["--no-such-flag"]).status.code(), Some(64));
    assert_eq!(node.cli(&["whoami"]).status.code(), Some(77));
    assert_eq!(node.cli(&["room", "get", "nowhere", "--as", "alice"]).status.code(), Some(1));
    let alone = tempfile::tempdir().expect("a directory");
    let output = command(alone.path()).args(["whoami", "--as", "alice"]).output().expect("it ran");
    assert_eq!(output.status.code(), Some(69));
}
