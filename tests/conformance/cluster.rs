//! What every engine's cluster area promises. Each case begins with an empty
//! store.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use simpul::store::chat::{Appended, PartitionState};
use simpul::store::cluster::{Agreement, ClusterStore, Joined, NodeInfo, NodeState};
use simpul::store::{ChatStore, StoreError};
use simpul::task;

use crate::chat::{PARTITIONS, create, part, text};

fn node(id: &str, incarnation: &str) -> NodeInfo {
    NodeInfo {
        id: id.to_owned(),
        incarnation: incarnation.to_owned(),
        public_address: format!("{id}:7443"),
        mesh_address: format!("{id}:7444"),
        zone: "a".to_owned(),
        release: "0.1.0".to_owned(),
        started_at: 5,
    }
}

async fn join<S: ClusterStore>(store: &S, id: &str, incarnation: &str) {
    assert_eq!(store.join(&node(id, incarnation)).await.unwrap(), Joined::New);
}

async fn state_of<S: ClusterStore>(store: &S, id: &str) -> Option<(String, NodeState, u64)> {
    let seen = store.observe().await.unwrap();
    let row = seen.nodes.into_iter().find(|row| row.info.id == id)?;
    Some((row.info.incarnation, row.state, row.beat))
}

async fn row<S: ClusterStore>(store: &S, partition: u16) -> PartitionState {
    store.observe().await.unwrap().partitions[usize::from(partition)].clone()
}

pub(crate) async fn a_node_joins_and_beats<S: ClusterStore>(open: impl AsyncFn() -> Arc<S>) {
    let store = open().await;
    assert_eq!(store.observe().await.unwrap().nodes, []);
    assert_eq!(store.beat("n1", "i1", 0).await.unwrap(), None);
    join(&*store, "n1", "i1").await;
    let seen = store.observe().await.unwrap();
    assert_eq!(seen.nodes[0].info, node("n1", "i1"));
    assert_eq!((seen.nodes[0].state, seen.nodes[0].beat), (NodeState::Live, 1));
    for beat in 2..5 {
        let state = store.beat("n1", "i1", 70 + u32::try_from(beat).unwrap()).await.unwrap();
        assert_eq!(state, Some(NodeState::Live));
        let seen = store.observe().await.unwrap();
        assert_eq!((seen.nodes[0].beat, u64::from(seen.nodes[0].sessions)), (beat, 70 + beat));
    }
    assert_eq!(store.beat("n1", "i2", 0).await.unwrap(), None, "another incarnation");
    assert_eq!(store.beat("n2", "i1", 0).await.unwrap(), None, "another node");
    // Who asks again, because the answer was lost, has joined.
    join(&*store, "n1", "i1").await;
}

pub(crate) async fn an_id_has_one_incarnation_that_is_alive<S: ClusterStore + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store = open().await;
    let joining: Vec<_> = (0..8)
        .map(|turn| {
            let store = store.clone();
            task::spawn(
                "joining",
                async move { store.join(&node("n1", &format!("i{turn}"))).await },
            )
        })
        .collect();
    let mut joined = Vec::new();
    for one in joining {
        joined.push(one.await.unwrap().unwrap());
    }
    assert_eq!(joined.iter().filter(|one| **one == Joined::New).count(), 1);
    let (winner, ..) = state_of(&*store, "n1").await.unwrap();
    for one in joined {
        if let Joined::Taken(by) = one {
            assert_eq!(by.info.incarnation, winner);
        }
    }
    assert!(store.declare_dead("n1", &winner, 1).await.unwrap());
    // The dead one may not come back, another one may.
    assert!(matches!(store.join(&node("n1", &winner)).await.unwrap(), Joined::Taken(_)));
    join(&*store, "n1", "later").await;
    assert_eq!(store.beat("n1", &winner, 0).await.unwrap(), None);
    assert_eq!(store.beat("n1", "later", 0).await.unwrap(), Some(NodeState::Live));
}

pub(crate) async fn death_is_declared_on_an_unchanged_beat_alone<S: ClusterStore>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store = open().await;
    join(&*store, "n1", "i1").await;
    store.beat("n1", "i1", 0).await.unwrap();
    assert!(!store.declare_dead("n1", "i1", 1).await.unwrap(), "it has beaten since");
    assert!(!store.declare_dead("n1", "i2", 2).await.unwrap());
    assert!(!store.declare_dead("n2", "i1", 2).await.unwrap());
    assert!(store.declare_dead("n1", "i1", 2).await.unwrap());
    assert!(!store.declare_dead("n1", "i1", 2).await.unwrap(), "it is dead already");
    assert_eq!(store.beat("n1", "i1", 0).await.unwrap(), None);
    assert_eq!(state_of(&*store, "n1").await.unwrap(), ("i1".to_owned(), NodeState::Dead, 2));
    assert!(!store.set_state("n1", "i1", NodeState::Draining).await.unwrap());
}

pub(crate) async fn states_change_while_alive<S: ClusterStore>(open: impl AsyncFn() -> Arc<S>) {
    let store = open().await;
    join(&*store, "n1", "i1").await;
    assert!(!store.set_state("n1", "i2", NodeState::Draining).await.unwrap());
    assert!(store.set_state("n1", "i1", NodeState::Draining).await.unwrap());
    // Whoever wrote it, the node learns it with its beat.
    assert_eq!(store.beat("n1", "i1", 0).await.unwrap(), Some(NodeState::Draining));
    assert!(matches!(store.join(&node("n1", "i2")).await.unwrap(), Joined::Taken(_)));
    assert!(store.set_state("n1", "i1", NodeState::Left).await.unwrap());
    assert_eq!(store.beat("n1", "i1", 0).await.unwrap(), None);
    assert!(!store.set_state("n1", "i1", NodeState::Live).await.unwrap());
    join(&*store, "n1", "i2").await;
    assert_eq!(state_of(&*store, "n1").await.unwrap(), ("i2".to_owned(), NodeState::Live, 1));
}

pub(crate) async fn partitions_are_made_once_and_counted<S: ClusterStore + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store = open().await;
    let making: Vec<_> = (0..5)
        .map(|_| {
            let store = store.clone();
            task::spawn("making", async move { store.ensure_partitions(PARTITIONS).await })
        })
        .collect();
    for one in making {
        one.await.unwrap().unwrap();
    }
    let seen = store.observe().await.unwrap().partitions;
    let nobodys =
        |partition| PartitionState { partition, owner: String::new(), epoch: 0, commit_no: 0 };
    assert_eq!(seen, (0..PARTITIONS).map(nobodys).collect::<Vec<_>>());
    for other in [0, PARTITIONS - 1, PARTITIONS + 1] {
        let refused = store.ensure_partitions(other).await.unwrap_err();
        assert!(matches!(refused, StoreError::Version(_)), "{refused}");
    }
}

pub(crate) async fn what_the_first_node_says_of_the_cluster_stands<S: ClusterStore + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store = open().await;
    let of = |name: &str| Agreement {
        cluster: name.to_owned(),
        trust_domain: format!("{name}.example"),
    };
    let asking: Vec<_> = (0..5)
        .map(|turn| {
            let (store, own) = (store.clone(), of(&format!("c{turn}")));
            task::spawn("agreeing", async move { store.agree(&own).await })
        })
        .collect();
    let mut heard = Vec::new();
    for one in asking {
        heard.push(one.await.unwrap().unwrap());
    }
    heard.dedup();
    let [first] = &heard[..] else { panic!("they heard different things: {heard:?}") };
    assert_eq!(*first, of(&first.cluster), "both of one node");
    assert_eq!(store.agree(&of("later")).await.unwrap(), *first);
    drop(store);
    assert_eq!(open().await.agree(&of("later")).await.unwrap(), *first, "for good");
}

pub(crate) async fn a_partition_is_taken_by_one<S: ClusterStore + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store = open().await;
    store.ensure_partitions(PARTITIONS).await.unwrap();
    let seen = row(&*store, 2).await;
    let taking: Vec<_> = (0..6)
        .map(|taker| {
            let (store, seen) = (store.clone(), seen.clone());
            let by = format!("n{taker}");
            task::spawn("taking", async move { store.take(&seen, &by, "").await.unwrap() })
        })
        .collect();
    let mut taken = Vec::new();
    for one in taking {
        taken.extend(one.await.unwrap());
    }
    assert_eq!(taken.len(), 1);
    assert_eq!((taken[0].partition, taken[0].epoch, taken[0].commit_no), (2, 1, 0));
    assert_eq!(row(&*store, 2).await, taken[0]);
    // An old view takes nothing, the present one does, also from oneself.
    assert_eq!(store.take(&seen, "n9", "").await.unwrap(), None);
    let same_owner = PartitionState { epoch: 0, ..taken[0].clone() };
    assert_eq!(store.take(&same_owner, "n9", "").await.unwrap(), None);
    let again = store.take(&taken[0], &taken[0].owner, "").await.unwrap().unwrap();
    assert_eq!((again.owner.as_str(), again.epoch), (taken[0].owner.as_str(), 2));
    let absent = PartitionState { partition: PARTITIONS, ..again };
    assert_eq!(store.take(&absent, "n9", "").await.unwrap(), None);
}

pub(crate) async fn a_takeover_fences_the_owner_before<S: ClusterStore + ChatStore>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store = open().await;
    store.ensure_partitions(PARTITIONS).await.unwrap();
    let first = store.take(&row(&*store, 0).await, "n1", "").await.unwrap().unwrap();
    let kept = store.append(vec![part(0, vec![create("lobby")])]).await.unwrap();
    assert_eq!(kept, [Appended::Committed { commit_no: 1 }]);
    // The commit number is no part of what must be unchanged.
    let second = store.take(&first, "n2", "").await.unwrap().unwrap();
    assert_eq!((second.epoch, second.commit_no), (2, 1));
    let late = store.append(vec![part(0, vec![text("lobby", 2, "m")])]).await.unwrap();
    assert_eq!(late, [Appended::Fenced]);
    assert_eq!(store.heads(0, vec!["lobby".into()]).await.unwrap(), [Some(1)]);
}

pub(crate) async fn a_release_names_the_successor<S: ClusterStore + ChatStore>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store = open().await;
    store.ensure_partitions(PARTITIONS).await.unwrap();
    store.take(&row(&*store, 1).await, "n1", "").await.unwrap().unwrap();
    for (owner, epoch) in [("n2", 1), ("n1", 0), ("n1", 2)] {
        assert_eq!(store.release(1, owner, epoch, "n3").await.unwrap(), None);
    }
    let released = store.release(1, "n1", 1, "n2").await.unwrap().unwrap();
    assert_eq!((released.owner.as_str(), released.epoch), ("n2", 2));
    assert_eq!(row(&*store, 1).await, released);
    let late = store.append(vec![part(1, vec![create("lobby")])]).await.unwrap();
    assert_eq!(late, [Appended::Fenced]);
    assert_eq!(store.release(1, "n1", 1, "n2").await.unwrap(), None, "once");
}

pub(crate) async fn everything_is_observed<S: ClusterStore + ChatStore>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store = open().await;
    store.ensure_partitions(PARTITIONS).await.unwrap();
    for id in ["n2", "n3", "n1"] {
        join(&*store, id, &format!("i-{id}")).await;
    }
    store.take(&row(&*store, 3).await, "n2", "").await.unwrap().unwrap();
    let seen = store.observe().await.unwrap();
    let ids: Vec<_> = seen.nodes.iter().map(|row| row.info.id.as_str()).collect();
    assert_eq!(ids, ["n1", "n2", "n3"]);
    let owners: Vec<_> =
        seen.partitions.iter().map(|one| (one.partition, one.owner.as_str())).collect();
    assert_eq!(owners, [(0, ""), (1, ""), (2, ""), (3, "n2")]);
    assert_eq!(store.partition_states().await.unwrap(), seen.partitions);
    drop(store);
    let again = open().await.observe().await.unwrap();
    assert_eq!(again.partitions, seen.partitions);
}

pub(crate) async fn letters_are_answered_and_collected_once<S: ClusterStore>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store = open().await;
    let first = store.leave_letter(0, "i1", b"one").await.unwrap();
    let second = store.leave_letter(1, "i1", b"\0two\xff").await.unwrap();
    let third = store.leave_letter(0, "i2", b"").await.unwrap();
    assert!(first < second && second < third);
    let ids = async |partitions: &[u16], limit| {
        let letters = store.letters(partitions, limit).await.unwrap();
        letters.iter().map(|letter| letter.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(&[0, 1], 9).await, [first, second, third]);
    assert_eq!(ids(&[0], 9).await, [first, third]);
    assert_eq!(ids(&[0, 1], 2).await, [first, second]);
    assert_eq!(ids(&[2], 9).await, [0i64; 0]);
    assert_eq!(ids(&[], 9).await, [0i64; 0]);
    let letter = store.letters(&[1], 9).await.unwrap().remove(0);
    assert_eq!((letter.partition, letter.from.as_str()), (1, "i1"));
    assert_eq!(letter.body, b"\0two\xff");
    assert_eq!(store.collect_answers("i1").await.unwrap(), []);
    let answers = vec![(second, b"\0done".to_vec()), (first, vec![]), (third + 1_000, vec![1])];
    store.answer_letters(answers).await.unwrap();
    store.answer_letters(vec![(second, b"again".to_vec())]).await.unwrap();
    store.answer_letters(vec![]).await.unwrap();
    assert_eq!(ids(&[0, 1], 9).await, [third]);
    let collected = store.collect_answers("i1").await.unwrap();
    assert_eq!(collected, [(first, vec![]), (second, b"\0done".to_vec())]);
    assert_eq!(store.collect_answers("i1").await.unwrap(), []);
    assert_eq!(store.collect_answers("i2").await.unwrap(), []);
}

pub(crate) async fn what_nobody_needs_is_tidied<S: ClusterStore>(open: impl AsyncFn() -> Arc<S>) {
    let store = open().await;
    for id in ["n1", "n2", "n3", "n4"] {
        let info = node(id, &format!("i-{id}"));
        assert_eq!(store.join(&info).await.unwrap(), Joined::New);
        store.leave_letter(0, &info.incarnation, b"x").await.unwrap();
    }
    assert!(store.declare_dead("n2", "i-n2", 1).await.unwrap());
    assert!(store.set_state("n3", "i-n3", NodeState::Draining).await.unwrap());
    assert!(store.set_state("n4", "i-n4", NodeState::Left).await.unwrap());
    let over = ["i-n1", "i-n2", "i-n3", "another"].map(str::to_owned).to_vec();
    store.tidy_cluster(over).await.unwrap();
    let seen = store.observe().await.unwrap();
    let ids: Vec<_> = seen.nodes.iter().map(|row| row.info.id.as_str()).collect();
    assert_eq!(ids, ["n1", "n3", "n4"], "the living stay, and one that was not named");
    let letters = store.letters(&[0], 9).await.unwrap();
    let from: Vec<_> = letters.iter().map(|letter| letter.from.as_str()).collect();
    assert_eq!(from, ["i-n1", "i-n3"]);
}

pub(crate) async fn a_database_has_an_identity<S: ClusterStore>(open: impl AsyncFn() -> Arc<S>) {
    let store = open().await;
    let identity = store.identity().await.unwrap();
    assert!(!identity.system_id.is_empty());
    assert_eq!(open().await.identity().await.unwrap(), identity);
    assert_eq!(store.identity().await.unwrap(), identity);
}
