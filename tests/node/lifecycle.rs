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

use crate::support::{Node, cli_in, eventually};
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

#[test]
fn two_nodes_never_share_a_data_directory() {
    let node = Node::start();
    let second = cli_in(node.dir(), &["serve"], "");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(69), "{said}");
    assert!(said.contains("data directory") || said.contains("data_dir"), "{said}");
    assert!(node.ok(&["health"]).contains("SERVING"), "the first one lives on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_served_without_a_restart_and_a_torn_one_is_refused() {
    let node = Node::start();
    let certificate = node.dir().join("dev/server.pem");
    let before = std::fs::read(&certificate).expect("the certificate");
    std::fs::write(&certificate, &before[..before.len() / 2]).expect("torn");
    let refused = eventually("the failure is counted", async || {
        let (_, metrics) = node.admin("/metrics");
        metrics
            .lines()
            .any(|line| {
                line.starts_with("simpul_")
                    && line.contains("reload_failures")
                    && !line.ends_with(" 0")
            })
            .then_some(())
    });
    refused.await;
    node.channel().await; // The last good one is still served.
    std::fs::write(&certificate, &before).expect("whole again");
    node.channel().await;
}
