//! Links of two and three nodes in one process.

mod kit;
mod siblings;
mod tls;

use kit::{P, World, identity, info, take};

use super::*;
use crate::chat::Peers as _;

#[tokio::test]
async fn jobs_reach_the_owner_in_order_and_are_answered() {
    let world = World::new();
    let [a, b] = world.nodes(["a", "b"]);
    a.linked("b").await;
    take(&b, 5, &[&a]);
    let answers: Vec<_> = (0..200).map(|n| a.send(&format!("m{n}"))).collect();
    for (n, answer) in answers.into_iter().enumerate() {
        let published = answer.await.expect("answered").expect("committed");
        assert_eq!(published.seq, n as u64 + 1);
    }
    assert!(!a.links.waits(P));
    let seen = b.owner.seen.borrow().clone();
    assert_eq!(seen.log, (0..200).map(|n| format!("m{n}")).collect::<Vec<_>>());
    assert_eq!(seen.asked, 200);
}

#[tokio::test]
async fn what_waits_goes_to_the_new_owner_in_order_and_once() {
    let world = World::new();
    let [a, b, c] = world.nodes(["a", "b", "c"]);
    a.linked("b").await;
    a.linked("c").await;
    // Named, but it has not taken it: everything is refused there.
    a.links.directory(&[PartitionState {
        partition: P,
        owner: "b".into(),
        epoch: 5,
        commit_no: 0,
    }]);
    let answers: Vec<_> = (0..50).map(|n| a.send(&format!("m{n}"))).collect();
    b.owner.until(|seen| seen.asked > 0).await;
    take(&c, 6, &[&a]);
    for answer in answers {
        answer.await.expect("answered").expect("committed");
    }
    let log = c.owner.seen.borrow().log.clone();
    assert_eq!(log, (0..50).map(|n| format!("m{n}")).collect::<Vec<_>>());
    assert!(b.owner.seen.borrow().log.is_empty());

    // An owner that takes jobs and dies: the answers are lost, the names known.
    c.owner.seen.send_modify(|seen| seen.mute = true);
    let answers: Vec<_> = (50..60).map(|n| a.send(&format!("m{n}"))).collect();
    c.owner.until(|seen| seen.log.len() == 60).await;
    world.wires.cut("a", "c");
    let log = c.owner.seen.borrow().log.clone();
    b.owner.seen.send_modify(|seen| seen.log = log.clone());
    take(&b, 7, &[&a]);
    for (n, answer) in (50..60).zip(answers) {
        assert_eq!(answer.await.expect("answered").expect("committed").seq, n + 1);
    }
    assert_eq!(b.owner.seen.borrow().log, log, "doubled");
}

#[tokio::test]
async fn a_job_waits_for_this_node_s_own_ownership_too() {
    let world = World::new();
    let [a, _b] = world.nodes(["a", "b"]);
    let answer = a.send("m");
    assert!(a.links.waits(P));
    take(&a, 2, &[]);
    assert_eq!(answer.await.expect("answered").expect("committed").seq, 1);
    assert!(!a.links.waits(P));
}

#[tokio::test]
async fn a_promoted_standby_may_give_lower_epochs() {
    let world = World::new();
    let [a, b] = world.nodes(["a", "b"]);
    b.owner.seen.send_modify(|seen| seen.epoch = None);
    let lost = PartitionState { partition: P, owner: "b".into(), epoch: 9, commit_no: 0 };
    a.links.directory(&[lost]);
    a.links.timeline(1);
    take(&a, 7, &[]);
    let answer = tokio::time::timeout(std::time::Duration::from_secs(20), a.send("m")).await;
    let answer = answer.expect("in time").expect("answered");
    assert_eq!(answer.expect("committed").seq, 1);
}

#[tokio::test]
async fn through_a_third_node_or_by_letter_where_no_link_leads() {
    let world = World::new();
    world.wires.cut("a", "b");
    let [a, b, c] = world.nodes(["a", "b", "c"]);
    a.linked("c").await;
    c.linked("b").await;
    take(&b, 3, &[&a]);
    let published = a.send("relayed").await.expect("answered").expect("committed");
    assert_eq!(published.seq, 1);

    world.wires.cut("a", "c");
    let published = a.send("letter").await.expect("answered").expect("committed");
    assert_eq!(published.seq, 2);
    assert_eq!(b.owner.seen.borrow().log, ["relayed", "letter"]);
}

#[tokio::test(start_paused = true)]
async fn letters_to_an_owner_that_died_go_to_the_next_one_by_its_link() {
    let world = World::new();
    world.wires.cut("a", "b");
    world.wires.cut("c", "b");
    let [a, b, c] = world.nodes(["a", "b", "c"]);
    a.linked("c").await;
    c.linked("a").await;
    a.links.directory(&[PartitionState {
        partition: P,
        owner: "b".into(),
        epoch: 5,
        commit_no: 0,
    }]);
    let answers: Vec<_> = (0..3).map(|n| a.send(&format!("m{n}"))).collect();
    world.left(1).await;
    take(&c, 6, &[&a]);
    let begun = tokio::time::Instant::now();
    for answer in answers {
        answer.await.expect("answered").expect("committed");
    }
    // Sooner than anybody looks for letters.
    assert!(begun.elapsed() < std::time::Duration::from_millis(100), "{:?}", begun.elapsed());
    assert_eq!(c.owner.seen.borrow().log, ["m0", "m1", "m2"]);
    assert!(b.owner.seen.borrow().log.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_when_nobody_waits_any_more_is_taken_away() {
    let world = World::new();
    world.wires.cut("a", "b");
    let [a, b] = world.nodes(["a", "b"]);
    a.links.directory(&[PartitionState {
        partition: P,
        owner: "b".into(),
        epoch: 5,
        commit_no: 0,
    }]);
    let answer = a.send("m");
    world.left(1).await;
    answer.await.expect("answered").expect_err("its time is over");
    take(&b, 5, &[]);
    b.owner.until(|seen| seen.log == ["m"]).await;
    let cleared = tokio::time::timeout(std::time::Duration::from_secs(60), world.no_letters());
    cleared.await.expect("nothing stays in the store");
}

#[tokio::test]
async fn a_followed_room_gets_what_is_appended_and_asks_again_after_a_break() {
    let world = World::new();
    let [a, b] = world.nodes(["a", "b"]);
    a.linked("b").await;
    take(&b, 5, &[&a]);
    a.owner.seen.send_modify(|seen| seen.follows = Some("r".into()));
    a.links.follow(P, &"r".into());
    a.owner.until(|seen| seen.told.contains(&"followed r at 5".into())).await;
    assert!(b.links.is_followed());
    b.commits(100);
    b.commits(100_000);
    let seen = a.owner.until(|seen| seen.told.contains(&"reached 2".into())).await;
    let appends: Vec<_> = seen.told.iter().filter(|told| told.starts_with("append")).collect();
    assert_eq!(appends, ["append 1", "append 2"]);

    a.owner.seen.send_modify(|seen| seen.told.clear());
    world.wires.cut("a", "b");
    a.owner.until(|seen| seen.told.contains(&"unlinked".into())).await;
    world.wires.mend("a", "b");
    a.owner.until(|seen| seen.told.contains(&"followed r at 5".into())).await;

    // The same node under another epoch: what it did in between is not known.
    a.owner.seen.send_modify(|seen| seen.told.clear());
    b.links.lost(P, 5);
    take(&b, 6, &[]);
    let seen = a.owner.until(|seen| seen.told.contains(&"followed r at 6".into())).await;
    assert_eq!(seen.told[0], "unlinked");
    a.links.unfollow(P, &"r".into());
}

#[tokio::test]
async fn a_full_backlog_becomes_a_resync_and_then_the_room_is_followed_again() {
    let world = World::new();
    let (a, b) = (world.node(identity("a"), 0, 1 << 20), world.node(identity("b"), 0, 4096));
    let infos = [info("a"), info("b")];
    a.links.peers_are(&infos);
    b.links.peers_are(&infos);
    a.linked("b").await;
    take(&b, 5, &[&a]);
    a.owner.seen.send_modify(|seen| seen.follows = Some("r".into()));
    a.links.follow(P, &"r".into());
    a.owner.until(|seen| seen.told.contains(&"followed r at 5".into())).await;
    b.commits(100);
    b.commits(10_000);
    b.commits(100);
    let seen = a
        .owner
        .until(|seen| seen.told.iter().filter(|told| told.starts_with("followed")).count() == 2);
    let told = seen.await.told;
    assert!(told.contains(&"append 1".into()) && told.contains(&"unlinked".into()), "{told:?}");
    assert!(!told.contains(&"append 2".into()) && !told.contains(&"append 3".into()), "{told:?}");
    assert_eq!(b.links.shared.metrics.resyncs.get(), 1);
}

#[tokio::test]
async fn nodes_that_do_not_fit_are_refused_and_both_sides_say_why() {
    type Spoil = fn(&mut Identity);
    let spoilt: [(Spoil, u64, &str); 5] = [
        (|me| me.cluster = "other".into(), 4, "cluster"),
        (|me| me.partitions = 16, 4, "partitions"),
        (|me| me.system_id = "other".into(), 4, "system"),
        (|_| {}, 3, "timeline"),
        (|me| me.incarnation = "a-0".into(), 4, "incarnation"),
    ];
    for (spoil, timeline, cause) in spoilt {
        let world = World::new();
        let mut me = identity("a");
        spoil(&mut me);
        let (a, b) = (world.node(me, timeline, 1 << 20), world.node(identity("b"), 4, 1 << 20));
        let infos = [info("a"), info("b")];
        a.links.peers_are(&infos);
        b.links.peers_are(&infos);
        let problem = async {
            loop {
                let problem = a.links.status()[0].problem.clone();
                if problem.starts_with(cause) {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        let told = tokio::time::timeout(std::time::Duration::from_secs(10), problem).await;
        assert!(told.is_ok(), "{cause}: {:?}", a.links.status());
        let count =
            |links: &Links| links.shared.metrics.refused.get_or_create(&[("reason", cause)]).get();
        assert!(count(&a.links) > 0 && count(&b.links) > 0, "{cause}");
        assert!(!a.links.is_linked("b"));
    }
}

#[tokio::test]
async fn news_reaches_the_driver_and_whoever_waits_for_accounts() {
    let world = World::new();
    let [a, b] = world.nodes(["a", "b"]);
    a.linked("b").await;
    b.linked("a").await;
    a.links.handover(P, 9, "b");
    a.links.draining();
    a.links.touched(&["user/bob@x".into()], &[]);
    let mut touched = b.touches.0.subscribe();
    touched.wait_for(|all| !all.is_empty()).await.expect("touched");
    let mut news = Vec::new();
    while let Some(event) = b.links.events().try_next() {
        news.push(event);
    }
    assert!(news.contains(&LinkEvent::Handover { partition: P, epoch: 9, from: "a".into() }));
    assert!(news.contains(&LinkEvent::Draining { node: "a".into() }));

    world.wires.cut("b", "a");
    let down = async {
        loop {
            if let LinkEvent::Refused { node, .. } = b.links.events().next().await {
                return node;
            }
        }
    };
    let down = tokio::time::timeout(std::time::Duration::from_secs(10), down).await;
    assert_eq!(down.as_deref(), Ok("a"));
    assert_eq!(b.links.status()[0].connections, 0);
}
