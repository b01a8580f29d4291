//! What an acknowledgement stands for: a sync of the disk before it, and a
//! backup that has what it promised.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use simpul::proto::chat::v1::chat_response::Frame as Tell;
use simpul::proto::chat::v1::chat_service_client::ChatServiceClient;
use simpul::proto::chat::v1::join::From;
use simpul::proto::chat::v1::{GetMessagesRequest, SendMessageRequest};
use simpul::store::LedgerStore;
use simpul::store::sqlite::SqliteStore;

use crate::pay::{process, to_toko};
use crate::support::{LONG, Node, cli_in, eventually, not_run, with_token};
use crate::talk::{Session, room};

/// One system call as strace shows it, when it had returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A write to the database's log.
    Log,
    /// A sync of that log.
    Sync,
    /// A write to a TCP socket.
    Socket,
}

/// The steps of a trace, in the order of their ends for what reaches the disk
/// and of their beginnings for what reaches the client.
fn steps(trace: &str) -> Vec<Step> {
    let mut under_way = BTreeMap::new();
    let mut steps = Vec::new();
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        let step = if call.starts_with("pwrite64(") && call.contains("simpul.db-wal") {
            Some(Step::Log)
        } else if call.starts_with("fdatasync(") && call.contains("simpul.db-wal") {
            Some(Step::Sync)
        } else if call.contains("<TCP:[") && !call.starts_with("<...") {
            Some(Step::Socket)
        } else {
            None
        };
        match step {
            Some(Step::Socket) => steps.push(Step::Socket),
            Some(step) if call.ends_with("<unfinished ...>") => {
                under_way.insert(thread.to_owned(), step);
            }
            Some(step) => steps.push(step),
            None if call.starts_with("<... pwrite64") || call.starts_with("<... fdatasync") => {
                steps.extend(under_way.remove(thread));
            }
            None => {}
        }
    }
    steps
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_stands_between_the_append_and_the_acknowledgement() {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        return not_run("the order of system calls: strace is not installed");
    }
    let node = Node::start();
    let alice = node.token("alice", &[]);
    let channel = node.channel().await;
    room(channel.clone(), &alice, "r", &[]).await;
    let mut session = Session::join(channel, &alice, "r", From::Latest(true)).await;
    session.send("r", "before", "before").await;
    session.sent().await;

    let file = node.dir().join("trace");
    let mut strace = Command::new("strace")
        .args([
            "-f",
            "-yy",
            "-s",
            "0",
            "-e",
            "trace=pwrite64,fdatasync,write,writev,sendto,sendmsg",
        ])
        .arg("-o")
        .arg(&file)
        .args(["-p", &node.pid().to_string()])
        .stderr(Stdio::piped())
        .spawn()
        .expect("strace starts");
    let status = format!("/proc/{}/status", node.pid());
    let attached = eventually("strace is attached, or has given up", async || {
        let text = std::fs::read_to_string(&status).expect("the node lives");
        let traced = text
            .lines()
            .any(|line| line.strip_prefix("TracerPid:").is_some_and(|pid| pid.trim() != "0"));
        let over = strace.try_wait().expect("a child").is_some();
        (traced || over).then_some(traced)
    })
    .await;
    if !attached {
        return not_run("the order of system calls: this machine does not let strace attach");
    }
    // Some threads may be attached later than the first: several lone messages.
    for n in 0..10 {
        session.send("r", &format!("m{n}"), "a lone message").await;
        session.sent().await;
    }
    let pid = rustix::process::Pid::from_child(&strace);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it lives");
    strace.wait().expect("a child");

    let trace = std::fs::read_to_string(&file).expect("a trace");
    let steps = steps(&trace);
    let (mut written, mut synced) = (0, 0);
    let mut dirty = false;
    for step in &steps {
        match step {
            Step::Log => (written, dirty) = (written + 1, true),
            Step::Sync if dirty => (synced, dirty) = (synced + 1, false),
            Step::Sync => {}
            Step::Socket => assert!(!dirty, "told before it was synced: {steps:?}\n{trace}"),
        }
    }
    assert!(written >= 9 && synced >= 9, "{written} writes, {synced} syncs:\n{trace}");
    assert!(steps.iter().filter(|step| **step == Step::Socket).count() >= 9, "{trace}");
}

/// What is in a room, by message id.
async fn messages(node: &Node, token: &str, room: &str) -> BTreeMap<String, (u64, String)> {
    let mut client = ChatServiceClient::new(node.channel().await);
    let mut found = BTreeMap::new();
    let mut head = 0;
    loop {
        let get = GetMessagesRequest { room_id: room.to_owned(), after_seq: head, limit: 10_000 };
        let page = client.get_messages(with_token(get, token)).await.expect("a stream");
        let (mut page, before) = (page.into_inner(), head);
        while let Some(response) = page.message().await.expect("no error") {
            let message = response.message.expect("a message");
            assert_eq!(message.seq, head + 1, "a gap");
            head = message.seq;
            if !message.client_message_id.is_empty() {
                let twice = found.insert(message.client_message_id, (message.seq, message.body));
                assert!(twice.is_none(), "it stands twice: {twice:?}");
            }
        }
        if head == before {
            return found;
        }
    }
}

async fn ledger_is_sound(dir: &Path) {
    let store = SqliteStore::open(&dir.join("simpul.db"), 1).await.expect("the store");
    assert_eq!(store.audit().await.expect("an audit"), [""; 0]);
    store.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_loaded_node_has_what_was_acknowledged_before_it() {
    let node = Node::start();
    let alice = node.token("alice", &[]);
    let channel = node.channel().await;
    room(channel.clone(), &alice, "r", &[]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let acked = Arc::new(std::sync::Mutex::new(BTreeMap::new()));
    let writer = {
        let (stop, acked) = (stop.clone(), acked.clone());
        let mut session = Session::join(channel.clone(), &alice, "r", From::Latest(true)).await;
        simpul::task::spawn("writer", async move {
            let (mut sent, mut got) = (0, 0);
            while got < sent || !stop.load(Ordering::Relaxed) {
                while sent - got < 32 && !stop.load(Ordering::Relaxed) {
                    session.send("r", &format!("m{sent}"), &format!("message {sent}")).await;
                    sent += 1;
                }
                if let Tell::Sent(ack) = session.next().await {
                    acked.lock().expect("not poisoned").insert(ack.client_message_id, ack.seq);
                    got += 1;
                }
            }
        })
    };
    let payer = {
        let (stop, channel, alice) = (stop.clone(), channel.clone(), alice.clone());
        simpul::task::spawn("payer", async move {
            let mut paid = 0;
            while !stop.load(Ordering::Relaxed) {
                let key = format!("p{paid}");
                process(&channel, &alice, to_toko(&key, "sandbox_ok")).await.expect("paid");
                paid += 1;
            }
            paid
        })
    };
    eventually("the load runs", async || {
        (acked.lock().expect("not poisoned").len() > 200).then_some(())
    })
    .await;

    let place = tempfile::tempdir().expect("a directory");
    let copy = place.path().join("copy");
    let at = copy.to_str().expect("UTF-8");
    let before = acked.lock().expect("not poisoned").clone();
    let output = tokio::task::block_in_place(|| node.cli(&["backup", at]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let during = acked.lock().expect("not poisoned").len() - before.len();
    stop.store(true, Ordering::Relaxed);
    tokio::time::timeout(LONG, writer).await.expect("it ends").expect("no panic");
    let paid = tokio::time::timeout(LONG, payer).await.expect("it ends").expect("no panic");
    assert!(paid > 0 && during > 0, "{paid} payments, {during} messages during the backup");

    let elsewhere = place.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).expect("made");
    let output = cli_in(&elsewhere, &["restore", at], "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ledger_is_sound(&elsewhere).await;
    let restored = Node::start_in(&elsewhere, &[]);
    let token = restored.token("alice", &[]);
    let found = messages(&restored, &token, "r").await;
    for (id, seq) in &before {
        assert_eq!(found.get(id).map(|(at, _)| at), Some(seq), "{id} was acknowledged before");
    }
    for (id, (_, body)) in &found {
        assert_eq!(*body, id.replace('m', "message "));
    }
    // It goes on from there.
    let mut client = ChatServiceClient::new(restored.channel().await);
    let send = SendMessageRequest {
        room_id: "r".to_owned(),
        client_message_id: "after".to_owned(),
        body: "after".to_owned(),
        reply_to: 0,
    };
    client.send_message(with_token(send, &token)).await.expect("durable");
    process(&restored.channel().await, &token, to_toko("new", "sandbox_ok")).await.expect("paid");
    eprintln!("{} messages before the backup, {during} during it", before.len());
}
