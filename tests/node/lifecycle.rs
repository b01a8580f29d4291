//! Start, readiness, reload and end.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use simpul::proto::chat::v1::NoticeKind;
use simpul::proto::chat::v1::chat_response::Frame as Tell;
use simpul::proto::chat::v1::join::From;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::{LONG, Node, Pipe, cli_in, eventually, not_run};
use crate::talk::{Session, room};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ready_node_says_so_on_both_listeners_and_in_node_json() {
    let node = Node::start();
    for key in ["pid", "node_id", "incarnation", "public", "mesh", "admin", "ca_file"] {
        assert!(node.info.get(key).is_some(), "node.json lacks {key}");
    }
    assert_eq!(node.info["pid"], node.pid());
    let mut health = HealthClient::new(node.channel().await);
    for service in ["", "simpul.chat.v1.ChatService", "simpul.payment.v1.PaymentService"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = health.check(request).await.expect("health needs no proof").into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let admin =
        tonic::transport::Endpoint::from_shared(format!("http://{}", node.address("admin")))
            .expect("an address")
            .connect()
            .await
            .expect("plaintext HTTP/2");
    let answer = HealthClient::new(admin).check(HealthCheckRequest::default()).await;
    assert_eq!(answer.expect("an answer").into_inner().status(), ServingStatus::Serving);
    assert_eq!(node.admin("/readyz").0, 200);
    assert_eq!(node.admin("/livez").0, 200);
    let (status, metrics) = node.admin("/metrics");
    assert!(status == 200 && metrics.contains("simpul_"), "{metrics}");
    assert_eq!(node.admin("/nothing").0, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_tells_sessions_and_ends_in_bounded_time_though_streams_are_open() {
    let mut node = Node::start();
    let alice = node.token("alice", &[]);
    let channel = node.channel().await;
    room(channel.clone(), &alice, "r", &[]).await;
    let mut session = Session::join(channel, &alice, "r", From::Latest(true)).await;
    let mut health = HealthClient::new(node.channel().await);
    let mut watch =
        health.watch(HealthCheckRequest::default()).await.expect("a stream").into_inner();
    let first = watch.message().await.expect("no error").expect("a state");
    assert_eq!(first.status(), ServingStatus::Serving);

    session.send("r", "last", "the last word").await;
    node.signal(Signal::TERM);
    let (mut acked, mut told) = (false, false);
    let end = loop {
        match tokio::time::timeout(Duration::from_secs(10), session.incoming.message()).await {
            Ok(Ok(Some(response))) => match response.frame {
                Some(Tell::Sent(_)) => acked = true,
                Some(Tell::Notice(notice)) => told |= notice.kind() == NoticeKind::Draining,
                _ => {}
            },
            Ok(Err(status)) => break status,
            other => panic!("{other:?}"),
        }
    };
    assert!(told, "the session was not told");
    assert_eq!(end.code(), Code::Unavailable, "{end:?}");
    let down = eventually("NOT_SERVING", async || match watch.message().await {
        Ok(Some(state)) => (state.status() == ServingStatus::NotServing).then_some(true),
        _ => Some(false),
    });
    down.await;
    assert_eq!(node.wait(Duration::from_secs(15)), Some(0));
    assert!(!node.dir().join("node.json").exists());

    // What was acknowledged is there; what was not may be.
    node.restart();
    let alice = node.token("alice", &[]);
    let mut session = Session::join(node.channel().await, &alice, "r", From::Earliest(true)).await;
    assert_eq!(session.message().await.seq, 1);
    if acked {
        assert_eq!(session.message().await.body, "the last word");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_at_once() {
    let mut node =
        Node::start_with(&[("SIMPUL_SHUTDOWN__DELAY", "30s"), ("SIMPUL_SHUTDOWN__GRACE", "30s")]);
    let alice = node.token("alice", &[]);
    let channel = node.channel().await;
    room(channel.clone(), &alice, "r", &[]).await;
    let _session = Session::join(channel, &alice, "r", From::Latest(true)).await;
    let begun = Instant::now();
    node.signal(Signal::TERM);
    eventually("readiness goes down", async || (node.admin("/readyz").0 == 503).then_some(()))
        .await;
    node.signal(Signal::TERM);
    node.wait(Duration::from_secs(5));
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_room_owner_has_panicked_ends_and_starts_again() {
    if !cfg!(feature = "fault") {
        return not_run("the test of a panic: it needs `--features fault`, as tests/run gives it");
    }
    let faults = tempfile::tempdir().expect("a directory");
    let path = faults.path().to_str().expect("UTF-8");
    let mut node = Node::start_with(&[
        ("SIMPUL_TEST_FAULT_DIR", path),
        ("SIMPUL_SHUTDOWN__DELAY", "0s"),
        ("SIMPUL_SHUTDOWN__GRACE", "1s"),
    ]);
    let alice = node.token("alice", &[]);
    room(node.channel().await, &alice, "r", &[]).await;
    let panic = faults.path().join("chat.deciding.panic");
    std::fs::write(&panic, "").expect("a fault");
    let session = Session::join(node.channel().await, &alice, "r", From::Latest(true)).await;
    session.send("r", "m1", "a word").await;
    assert_eq!(node.wait(LONG), Some(69));
    std::fs::remove_file(panic).expect("no fault");
    node.restart();
    room(node.channel().await, &alice, "another", &[]).await;
}

/// A file that does not answer, as on a network disk that is gone.
#[test]
fn a_hanging_file_does_not_hold_up_the_end() {
    for signals in [1, 2] {
        let mut node = Node::start_with(&[("SIMPUL_TLS__RELOAD_INTERVAL", "10ms")]);
        let pipe = Pipe::in_place_of(&node.dir().join("dev/jwks.json"));
        let _writer = pipe.read_by_somebody();
        for _ in 0..signals {
            node.signal(Signal::TERM);
        }
        node.wait(Duration::from_secs(15));
    }
}

#[test]
fn two_nodes_never_share_a_data_directory() {
    let node = Node::start();
    let second = cli_in(node.dir(), &["serve"], "");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(69), "{said}");
    assert!(said.contains("data directory") || said.contains("data_dir"), "{said}");
    assert!(node.ok(&["health"]).contains("SERVING"), "the first one lives on");
}

/// The leaf that the node serves now.
async fn served(node: &Node, ca: &[u8]) -> Vec<u8> {
    let stream = node.stream_believing(ca).await;
    stream.get_ref().1.peer_certificates().expect("a chain")[0].to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swapped_link_is_served_without_a_restart_and_a_torn_file_is_refused() {
    let files = tempfile::tempdir().expect("a directory");
    let at = |name: &str| files.path().join(name);
    let text = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
    let make = |args: &[&str]| {
        let output = cli_in(files.path(), args, "");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    make(&["cert", "init", "--dir", &text(files.path())]);
    for name in ["one", "two"] {
        make(&["cert", "issue", name, "--dir", &text(files.path()), "--dns", "localhost"]);
        std::fs::create_dir(at(&format!("{name}.d"))).expect("a directory");
        for (from, to) in [(".pem", "server.pem"), ("-key.pem", "server-key.pem")] {
            let target = at(&format!("{name}.d")).join(to);
            std::fs::rename(at(&format!("{name}{from}")), target).expect("moved");
        }
    }
    let link = |name: &str| {
        std::os::unix::fs::symlink(at(&format!("{name}.d")), at("next")).expect("a link");
        std::fs::rename(at("next"), at("current")).expect("swapped");
    };
    link("one");
    let node = Node::start_with(&[
        ("SIMPUL_TLS__CERT_FILE", &text(&at("current/server.pem"))),
        ("SIMPUL_TLS__KEY_FILE", &text(&at("current/server-key.pem"))),
        ("SIMPUL_TLS__RELOAD_INTERVAL", "100ms"),
    ]);
    let ca = std::fs::read(at("ca.pem")).expect("the CA");
    let one = served(&node, &ca).await;
    link("two");
    let two = eventually("the other certificate", async || {
        let now = served(&node, &ca).await;
        (now != one).then_some(now)
    })
    .await;

    let file = at("two.d/server.pem");
    let whole = std::fs::read(&file).expect("the certificate");
    std::fs::write(&file, &whole[..whole.len() / 2]).expect("torn");
    let failing = |value: &str| {
        let wanted = format!("simpul_reload_failing{{source=\"tls.cert_file\"}} {value}");
        let (_, metrics) = node.admin("/metrics");
        metrics.lines().any(|line| line == wanted).then_some(())
    };
    eventually("the failure is shown", async || failing("1")).await;
    assert_eq!(served(&node, &ca).await, two, "the last good one stays");
    std::fs::write(&file, &whole).expect("whole again");
    eventually("the failure is over", async || failing("0")).await;
}
