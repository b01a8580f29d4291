//! What is SQLite's own: query plans, what a hand may have written into the
//! file, and what deletion leaves in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _};

use super::*;
use crate::store::chat::{Change, EntryKind, NewEntry, NewKey};

struct Bench {
    store: SqliteStore,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

fn alice() -> Principal {
    "user/alice@dev.simpul".parse().unwrap()
}

fn new(seq: u64, body: &'static str) -> NewEntry {
    let change = (seq == 1).then(|| Change::CreateRoom { title: "CANARY-TITLE".to_owned() });
    let entry = Entry {
        room: "lobby".into(),
        seq,
        kind: EntryKind::Text,
        sender: alice(),
        client_message_id: Arc::from(format!("canary-key-{seq}")),
        body: Bytes::from_static(body.as_bytes()),
        reply_to: 0,
        committed_at: 5,
    };
    NewEntry { entry, key: Some(NewKey { digest: [1; 32], redactions: 0 }), change }
}

async fn append(store: &SqliteStore, entries: Vec<NewEntry>) {
    let part = PartitionAppend { partition: 0, epoch: 1, entries };
    assert_eq!(store.append(vec![part]).await.unwrap(), [Appended::Committed { commit_no: 1 }]);
}

async fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("simpul.db");
    let store = SqliteStore::open(&path, 2).await.unwrap();
    store.take_partitions("n1", 1).await.unwrap();
    append(&store, vec![new(1, "CANARY-ONE"), new(2, "CANARY-TWO")]).await;
    Bench { store, path, _dir: dir }
}

/// Another connection, as a person with the sqlite3 shell has.
async fn by_hand(path: &Path, sql: &str) -> Vec<sqlx::sqlite::SqliteRow> {
    let mut hand = SqliteConnectOptions::new().filename(path).connect().await.unwrap();
    let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut hand).await.unwrap();
    hand.close().await.unwrap();
    rows
}

#[tokio::test]
async fn what_cannot_be_is_corrupt() {
    let name = KeyName {
        room: "lobby".into(),
        sender: alice(),
        client_message_id: Arc::from("canary-key-2"),
    };
    for sql in [
        "UPDATE entry SET kind = 9",
        "UPDATE entry SET kind = -1",
        "UPDATE entry SET sender = 'nobody'",
        "UPDATE entry SET body = x''",
        "UPDATE entry SET body = x'0161'",
        "UPDATE entry SET body = x'00ff'",
        "UPDATE entry SET reply_to = -1",
        "UPDATE entry SET seq = -seq",
        "UPDATE entry_key SET digest = x'00'",
        "UPDATE entry_key SET redactions = 5000000000",
        "UPDATE entry_key SET seq = -1",
        "UPDATE room SET created_by = ''",
        "UPDATE room SET head = -1",
        "UPDATE member SET role = 7",
        "UPDATE member SET member = member || '@'",
        "UPDATE \"partition\" SET id = 70000",
        "UPDATE \"partition\" SET epoch = -1",
    ] {
        let bench = bench().await;
        by_hand(&bench.path, sql).await;
        let store = &bench.store;
        let errors: Vec<_> = [
            store.entries(0, "lobby", 0, 9, usize::MAX).await.err(),
            store.keys(0, vec![name.clone()]).await.err(),
            store.room(0, "lobby").await.err(),
            store.members(0, "lobby", "", 9).await.err(),
            store.partition_states().await.err(),
        ]
        .into_iter()
        .flatten()
        .collect();
        // Entries before the first of a room are merely not asked for.
        let expected = usize::from(!sql.contains("seq = -seq"));
        assert_eq!(errors.len(), expected, "{sql}: {errors:?}");
        assert!(errors.iter().all(|error| matches!(error, StoreError::Corrupt(_))), "{sql}");
        assert!(errors.iter().all(|error| !error.to_string().contains("nobody")));
        if sql.contains("SET body") {
            let place = "entry 1 of room lobby: ";
            assert!(errors.iter().all(|error| error.to_string().contains(place)), "{errors:?}");
        }
    }
}

#[tokio::test]
async fn an_epoch_raised_by_hand_fences_the_owner() {
    let bench = bench().await;
    by_hand(&bench.path, "UPDATE \"partition\" SET epoch = epoch + 1").await;
    let part = PartitionAppend { partition: 0, epoch: 1, entries: vec![new(3, "late")] };
    assert_eq!(bench.store.append(vec![part]).await.unwrap(), [Appended::Fenced]);
    assert_eq!(bench.store.room(0, "lobby").await.unwrap().unwrap().head, 2);
}

#[tokio::test]
async fn a_deleted_room_is_overwritten_in_the_file() {
    let bench = bench().await;
    by_hand(&bench.path, "PRAGMA wal_checkpoint(TRUNCATE)").await;
    let holds = |canary: &str| {
        let bytes = std::fs::read(&bench.path).unwrap();
        bytes.windows(canary.len()).any(|window| window == canary.as_bytes())
    };
    let canaries = ["CANARY-ONE", "CANARY-TWO", "CANARY-TITLE", "canary-key-2"];
    assert!(canaries.iter().all(|canary| holds(canary)));
    bench.store.delete_room(0, 1, &"lobby".into()).await.unwrap();
    assert_eq!(bench.store.erase_deleted(1).await.unwrap(), 1, "a slice has its limit");
    while bench.store.erase_deleted(2).await.unwrap() > 0 {}
    by_hand(&bench.path, "PRAGMA wal_checkpoint(TRUNCATE)").await;
    assert!(!canaries.iter().any(|canary| holds(canary)));
}

#[tokio::test]
async fn every_read_goes_by_an_index() {
    let bench = bench().await;
    let left = "EXPLAIN QUERY PLAN SELECT \"partition\", room FROM room WHERE deleted = 2 LIMIT 1";
    let plan: String = by_hand(&bench.path, left).await[0].get("detail");
    assert!(plan.contains("room_to_erase"), "{plan}");
    let find = batch::FIND_KEYS.first().unwrap().to_string();
    for sql in [
        find.as_str(),
        "SELECT body FROM entry WHERE \"partition\" = 0 AND room = 'r' AND seq > 3 ORDER BY seq",
        "SELECT r.title FROM member m CROSS JOIN room r \
         ON r.\"partition\" = m.\"partition\" AND r.room = m.room \
         WHERE m.member = 'x' AND m.room > 'y' ORDER BY m.room",
        "SELECT role FROM member WHERE \"partition\" = 0 AND room = 'r' AND member > 'm' \
         ORDER BY member",
        "SELECT room FROM entry_key WHERE committed_at < 5 ORDER BY committed_at",
    ] {
        let rows = by_hand(&bench.path, &format!("EXPLAIN QUERY PLAN {sql}")).await;
        let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        // The names asked for are walked; nothing of the tables is.
        let bad = |step: &&String| {
            let walks = step.starts_with("SCAN")
                && !["n", "own", "name", "CONSTANT", "64"]
                    .contains(&step.split(' ').nth(1).unwrap_or(""));
            walks || step.contains("TEMP B-TREE") || step.contains("AUTOMATIC")
        };
        assert_eq!(plan.iter().find(bad), None, "{plan:?}");
    }
}
