//! One room, whatever node its people are on.

use simpul::proto::chat::v1::join::From;
use simpul::proto::cluster::v1::NodeState;

use crate::cluster::{Cluster, check, log};
use crate::talk::{Session, room};

const EACH: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_three_nodes_read_one_room_in_one_order() {
    let Some(cluster) = Cluster::start("three nodes", 3).await else { return };
    all_read_alike(cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_share_one_sqlite_file() {
    all_read_alike(Cluster::start_on_a_file(3).await).await;
}

async fn all_read_alike(cluster: Cluster) {
    let people = ["alice", "bob", "cici"];
    let tokens: Vec<String> = people.iter().map(|who| cluster.token(who, &[])).collect();
    room(cluster.nodes[1].channel().await, &tokens[0], "lobby", &["bob", "cici"]).await;

    let mut sessions = Vec::new();
    for (node, token) in cluster.nodes.iter().zip(&tokens) {
        sessions
            .push(Session::join(node.channel().await, token, "lobby", From::Earliest(true)).await);
    }
    for at in 0..EACH {
        for (session, who) in sessions.iter().zip(people) {
            session.send("lobby", &format!("{who}-{at}"), &format!("{who} says {at}")).await;
        }
    }
    // What began the room, and what was said.
    let all = 3 + people.len() * EACH;
    let mut read = Vec::new();
    for session in &mut sessions {
        let mut seen = Vec::new();
        while seen.len() < all {
            let message = session.message().await;
            seen.push((message.seq, message.client_message_id, message.body));
        }
        read.push(seen);
    }
    assert_eq!(read[0], read[1]);
    assert_eq!(read[1], read[2]);
    let seqs: Vec<u64> = read[0].iter().map(|(seq, ..)| *seq).collect();
    assert_eq!(seqs, (1..=all as u64).collect::<Vec<_>>());
    for who in people {
        let own: Vec<String> = read[0]
            .iter()
            .filter(|(_, id, _)| id.starts_with(who))
            .map(|(_, id, _)| id.clone())
            .collect();
        let expected: Vec<String> = (0..EACH).map(|at| format!("{who}-{at}")).collect();
        assert_eq!(own, expected, "in the order in which {who} sent them");
    }
    check(&log(&cluster.nodes[2], &tokens[2], "lobby").await, &[]);

    let seen = cluster.seen_by(1).await;
    assert_eq!(seen.answered_by, "n1");
    assert_eq!(seen.nodes.len(), 3);
    assert!(seen.nodes.iter().all(|node| node.state() == NodeState::Live));
    assert_eq!(seen.nodes.iter().map(|node| node.partitions).sum::<u32>(), 32);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_removed_on_one_node_stops_reading_on_another() {
    use simpul::proto::chat::v1::chat_service_client::ChatServiceClient;
    use simpul::proto::chat::v1::{NoticeKind, RemoveMemberRequest};

    let Some(cluster) = Cluster::start("a removed member", 2).await else { return };
    let (alice, bob) = (cluster.token("alice", &[]), cluster.token("bob", &[]));
    room(cluster.nodes[0].channel().await, &alice, "lobby", &["bob"]).await;
    let there = cluster.nodes[1].channel().await;
    let mut session = Session::join(there, &bob, "lobby", From::Earliest(true)).await;
    let mut client = ChatServiceClient::new(cluster.nodes[0].channel().await);
    let remove = RemoveMemberRequest { room_id: "lobby".into(), principal: "bob".into() };
    client.remove_member(crate::support::with_token(remove, &alice)).await.expect("removed");
    let writer =
        Session::join(cluster.nodes[0].channel().await, &alice, "lobby", From::Latest(true)).await;
    writer.send("lobby", "secret", "not for bob").await;
    // He learns that he is out, and nothing that came later.
    loop {
        use simpul::proto::chat::v1::chat_response::Frame;
        match session.next().await {
            Frame::Notice(notice) if notice.kind() == NoticeKind::AccessChanged => break,
            Frame::Message(message) => assert_ne!(message.client_message_id, "secret"),
            _ => {}
        }
    }
    cluster.end().await;
}
