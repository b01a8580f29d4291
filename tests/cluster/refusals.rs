//! What does not belong to the cluster does not get in.

use crate::cluster::Cluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_refused_at_start_with_the_key_and_the_reason() {
    let Some(cluster) = Cluster::start("refusals", 1).await else { return };
    let twin = cluster.refused("twin", "n0", &[]);
    assert!(twin.contains("node.id: another node with the id n0 is alive at 127.0.0.1:"), "{twin}");
    let split = cluster.refused("split", "n7", &[("SIMPUL_CHAT__PARTITIONS", "64")]);
    assert!(split.contains("partition"), "{split}");
    let shared = cluster.refused("shared", "n8", &[("SIMPUL_CLUSTER__SHARED_FILE", "true")]);
    assert!(shared.contains("cluster.shared_file"), "{shared}");
    let seen = cluster.seen_by(0).await;
    assert_eq!(seen.nodes.len(), 1, "nothing was damaged");
    assert_eq!(seen.nodes[0].partitions, 32);
    cluster.end().await;
}
