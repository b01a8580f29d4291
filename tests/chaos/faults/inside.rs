//! A node that is frozen inside the transaction of an append, between its fence
//! and its COMMIT.
//!
//! It is held there at a fault point, then stopped. The others must take its
//! partitions although it holds their rows locked; when it goes on, it must not
//! commit. That is asked of the database itself, by the transactions' numbers.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::time::sleep;

use crate::world::{LONG, World};

/// Long enough to be seen inside, far shorter than the database's patience.
const INSIDE: &str = "20 ms";

/// SIGSTOP inside, for so many milliseconds and until the others have what it
/// owned; then SIGCONT.
pub async fn freeze(world: &World, node: usize, millis: u64) {
    let hold = world.nodes[node].faults().join("append.fenced.hold");
    let held = loop {
        std::fs::write(&hold, "").expect("written");
        let seen = stands_inside(world, node).await;
        world.nodes[node].signal(Signal::STOP);
        // The database may have lost its patience just before.
        let held: BTreeSet<String> = seen.intersection(&inside(world, node)).cloned().collect();
        if !held.is_empty() {
            break held;
        }
        std::fs::remove_file(&hold).expect("removed");
        world.nodes[node].signal(Signal::CONT);
    };
    sleep(Duration::from_millis(millis)).await;
    owns_nothing(world, node).await;
    std::fs::remove_file(&hold).expect("removed");
    world.nodes[node].signal(Signal::CONT);
    for transaction in held {
        let status = world.postgres.sql(&format!("SELECT txid_status({transaction})"));
        assert_eq!(status, "aborted", "what it was frozen in");
    }
}

/// The transactions of a node's appends that stand still behind their fence.
fn inside(world: &World, node: usize) -> BTreeSet<String> {
    let id = &world.nodes[node].id;
    let transactions = world.postgres.sql(&format!(
        "SELECT backend_xid FROM pg_stat_activity \
         WHERE application_name LIKE 'simpul/%/{id}' AND state = 'idle in transaction' \
         AND backend_xid IS NOT NULL AND query LIKE '%commit_no = commit_no + 1%' \
         AND state_change < clock_timestamp() - interval '{INSIDE}'"
    ));
    transactions.lines().map(str::to_owned).collect()
}

async fn stands_inside(world: &World, node: usize) -> BTreeSet<String> {
    let begun = Instant::now();
    loop {
        let transactions = inside(world, node);
        if !transactions.is_empty() {
            return transactions;
        }
        assert!(begun.elapsed() < LONG, "no append of node {node} is held at its fence");
        sleep(Duration::from_millis(2)).await;
    }
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
