//! Drivers over one store in memory, on a clock that moves by itself.

mod kit;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use self::kit::{COUNT, Node, Past, World, clocks, until};
use super::JoinError;
use crate::store::ClusterStore as _;
use crate::store::cluster::NodeState;
use crate::store::memory::Conditions;

/// Every partition has one owner, who orders it under the row's epoch.
fn settled(world: &World, nodes: &[&Node]) -> bool {
    world.database.observation().partitions.iter().all(|row| {
        let holders: Vec<u64> = nodes
            .iter()
            .filter_map(|node| node.chat.owned().get(&row.partition).copied())
            .collect();
        holders == [row.epoch]
    })
}

#[tokio::test(start_paused = true)]
async fn nodes_that_join_get_their_share_and_each_partition_has_one_owner() {
    let _clocks = clocks();
    let world = World::default();
    let a = world.node("a").await;
    until("a owns everything", || a.chat.owned().len() == usize::from(COUNT)).await;
    until("a is ready", || a.readiness.is_ready()).await;
    let b = world.node("b").await;
    let c = world.node("c").await;
    until("all have a share", || settled(&world, &[&a, &b, &c]) && world.owners().len() == 3).await;
    assert!(b.readiness.is_ready() && c.readiness.is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_node_of_another_cluster_does_not_join() {
    let _clocks = clocks();
    let mut world = World::default();
    let a = world.node("a").await;
    world.named = Some("another");
    let refused = world.join("b", Arc::default()).await.expect_err("refused");
    let said = refused.to_string();
    assert!(matches!(refused, JoinError::Foreign { key: "cluster.name", .. }), "{said}");
    assert!(said.contains("another") && said.contains("kota"), "{said}");
    assert!(world.state("b").is_none(), "it wrote nothing");
    drop(a);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_beats_no_more_is_declared_dead_before_its_partitions_are_taken() {
    let _clocks = clocks();
    let world = World::default();
    let (a, b) = (world.node("a").await, world.node("b").await);
    until("both have a share", || world.owners().len() == 2 && settled(&world, &[&a, &b])).await;
    let dead = b.incarnation();
    let begun = Instant::now();
    b.kill();
    until("a has all", || {
        let dead = world.state("b") == Some(NodeState::Dead);
        let all = world.owners().get("a") == Some(&usize::from(COUNT));
        assert!(dead || !all, "taken from a node that was not declared dead");
        all && settled(&world, &[&a])
    })
    .await;
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(1_500) && took < Duration::from_secs(4), "{took:?}");
    until("its work is taken up", || world.recovered.0.lock().expect("no panic").contains(&dead))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_panics_takes_its_beat_with_it() {
    let _clocks = clocks();
    let world = World::default();
    let (a, b) = (world.node("a").await, world.node("b").await);
    until("both have a share", || world.owners().len() == 2 && settled(&world, &[&a, &b])).await;
    b.chat.breaks.store(true, Relaxed);
    until("its driver is gone", || b.task.is_finished()).await;
    // Its way to the store is as good as ever.
    until("a has all", || world.owners().get("a") == Some(&usize::from(COUNT))).await;
    assert_eq!(world.state("b"), Some(NodeState::Dead));
    assert!(b.task.await.expect_err("gone").is_panic());
}

#[tokio::test(start_paused = true)]
async fn a_refused_link_hastens_the_death() {
    let _clocks = clocks();
    let world = World::default();
    let (a, b) = (world.node("a").await, world.node("b").await);
    until("both have a share", || world.owners().len() == 2 && settled(&world, &[&a, &b])).await;
    let begun = Instant::now();
    b.kill();
    a.inbox.link_refused("b", &b.incarnation(), crate::clock::since_boot());
    until("a has all", || settled(&world, &[&a])).await;
    let took = begun.elapsed();
    assert!(took < Duration::from_millis(1_600), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_declared_dead_gives_up_and_comes_back_as_another() {
    let _clocks = clocks();
    let world = World::default();
    let (a, b) = (world.node("a").await, world.node("b").await);
    until("both have a share", || world.owners().len() == 2 && settled(&world, &[&a, &b])).await;
    let before = b.incarnation();
    b.cut(true);
    until("a has all", || settled(&world, &[&a]) || b.chat.owned().is_empty()).await;
    until("a has its rows", || world.owners().get("a") == Some(&usize::from(COUNT))).await;
    b.cut(false);
    until("b has a share again", || world.owners().len() == 2 && settled(&world, &[&a, &b])).await;
    assert_ne!(b.incarnation(), before);
    assert_eq!(b.past.0.lock().expect("no panic").len(), 2, "each incarnation is remembered");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_makes_nobody_dead() {
    let _clocks = clocks();
    let world = World::default();
    let (a, b) = (world.node("a").await, world.node("b").await);
    until("both have a share", || world.owners().len() == 2 && settled(&world, &[&a, &b])).await;
    until("both are ready", || a.readiness.is_ready() && b.readiness.is_ready()).await;
    let before = (a.incarnation(), b.incarnation());
    world.all(Conditions { cut: true, ..Conditions::default() });
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(a.readiness.pending(), ["store reachable"]);
    world.all(Conditions::default());
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(a.readiness.is_ready());
    assert_eq!((a.incarnation(), b.incarnation()), before);
    assert!(["a", "b"].iter().all(|id| world.state(id) == Some(NodeState::Live)));
    assert!(settled(&world, &[&a, &b]));
}

#[tokio::test(start_paused = true)]
async fn two_nodes_with_one_id_are_refused_and_a_run_of_the_same_directory_is_not() {
    let _clocks = clocks();
    let world = World::default();
    let past: Arc<Past> = Arc::default();
    let a = world.join("a", past.clone()).await.expect("it joins");
    until("a owns everything", || settled(&world, &[&a])).await;
    let other = world.join("a", Arc::default()).await;
    let refused = other.expect_err("the id is taken");
    assert!(matches!(refused, JoinError::Alive { .. }), "{refused}");
    assert!(refused.to_string().contains("alive at a:7444"), "{refused}");
    assert!(settled(&world, &[&a]), "nothing was damaged");

    let (dead, begun) = (a.incarnation(), Instant::now());
    a.kill();
    let again = world.join("a", past).await.expect("its own earlier run is over");
    until("it owns everything again", || settled(&world, &[&again])).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    until("the earlier run's work is taken up", || {
        world.recovered.0.lock().expect("no panic").contains(&dead)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stalls_while_a_row_is_watched_makes_nobody_dead() {
    let _clocks = clocks();
    let world = World::default();
    let a = world.node("a").await;
    until("a owns everything", || settled(&world, &[&a])).await;
    // No beat of it arrives between the first look at its row and one that comes
    // later than a beat may.
    let slow = Duration::from_millis(1_200);
    let stall = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.all(Conditions { at_least: slow, at_most: slow, ..Conditions::default() });
        tokio::time::sleep(slow * 2).await;
        world.all(Conditions::default());
    };
    let (other, ()) = tokio::join!(world.join("a", Arc::default()), stall);
    let refused = other.expect_err("the id is taken");
    assert!(matches!(refused, JoinError::Alive { .. }), "{refused}");
    assert_eq!(world.state("a"), Some(NodeState::Live));
    assert!(settled(&world, &[&a]));
}

#[tokio::test(start_paused = true)]
async fn a_crashed_node_on_another_disk_is_watched_and_then_replaced() {
    let _clocks = clocks();
    let world = World::default();
    let a = world.node("a").await;
    until("a owns everything", || settled(&world, &[&a])).await;
    a.kill();
    let again = world.node("a").await;
    until("it owns everything again", || settled(&world, &[&again])).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_drains_hands_everything_over_sends_its_sessions_away_and_leaves() {
    let _clocks = clocks();
    let world = World::default();
    let (a, b) = (world.node("a").await, world.node("b").await);
    until("both have a share", || world.owners().len() == 2 && settled(&world, &[&a, &b])).await;
    *a.chat.sessions.lock().expect("no panic") = 3;
    let begun = Instant::now();
    assert!(a.handle.hand_over(Duration::from_secs(5)).await);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(world.state("a"), Some(NodeState::Draining));
    until("b has all", || settled(&world, &[&b])).await;
    until("its sessions are told", || *a.chat.sessions.lock().expect("no panic") == 0).await;
    assert_eq!(*a.chat.turned_away.lock().expect("no panic"), ["b:7443"]);
    a.handle.leave(Duration::from_secs(5)).await;
    assert_eq!(world.state("a"), Some(NodeState::Left));
    a.task.await.expect("it ends by itself");
}

#[tokio::test(start_paused = true)]
async fn an_operators_wish_to_drain_is_seen_in_the_row() {
    let _clocks = clocks();
    let world = World::default();
    let (a, b) = (world.node("a").await, world.node("b").await);
    until("both have a share", || world.owners().len() == 2 && settled(&world, &[&a, &b])).await;
    let operator = world.database.client();
    assert!(operator.set_state("a", &a.incarnation(), NodeState::Draining).await.expect("asked"));
    until("b has all", || settled(&world, &[&b])).await;
    let standing = a.handle.standing().borrow().clone();
    assert!(standing.draining && standing.free, "{standing:?}");
    assert_eq!(standing.elsewhere, ["b:7443"]);
}

#[tokio::test(start_paused = true)]
async fn what_chat_lost_is_taken_anew_under_a_later_epoch() {
    let _clocks = clocks();
    let world = World::default();
    let a = world.node("a").await;
    until("a owns everything", || settled(&world, &[&a])).await;
    let epoch = a.chat.owned()[&3];
    a.chat.owned().remove(&3);
    a.inbox.lost(3, epoch);
    until("it is taken anew", || settled(&world, &[&a])).await;
    assert_eq!(a.chat.owned()[&3], epoch + 1);
}

#[tokio::test(start_paused = true)]
async fn a_promoted_standby_makes_every_partition_be_taken_anew_and_an_older_primary_none() {
    let _clocks = clocks();
    let world = World::default();
    let a = world.node("a").await;
    until("a owns everything", || settled(&world, &[&a])).await;
    let epoch = a.chat.owned()[&3];
    world.database.be_of_timeline(2);
    until("it is taken anew", || {
        settled(&world, &[&a]) && a.chat.owned().values().all(|now| *now > epoch)
    })
    .await;
    world.database.be_of_timeline(1);
    until("the older one is not used", || {
        a.chat.owned().is_empty() && a.readiness.pending() == ["the newest primary"]
    })
    .await;
    world.database.be_of_timeline(2);
    until("the newest is", || settled(&world, &[&a]) && a.readiness.is_ready()).await;
}
