//! Partitions that change hands while rooms are read and written.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::{Duration, Instant};

use crate::chat::testing::{Client, Cluster, Fault, who};
use crate::chat::{Content, Job, Proposal, Published};
use crate::proto::chat::v1::chat_response::Frame;
use crate::proto::chat::v1::join::From;
use crate::refusal::{Reason, Refusal};

const SENDS: u64 = 120;

/// Sends and reads; gives the names that were acknowledged, with their seqs.
async fn converse(mut client: Client, name: &str, to: u64) -> Vec<(String, u64)> {
    let Frame::Joined(_) = client.join("r", From::Cursor(2)).await else { panic!("refused") };
    let (mut acks, mut seq, mut sent) = (Vec::new(), 2, 0);
    while seq < to || (acks.len() as u64) < SENDS {
        if sent < SENDS {
            client.send("r", &format!("{name}{sent}"), "body").await;
            sent += 1;
        }
        match client.next().await.expect("a frame") {
            Frame::Sent(ack) => acks.push((ack.client_message_id, ack.seq)),
            Frame::Message(message) => {
                seq += 1;
                assert_eq!(message.seq, seq, "{name}");
            }
            unexpected => panic!("{name}: {unexpected:?}"),
        }
    }
    acks
}

/// Every send was acknowledged in its order, as what the log has there.
fn check(cluster: &Cluster, name: &str, acks: &[(String, u64)]) {
    let log = cluster.store.log("r");
    for (n, (id, seq)) in acks.iter().enumerate() {
        assert_eq!(*id, format!("{name}{n}"));
        assert_eq!(*log[*seq as usize - 1].client_message_id, **id);
    }
    assert!(acks.windows(2).all(|pair| pair[0].1 < pair[1].1), "{name} was reordered");
}

#[tokio::test]
async fn a_room_that_moves_under_load_costs_nobody_anything() {
    let cluster = Cluster::new(2).await;
    cluster.room("r").await;
    let total = 2 + 2 * SENDS;
    let moves = async {
        for step in 0..10 {
            let reached = (step + 1) * total as usize / 14;
            while cluster.store.log("r").len() < reached {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            cluster.hand_over("r", (step + 1) % 2).await;
        }
    };
    let (alice, bob) = (cluster.client(0, "alice"), cluster.client(1, "bob"));
    let (of_alice, of_bob, ()) =
        tokio::join!(converse(alice, "a", total), converse(bob, "b", total), moves);
    check(&cluster, "a", &of_alice);
    check(&cluster, "b", &of_bob);
    assert_eq!(cluster.store.log("r").len() as u64, total);
}

#[tokio::test]
async fn a_partition_that_is_seized_under_load_costs_nobody_anything() {
    let cluster = Cluster::new(2).await;
    cluster.room("r").await;
    let total = 2 + 2 * SENDS;
    let seizures = async {
        for step in 0..6 {
            let reached = (step + 1) * total as usize / 10;
            while cluster.store.log("r").len() < reached {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            cluster.seize("r", (step + 1) % 2).await;
        }
    };
    let (alice, bob) = (cluster.client(0, "alice"), cluster.client(1, "bob"));
    let (of_alice, of_bob, ()) =
        tokio::join!(converse(alice, "a", total), converse(bob, "b", total), seizures);
    check(&cluster, "a", &of_alice);
    check(&cluster, "b", &of_bob);
}

#[tokio::test]
async fn an_unknown_outcome_gives_up_its_partition_alone_and_is_sent_again() {
    for fault in [Fault::Lost, Fault::KeptUnanswered] {
        let cluster = Cluster::new(2).await;
        cluster.room("r").await;
        // Rooms of each of the other partitions.
        let others: Vec<_> = (0..40)
            .map(|n| format!("o{n}"))
            .filter(|room| cluster.partition(room) != cluster.partition("r"))
            .collect();
        let positions = cluster.node(0).positions();
        let (mut here, mut there) = (cluster.client(0, "bob"), cluster.client(1, "bob"));
        for client in [&mut here, &mut there] {
            client.join("r", From::Latest(true)).await;
        }
        cluster.store.fail_next(fault);
        assert_eq!(cluster.text(0, "r", "m").await.seq, 3);
        here.read(2, 3).await;
        there.read(2, 3).await;
        assert_eq!(cluster.store.log("r").len(), 3);
        for room in others {
            let partition = cluster.partition(&room);
            let before = positions.iter().find(|it| it.partition == partition).expect("owned");
            let after = cluster.node(0).positions().into_iter();
            let after = after.clone().find(|it| it.partition == partition).expect("kept");
            assert_eq!(after.epoch, before.epoch);
        }
    }
}

async fn order(cluster: &Cluster, proposal: &Proposal) -> Result<Published, Refusal> {
    let (answer, answered) = oneshot::channel();
    let deadline = Instant::now() + Duration::from_secs(5);
    let node = cluster.node(0);
    node.order(Job::from_peer(proposal.clone(), None, deadline, answer)).await;
    answered.await.expect("an answer")
}

#[tokio::test]
async fn a_call_that_is_sent_twice_is_done_once() {
    let cluster = Cluster::new(2).await;
    cluster.room("r").await;
    let leave = Proposal {
        room: "r".into(),
        sender: who("bob"),
        client_message_id: Arc::from("call:0198"),
        after: None,
        content: Content::RemoveMember { member: who("bob") },
    };
    let once = order(&cluster, &leave).await.expect("he leaves");
    assert_eq!(order(&cluster, &leave).await, Ok(once));
    assert_eq!(cluster.store.log("r").len(), 3);
    let again = Proposal { client_message_id: Arc::from("call:0199"), ..leave.clone() };
    assert_eq!(order(&cluster, &again).await.expect_err("he left").reason, Reason::NotFound);
    // A name of his own gives nothing away to who is no member.
    let text = Content::Text { body: "b".into(), reply_to: 0 };
    let named = Proposal { client_message_id: Arc::from("m"), content: text, ..leave };
    assert_eq!(order(&cluster, &named).await.expect_err("he left").reason, Reason::NotFound);
    let delete = Proposal {
        sender: who("alice"),
        client_message_id: Arc::from("call:0200"),
        content: Content::DeleteRoom,
        ..again
    };
    assert_eq!(order(&cluster, &delete).await.expect("deleted").seq, 0);
    assert_eq!(order(&cluster, &delete).await.expect("deleted").seq, 0);
}

#[tokio::test]
async fn what_a_peer_brings_is_never_passed_on() {
    let cluster = Cluster::new(2).await;
    cluster.room("r").await;
    cluster.hand_over("r", 1).await;
    let before = cluster.peers[0].submitted.load(std::sync::atomic::Ordering::Relaxed);
    let text = Content::Text { body: "b".into(), reply_to: 0 };
    let named = Proposal {
        room: "r".into(),
        sender: who("bob"),
        client_message_id: Arc::from("m"),
        after: None,
        content: text,
    };
    assert_eq!(order(&cluster, &named).await.expect_err("given away").reason, Reason::NotOwner);
    let after = cluster.peers[0].submitted.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(before, after);
    assert!(cluster.node(0).release(cluster.partition("r")).await.is_none());
}
