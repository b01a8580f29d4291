//! One SQLite file under several nodes: each gets its turn, and the kernel knows
//! who lives. The processes are this test itself, run again.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use simpul::store::cluster::{ClusterStore, Joined, NodeInfo, NodeState};
use simpul::store::ledger::Transfer;
use simpul::store::sqlite::{SqliteStore, StoreMetrics};
use simpul::store::{LedgerStore, StoreError};
use simpul::task;
use uuid::Uuid;

use crate::transfers::{assert_sound, history, movement, transfer};

const DATABASE: &str = "SIMPUL_TEST_DATABASE";
const NODE: &str = "SIMPUL_TEST_NODE";

/// Writes of the quickest at which shares are compared.
const ENOUGH: usize = 120;

pub(crate) async fn open(path: &Path) -> SqliteStore {
    let opened = SqliteStore::open_shared(path, 2, StoreMetrics::default()).await;
    opened.expect("opened")
}

fn node(id: &str, incarnation: &str) -> NodeInfo {
    NodeInfo {
        id: id.to_owned(),
        incarnation: incarnation.to_owned(),
        public_address: String::new(),
        mesh_address: format!("{id}:7444"),
        zone: String::new(),
        release: "0.1.0".to_owned(),
        started_at: 5,
    }
}

/// A transfer whose id no other process gives.
fn posting() -> Transfer {
    let moved = transfer(vec![movement("a", "b", 1), movement("b", "c", 1)]);
    let id = Uuid::now_v7();
    Transfer { id, payment_id: id, ..moved }
}

fn assert_about_equal(shares: &[usize]) {
    let (least, most) = (shares.iter().min(), shares.iter().max());
    let fair = least.zip(most).is_some_and(|(least, most)| least * 2 >= *most);
    assert!(fair, "one writer starves: {shares:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_writers_on_one_file_get_about_equal_shares() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("simpul.db");
    let counts: Arc<Vec<AtomicUsize>> = Arc::new((0..3).map(|_| AtomicUsize::new(0)).collect());
    let mut writing = Vec::new();
    for at in 0..3 {
        let store = open(&path).await;
        let counts = counts.clone();
        writing.push(task::spawn("writer", async move {
            while counts.iter().all(|count| count.load(Ordering::Relaxed) < ENOUGH) {
                store.post(posting()).await.expect("posted");
                counts[at].fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    for one in writing {
        one.await.expect("no panic");
    }
    let shares: Vec<_> = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    println!("shares of three stores: {shares:?}");
    assert_about_equal(&shares);
    let store = open(&path).await;
    assert_eq!(history(&store, "c").await.len(), shares.iter().sum::<usize>());
    assert_sound(&store).await;
}

/// A node in a process of its own; what it acknowledges goes to `told`.
fn start(database: &Path, at: usize, told: &mpsc::SyncSender<(usize, Uuid)>) -> Child {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--ignored", "--exact", "shared::the_process_that_shares", "--nocapture"])
        .env(DATABASE, database)
        .env(NODE, format!("n{at}"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let told = told.clone();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if let Some(Ok(id)) = line.strip_prefix("acknowledged ").map(Uuid::try_parse)
                && told.send((at, id)).is_err()
            {
                return;
            }
        }
    });
    child
}

/// Takes acknowledgements in until one node, of those that count, has enough.
fn until_enough(
    told: &mpsc::Receiver<(usize, Uuid)>,
    counting: &[usize],
    all: &mut HashSet<Uuid>,
) -> Vec<usize> {
    let mut shares = [0; 3];
    // Shares count from when everybody writes.
    let mut seen = HashSet::new();
    while counting.iter().all(|at| shares[*at] < ENOUGH) {
        let (at, id) = told.recv().expect("a node writes");
        all.insert(id);
        seen.insert(at);
        if counting.iter().all(|at| seen.contains(at)) {
            shares[at] += 1;
        }
    }
    counting.iter().map(|at| shares[*at]).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_three_processes_each_writes_and_the_death_of_one_is_known_and_loses_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("simpul.db");
    let (tell, told) = mpsc::sync_channel(1024);
    let mut children: Vec<Child> = (0..3).map(|at| start(&path, at, &tell)).collect();
    let mut acknowledged = HashSet::new();
    let shares = until_enough(&told, &[0, 1, 2], &mut acknowledged);
    println!("shares of three processes: {shares:?}");
    assert_about_equal(&shares);

    let store = open(&path).await;
    let seen = store.observe().await.expect("observes");
    assert!(seen.nodes.iter().all(|node| node.locked == Some(true)), "{seen:?}");
    let row = seen.nodes.iter().find(|row| row.info.id == "n1").expect("n1 joined").clone();
    let (incarnation, beat) = (row.info.incarnation.as_str(), row.beat);
    let alive = store.declare_dead("n1", incarnation, beat).await.expect("answers");
    assert!(!alive, "its process runs, whatever its beat says");
    let twin = store.join(&node("n1", "twin")).await.expect("answers");
    assert!(matches!(&twin, Joined::Taken(row) if row.locked == Some(true)), "{twin:?}");

    children[1].kill().expect("killed");
    children[1].wait().expect("it ended");
    let seen = store.observe().await.expect("observes");
    let locked: Vec<_> = seen.nodes.iter().map(|node| node.locked).collect();
    assert_eq!(locked, [Some(true), Some(false), Some(true)]);
    assert!(store.declare_dead("n1", incarnation, beat).await.expect("answers"));
    assert_eq!(store.join(&node("n1", "next")).await.expect("joins"), Joined::New);
    let shares = until_enough(&told, &[0, 2], &mut acknowledged);
    assert_about_equal(&shares);

    for child in &mut children {
        let _ = child.kill();
        child.wait().expect("it ended");
    }
    drop(tell);
    acknowledged.extend(told.iter().map(|(_, id)| id));
    let found: HashSet<_> = history(&store, "c").await.iter().map(|e| e.transfer_id).collect();
    let lost = acknowledged.difference(&found).count();
    assert_eq!(lost, 0, "of {}", acknowledged.len());
    assert_sound(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by of_three_processes_each_writes_and_the_death_of_one_is_known_and_loses_nothing"]
async fn the_process_that_shares() {
    let database = std::env::var_os(DATABASE).expect("run by the other test");
    let id = std::env::var(NODE).expect("run by the other test");
    let store = open(Path::new(&database)).await;
    let joined = store.join(&node(&id, &Uuid::now_v7().to_string())).await.expect("joins");
    assert_eq!(joined, Joined::New);
    loop {
        let posted = posting();
        let id = posted.id;
        store.post(posted).await.expect("posted");
        writeln!(std::io::stdout().lock(), "acknowledged {id}").expect("told");
    }
}

#[tokio::test]
async fn a_lone_node_and_nodes_that_share_refuse_each_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("simpul.db");
    let alone = SqliteStore::open_alone(&path, 1, StoreMetrics::default()).await.expect("opened");
    let refused = SqliteStore::open_shared(&path, 1, StoreMetrics::default()).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(why)) if why.contains("to itself")));
    alone.close().await.expect("closed");
    drop(alone);
    let (first, second) = (open(&path).await, open(&path).await);
    let refused = SqliteStore::open_alone(&path, 1, StoreMetrics::default()).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(why)) if why.contains("shared")));
    first.post(posting()).await.expect("posted");
    second.post(posting()).await.expect("posted");
    assert_eq!(history(&first, "c").await.len(), 2);
}

#[tokio::test]
async fn one_file_under_two_names_is_not_taken_twice() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("simpul.db");
    let alone = async |path: &Path| {
        SqliteStore::open_alone(path, 1, StoreMetrics::default()).await.map_err(|e| e.to_string())
    };
    let first = alone(&path).await.expect("opened");
    std::fs::create_dir(dir.path().join("else")).expect("made");
    let link = dir.path().join("else/link.db");
    std::os::unix::fs::symlink(&path, &link).expect("linked");
    let refused = alone(&link).await.expect_err("a symbolic link to a file in use");
    assert!(refused.contains("in use by another node"), "{refused}");
    let hard = dir.path().join("else/hard.db");
    std::fs::hard_link(&path, &hard).expect("linked");
    let refused = alone(&hard).await.expect_err("a hard link to a file in use");
    assert!(refused.contains("store.url") && refused.contains("2 names"), "{refused}");
    first.post(posting()).await.expect("posted");
    first.close().await.expect("closed");
    drop(first);
    assert!(alone(&path).await.is_err(), "neither name will do");
    std::fs::remove_file(&hard).expect("removed");
    let again = alone(&link).await.expect("one name, reached by a link");
    assert_eq!(history(&again, "c").await.len(), 1);
}

/// A node that ends by itself lets go, so that its next run need not wait.
#[tokio::test]
async fn a_node_that_left_or_closed_is_not_alive() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("simpul.db");
    let (one, other) = (open(&path).await, open(&path).await);
    assert_eq!(one.join(&node("n1", "i1")).await.expect("joins"), Joined::New);
    assert!(one.set_state("n1", "i1", NodeState::Left).await.expect("leaves"));
    assert_eq!(other.observe().await.expect("observes").nodes[0].locked, Some(false));
    assert_eq!(one.join(&node("n1", "i2")).await.expect("joins"), Joined::New);
    one.close().await.expect("closed");
    assert_eq!(other.observe().await.expect("observes").nodes[0].locked, Some(false));
    let again = other.join(&node("n1", "i3")).await.expect("answers");
    assert!(matches!(&again, Joined::Taken(row) if row.locked == Some(false)), "{again:?}");
    assert!(other.declare_dead("n1", "i2", 1).await.expect("declares"));
    assert_eq!(other.join(&node("n1", "i3")).await.expect("joins"), Joined::New);
}
