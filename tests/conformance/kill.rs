//! kill -9 in the middle of writing: what was acknowledged is there, whole, and
//! what is there is sound. The writing process is this test itself, run again.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use simpul::store::LedgerStore;
use simpul::store::ledger::Transfer;
use simpul::store::sqlite::SqliteStore;
use simpul::task;
use uuid::Uuid;

use crate::transfers::{assert_sound, history, movement, transfer};

const DATABASE: &str = "SIMPUL_TEST_DATABASE";

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().expect("a directory");
    let database = dir.path().join("simpul.db");
    let mut acknowledged = HashSet::new();
    for round in 1..=5 {
        acknowledged.extend(write_until_killed(&database, 40 * round));
        let store = SqliteStore::open(&database, 2).await.expect("opened");
        let entries = history(&store, "b").await;
        let found: HashSet<_> = entries.iter().map(|e| e.transfer_id).collect();
        let lost: Vec<_> = acknowledged.difference(&found).collect();
        assert!(lost.is_empty(), "{} of {} lost", lost.len(), acknowledged.len());
        assert_eq!(entries.len(), 2 * history(&store, "c").await.len());
        assert_sound(&store).await;
        store.close().await.expect("closed");
    }
}

/// Starts the writer, kills it after so many acknowledgements; returns all that
/// it had printed.
fn write_until_killed(database: &Path, kill_after: usize) -> Vec<Uuid> {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--ignored", "--exact", "kill::the_process_that_is_killed", "--nocapture"])
        .env(DATABASE, database)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let mut acknowledged = Vec::new();
    for line in lines {
        let line = line.expect("a line");
        // The harness prints lines of its own.
        if let Some(Ok(id)) = line.strip_prefix("acknowledged ").map(Uuid::try_parse) {
            acknowledged.push(id);
        }
        if acknowledged.len() == kill_after {
            child.kill().expect("killed");
        }
    }
    child.wait().expect("it ended");
    assert!(acknowledged.len() >= kill_after, "only {} were written", acknowledged.len());
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by what_was_acknowledged_survives_kill_9"]
async fn the_process_that_is_killed() {
    let database = std::env::var_os(DATABASE).expect("run by the other test");
    let store = SqliteStore::open(Path::new(&database), 1).await.expect("opened");
    let store = Arc::new(store);
    for _ in 0..7 {
        task::spawn("writer", write(store.clone()));
    }
    write(store).await;
}

/// Writes and tells, for ever: whoever started the process kills it.
async fn write(store: Arc<SqliteStore>) {
    loop {
        let moved = transfer(vec![movement("a", "b", 1), movement("b", "c", 1)]);
        let id = Uuid::now_v7();
        store.post(Transfer { id, payment_id: id, ..moved }).await.expect("posted");
        writeln!(std::io::stdout().lock(), "acknowledged {id}").expect("told");
    }
}
