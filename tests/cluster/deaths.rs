//! Nodes that die without a word.

use simpul::proto::cluster::v1::NodeState;

use crate::cluster::{Cluster, Writer, check, log};
use crate::support::eventually;
use crate::talk::room;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_is_killed_is_replaced_and_nothing_is_lost() {
    let Some(mut cluster) = Cluster::start("a killed owner", 3).await else { return };
    let alice = cluster.token("alice", &[]);
    room(cluster.nodes[0].channel().await, &alice, "lobby", &[]).await;
    let owner = cluster.owner_of("lobby").await;
    let others: Vec<usize> = (0..3).filter(|at| *at != owner).collect();
    let nodes = [&cluster.nodes[others[0]], &cluster.nodes[others[1]]];
    let first = Writer::start(&nodes, &alice, "lobby", "first", false).await;
    let second = Writer::start(&[nodes[1], nodes[0]], &alice, "lobby", "second", false).await;
    first.more(20).await;
    second.more(20).await;
    cluster.nodes[owner].kill();
    first.more(20).await;
    second.more(20).await;
    let mut acknowledged = first.stop().await;
    acknowledged.extend(second.stop().await);
    check(&log(&cluster.nodes[others[0]], &alice, "lobby").await, &acknowledged);

    // It comes back as another incarnation of itself, and gets its share.
    cluster.nodes[owner].restart();
    cluster.nodes[owner].ok(&["health"]);
    let id = format!("n{owner}");
    eventually("it owns partitions again", async || {
        let seen = cluster.seen_by(others[0]).await;
        let node = seen.nodes.iter().find(|node| node.node_id == id)?;
        (node.state() == NodeState::Live && node.partitions > 0).then_some(())
    })
    .await;
    check(&log(&cluster.nodes[owner], &alice, "lobby").await, &acknowledged);
    cluster.end().await;
}
