//! Nodes that stop with a word.

use std::time::Duration;

use rustix::process::Signal;
use simpul::proto::chat::v1::NoticeKind;
use simpul::proto::chat::v1::chat_response::Frame;
use simpul::proto::chat::v1::join::From;
use simpul::proto::cluster::v1::cluster_service_client::ClusterServiceClient;
use simpul::proto::cluster::v1::{DrainNodeRequest, NodeState};

use crate::cluster::{Cluster, Writer, check, log};
use crate::support::{LONG, eventually, with_token};
use crate::talk::{Session, room};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_is_stopped_hands_over_and_nobody_sees_an_error() {
    let Some(mut cluster) = Cluster::start("a stopped owner", 3).await else { return };
    let alice = cluster.token("alice", &[]);
    room(cluster.nodes[0].channel().await, &alice, "lobby", &[]).await;
    let owner = cluster.owner_of("lobby").await;
    let others: Vec<usize> = (0..3).filter(|at| *at != owner).collect();
    let first = Writer::start(&[&cluster.nodes[others[0]]], &alice, "lobby", "first", true).await;
    let second = Writer::start(&[&cluster.nodes[others[1]]], &alice, "lobby", "second", true).await;
    let channel = cluster.nodes[owner].channel().await;
    let mut reader = Session::join(channel, &alice, "lobby", From::Earliest(true)).await;
    first.more(20).await;
    second.more(20).await;
    cluster.nodes[owner].signal(Signal::TERM);

    // Its reader is told where to go, and its stream ends cleanly.
    let mut cursor = 0;
    let mut told = Vec::new();
    while let Ok(Some(response)) = reader.incoming.message().await {
        match response.frame {
            Some(Frame::Message(message)) => {
                assert_eq!(message.seq, cursor + 1);
                cursor = message.seq;
            }
            Some(Frame::Notice(notice)) => told.push((notice.kind(), notice.addresses)),
            _ => {}
        }
    }
    let elsewhere = others.iter().map(|at| cluster.nodes[*at].address("public"));
    let elsewhere: Vec<String> = elsewhere.collect();
    let goes = told.iter().find(|(kind, _)| *kind == NoticeKind::Move);
    let (_, to) = goes.unwrap_or_else(|| panic!("the reader was not told where to go: {told:?}"));
    assert!(!to.is_empty() && to.iter().all(|address| elsewhere.contains(address)), "{told:?}");
    assert!(told.iter().any(|(kind, _)| *kind == NoticeKind::Draining), "{told:?}");
    assert_eq!(cluster.nodes[owner].wait(LONG), Some(0), "it ends by itself, well");
    first.more(20).await;
    second.more(20).await;

    // The reader goes on elsewhere where it was.
    let channel = cluster.nodes[others[0]].channel().await;
    let mut reader = Session::join(channel, &alice, "lobby", From::Cursor(cursor)).await;
    assert_eq!(reader.message().await.seq, cursor + 1);

    let mut acknowledged = first.stop().await;
    acknowledged.extend(second.stop().await);
    check(&log(&cluster.nodes[others[1]], &alice, "lobby").await, &acknowledged);
    let seen = cluster.seen_by_any(&others).await;
    let id = format!("n{owner}");
    let left = seen.nodes.iter().find(|node| node.node_id == id).expect("its row");
    assert_eq!(left.state(), NodeState::Left);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_drained_by_command_goes_on_without_work() {
    let Some(mut cluster) = Cluster::start("a drained node", 2).await else { return };
    let olga = cluster.token("olga", &["operator"]);
    let mut client = ClusterServiceClient::new(cluster.nodes[0].channel().await);
    let drain = |node: &str| with_token(DrainNodeRequest { node_id: node.to_owned() }, &olga);
    let unknown = client.drain_node(drain("nobody")).await.expect_err("no such node");
    assert_eq!(unknown.code(), tonic::Code::NotFound);
    let bad = client.drain_node(drain("No Body")).await.expect_err("no id");
    assert_eq!(bad.code(), tonic::Code::InvalidArgument);
    client.drain_node(drain("n1")).await.expect("told");
    eventually("it owns nothing", async || {
        let seen = cluster.seen_by(0).await;
        let node = seen.nodes.iter().find(|node| node.node_id == "n1")?;
        (node.state() == NodeState::Draining && node.partitions == 0).then_some(())
    })
    .await;
    let last = client.drain_node(drain("n0")).await.expect_err("nobody else is live");
    assert_eq!(last.code(), tonic::Code::FailedPrecondition);
    let (status, body) = cluster.nodes[1].admin("/readyz");
    assert!(status == 503 && body.contains("draining"), "{status} {body}");
    // It still answers, and rooms work through it.
    let alice = cluster.token("alice", &[]);
    room(cluster.nodes[1].channel().await, &alice, "lobby", &[]).await;
    cluster.nodes[1].signal(Signal::TERM);
    assert_eq!(cluster.nodes[1].wait(LONG + Duration::from_secs(1)), Some(0));
    cluster.end().await;
}
