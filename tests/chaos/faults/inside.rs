//! A node that is frozen inside the transaction of an append, between its fence
//! and its COMMIT.
//!
//! It is held there at a fault point, then stopped. The others must take its
//! partitions although it holds their rows locked; when it goes on, it must not
//! commit. That is asked of the database itself: it ended the session while the
//! node stood in it, or it knows the transactions' numbers and what became of
//! them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::time::sleep;

use crate::world::{LONG, World};

/// What the database says when it loses its patience with such a session.
const ENDED: &str = "terminating connection due to idle-in-transaction timeout";

/// SIGSTOP inside, for so many milliseconds and until the others have what it
/// owned; then SIGCONT.
pub async fn freeze(world: &World, node: usize, millis: u64) {
    let node = with_rooms(world, node);
    let hold = world.nodes[node].faults().join("append.fenced.hold");
    let ended = ended(world);
    std::fs::write(&hold, "").expect("written");
    comes_inside(world, node).await;
    world.nodes[node].signal(Signal::STOP);
    let inside = inside(world, node);
    sleep(Duration::from_millis(millis)).await;
    owns_nothing(world, node).await;
    let proven = !inside.is_empty() || self::ended(world) > ended;
    std::fs::remove_file(&hold).expect("removed");
    world.nodes[node].signal(Signal::CONT);
    assert!(proven, "the database saw no append of node {node} stand still");
    for transaction in inside {
        let status = world.postgres.sql(&format!("SELECT txid_status({transaction})"));
        assert_eq!(status, "aborted", "what it was frozen in");
    }
}

/// The node that is asked for; where chance gave it no room that is talked in, the
/// one that has most.
fn with_rooms(world: &World, node: usize) -> usize {
    let owners = world.postgres.sql_in(
        "simpul",
        "SELECT owner FROM room JOIN \"partition\" ON id = room.\"partition\" WHERE owner <> '' \
         GROUP BY owner ORDER BY count(*) DESC",
    );
    if owners.lines().any(|owner| owner == world.nodes[node].id) {
        return node;
    }
    let most = owners.lines().next().expect("rooms have owners");
    world.nodes.iter().position(|node| node.id == most).expect("a node of this world")
}

/// Waits until a node stands behind its fence. It is held by a file that exists:
/// whatever passes the point from now on stays there.
async fn comes_inside(world: &World, node: usize) {
    let count = world.nodes[node].faults().join("append.fenced");
    let passed = || std::fs::metadata(&count).map_or(0, |file| file.len());
    let (before, begun) = (passed(), Instant::now());
    while passed() == before {
        assert!(begun.elapsed() < LONG, "node {node} appends nothing");
        sleep(Duration::from_millis(1)).await;
    }
}

/// The transactions of a node's appends that stand still behind their fence.
fn inside(world: &World, node: usize) -> BTreeSet<String> {
    let id = &world.nodes[node].id;
    let transactions = world.postgres.sql(&format!(
        "SELECT backend_xid FROM pg_stat_activity \
         WHERE application_name LIKE 'simpul/%/{id}' AND state = 'idle in transaction' \
         AND backend_xid IS NOT NULL AND query LIKE '%commit_no = commit_no + 1%'"
    ));
    transactions.lines().map(str::to_owned).collect()
}

/// How often the database ended a session that stood still in a transaction.
fn ended(world: &World) -> usize {
    world.postgres.log().matches(ENDED).count()
}

/// Waits until every partition of a node has another owner.
async fn owns_nothing(world: &World, node: usize) {
    let id = &world.nodes[node].id;
    let count = format!("SELECT count(*) FROM \"partition\" WHERE owner = '{id}'");
    let begun = Instant::now();
    while world.postgres.sql_in("simpul", &count) != "0" {
        assert!(begun.elapsed() < LONG, "nobody takes what {id} owns");
        sleep(Duration::from_millis(20)).await;
    }
}
