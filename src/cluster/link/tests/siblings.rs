//! A connection of several is down: its siblings carry what it carried.

use super::kit::{Node, P, World, take};
use super::*;
use crate::chat::Peers as _;

/// Waits until so many of a node's connections to another stand.
async fn connected(node: &Node, count: u32) {
    let standing = async {
        while node.links.status()[0].connections != count {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(std::time::Duration::from_secs(20), standing).await;
    assert!(waited.is_ok(), "{:?}", node.links.status());
}

/// The connection to the other node that carries the partition.
fn carrier(node: &Node, to: &str) -> Arc<Outgoing> {
    node.links.shared.link_to(to, P).expect("a link")
}

fn count(told: &[String], what: &str) -> usize {
    told.iter().filter(|told| *told == what).count()
}

/// How many links want something of the partition.
fn wanting(node: &Node) -> usize {
    let all = node.links.shared.incoming();
    let wants = |link: &incoming::Incoming| {
        link.subscribed().as_ref().is_some_and(|all| all.contains_key(&P))
    };
    all.values().filter(|link| wants(link)).count()
}

#[tokio::test]
async fn a_sibling_carries_a_partition_while_its_connection_is_down() {
    let world = World { connections: 2, ..World::new() };
    let [a, b] = world.nodes(["a", "b"]);
    connected(&a, 2).await;
    take(&b, 5, &[&a]);
    a.owner.seen.send_modify(|seen| seen.follows = Some("r".into()));
    a.links.follow(P, &"r".into());
    a.owner.until(|seen| seen.told.contains(&"followed r at 5".into())).await;
    let home = carrier(&a, "b").connection();
    assert_eq!(home, P % 2);

    // It breaks and does not come back.
    a.owner.seen.send_modify(|seen| seen.told.clear());
    *world.wires.at_most.lock().expect("not poisoned") = Some(1);
    carrier(&a, "b").outbox().close();
    let told = a.owner.until(|seen| seen.told.contains(&"followed r at 5".into())).await.told;
    assert_eq!(told[0], "unlinked", "the chain is broken: {told:?}");
    connected(&a, 1).await;
    assert_ne!(carrier(&a, "b").connection(), home);
    b.commits(100);
    a.owner.until(|seen| seen.told.contains(&"reached 1".into())).await;
    for n in 0..50 {
        let sent = a.send(&format!("m{n}")).await.expect("answered").expect("committed");
        assert_eq!(sent.seq, n + 1);
    }
    let metrics = &a.links.shared.metrics;
    assert_eq!((metrics.relayed.get(), metrics.letters.get()), (0, 0), "the link is up");

    // It comes back, and takes over with jobs under way.
    a.owner.seen.send_modify(|seen| seen.told.clear());
    let answers: Vec<_> = (50..80).map(|n| a.send(&format!("m{n}"))).collect();
    *world.wires.at_most.lock().expect("not poisoned") = None;
    let told = a.owner.until(|seen| seen.told.contains(&"followed r at 5".into())).await.told;
    assert_eq!(count(&told, "unlinked"), 1, "{told:?}");
    connected(&a, 2).await;
    assert_eq!(carrier(&a, "b").connection(), home);
    for (n, answer) in (50..80).zip(answers) {
        assert_eq!(answer.await.expect("answered").expect("committed").seq, n + 1);
    }
    assert_eq!(b.owner.seen.borrow().log, (0..80).map(|n| format!("m{n}")).collect::<Vec<_>>());
    let at = b.owner.seen.borrow().commit_no + 1;
    b.commits(100);
    let told = a.owner.until(|seen| seen.told.contains(&format!("reached {at}"))).await.told;
    assert_eq!(count(&told, &format!("append {at}")), 1, "{told:?}");
    assert_eq!(wanting(&b), 1, "the sibling is sent nothing more");
}
