//! Ownership and fencing, model-checked exhaustively in a small world: three
//! nodes, two partitions, and everything that can go wrong between them and
//! their store, in every order.
//!
//! The decisions are those of the real cores (`cluster::ownership`, and
//! `cluster::membership` where time passes: [`heal`]); the store's steps are
//! those that the engines take, one statement at a time. A freeze needs no step
//! of its own: a node that is not scheduled while the others go on is frozen.
//! Nor does a cut link: nothing that decides about ownership goes over one.
//!
//! Three planted faults show that the checker would find them.

#![allow(clippy::print_stdout)] // Traces of what is found.

mod heal;
mod steps;
mod world;

use stateright::{Checker, HasDiscoveries, Model};
use world::{Fault, World};

/// Checks a world, until `enough` has been found; gives the names of the
/// properties that do not hold, or, where something is to be reached, of those
/// that were reached.
fn discoveries(world: World, enough: HasDiscoveries) -> (usize, Vec<&'static str>) {
    let checker = world.checker().threads(2).finish_when(enough).spawn_bfs().join();
    let mut found: Vec<_> = checker.discoveries().into_keys().collect();
    found.sort_unstable();
    for (name, path) in checker.discoveries() {
        println!("{name}:\n  {:?}", path.into_actions());
    }
    println!("{} states", checker.unique_state_count());
    (checker.unique_state_count(), found)
}

/// Checks a world with a planted fault until it has been found.
fn finds(fault: Fault, property: &'static str) {
    let (_, found) =
        discoveries(World::with(fault), HasDiscoveries::AnyOf([property].into_iter().collect()));
    assert!(found.contains(&property), "{found:?}");
}

/// What must be reached, or the world would prove nothing.
const REACHED: [&str; 4] = [
    "a commit lands after its node was declared dead",
    "a handed over partition is written by its successor",
    "a partition is written again after a lost answer",
    "a take waits for a commit under way",
];

#[test]
fn whatever_happens_no_acknowledged_entry_is_lost() {
    let (states, found) = discoveries(World::safety(), HasDiscoveries::AnyFailures);
    assert!(states > 10_000, "the world is not a trivial one: {states}");
    assert_eq!(found, REACHED);
}

#[test]
fn whatever_happened_every_partition_finds_an_owner_again() {
    let (states, found) = discoveries(World::liveness(), HasDiscoveries::AnyFailures);
    assert!(states > 1_000, "the world is not a trivial one: {states}");
    assert!(found.iter().all(|name| REACHED.contains(name)), "{found:?}");
}

/// Takes minutes: only where SIMPUL_TEST_MODEL=wide asks for it.
#[test]
fn two_partitions_at_once_lose_nothing_either() {
    if std::env::var_os("SIMPUL_TEST_MODEL").is_none() {
        println!("not checked: SIMPUL_TEST_MODEL=wide asks for it");
        return;
    }
    let (_, found) = discoveries(World::wide(), HasDiscoveries::AnyFailures);
    assert!(found.iter().all(|name| REACHED.contains(name)), "{found:?}");
}

#[test]
fn a_removed_fence_is_found() {
    finds(Fault::NoFence, world::SEQS);
}

#[test]
fn a_head_read_in_the_takeovers_own_statement_is_found() {
    finds(Fault::HeadInTake, world::SEQS);
}

#[test]
fn an_acknowledgement_before_the_commit_is_found() {
    finds(Fault::AckFirst, world::ACKED);
}
