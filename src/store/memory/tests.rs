//! The races that the engine must show: those of READ COMMITTED on PostgreSQL.

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::store::chat::{
    Appended, Change, ChatStore, Entry, EntryKind, NewEntry, PartitionAppend, PartitionState,
};
use crate::store::cluster::ClusterStore;

fn entry(seq: u64) -> NewEntry {
    let change = (seq == 1).then(|| Change::CreateRoom { title: "t".to_owned() });
    let entry = Entry {
        room: "lobby".into(),
        seq,
        kind: EntryKind::Text,
        sender: "user/alice@dev.simpul".parse().unwrap(),
        client_message_id: Arc::from(""),
        body: Bytes::from_static(b"halo"),
        reply_to: 0,
        committed_at: 1,
    };
    NewEntry { entry, key: None, change }
}

fn part(epoch: u64, seq: u64) -> Vec<PartitionAppend> {
    vec![PartitionAppend { partition: 0, epoch, entries: vec![entry(seq)] }]
}

/// A database with one partition, a's under epoch 1, and its row.
async fn owned() -> (Database, MemoryStore, PartitionState) {
    let database = Database::new();
    let a = database.client();
    let row = a.take_partitions("a", 1).await.unwrap().remove(0);
    (database, a, row)
}

fn slow(millis: u64) -> Conditions {
    let time = Duration::from_millis(millis);
    Conditions { at_least: time, at_most: time, ..Conditions::default() }
}

#[tokio::test(start_paused = true)]
async fn a_take_waits_for_the_append_that_has_the_row() {
    let (database, a, row) = owned().await;
    a.set(slow(100));
    let append = crate::task::spawn("append", async move { a.append(part(1, 1)).await });
    // The append has its fence after 100 ms, its inserts after 200, and its
    // commit lands after 300.
    tokio::time::sleep(Duration::from_millis(150)).await;
    let b = database.client();
    let taken = b.take(&row, "b", "").await.unwrap().unwrap();
    assert_eq!((taken.epoch, taken.commit_no), (2, 1), "after the append");
    assert_eq!(append.await.unwrap().unwrap(), [Appended::Committed { commit_no: 1 }]);
    assert_eq!(b.heads(0, vec!["lobby".into()]).await.unwrap(), [Some(1)], "a later statement");
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_hangs_between_fence_and_commit_is_ended() {
    let (database, a, row) = owned().await;
    a.set(slow(1_900));
    let append = crate::task::spawn("append", async move { a.append(part(1, 1)).await });
    tokio::time::sleep(Duration::from_millis(2_000)).await;
    let b = database.client();
    let taken = b.take(&row, "b", "").await.unwrap().unwrap();
    assert_eq!((taken.epoch, taken.commit_no), (2, 0));
    assert!(matches!(append.await.unwrap(), Err(StoreError::Unavailable(_))));
    assert!(database.log().is_empty());
    assert!(b.append(part(2, 1)).await.unwrap()[0].is_committed());
}

#[tokio::test(start_paused = true)]
async fn an_old_epoch_is_fenced() {
    let (database, a, row) = owned().await;
    let b = database.client();
    b.take(&row, "b", "").await.unwrap().unwrap();
    assert_eq!(a.append(part(1, 1)).await.unwrap(), [Appended::Fenced]);
    assert_eq!(b.take(&row, "b", "").await.unwrap(), None, "the row is another by now");
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_leaves_what_was_committed() {
    let (database, a, _) = owned().await;
    a.set(Conditions { loses: 1.0, ..Conditions::default() });
    assert!(matches!(a.append(part(1, 1)).await, Err(StoreError::Unavailable(_))));
    assert_eq!(database.log().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_is_cut_off_is_told_in_the_end_and_harms_nobody() {
    let (database, a, row) = owned().await;
    a.set(slow(100));
    let append = {
        let a = a.clone();
        crate::task::spawn("append", async move { a.append(part(1, 1)).await })
    };
    tokio::time::sleep(Duration::from_millis(150)).await;
    a.set(Conditions { cut: true, ..Conditions::default() });
    let b = database.client();
    assert!(b.take(&row, "b", "").await.unwrap().is_some());
    assert!(matches!(append.await.unwrap(), Err(StoreError::Unavailable(_))));
    assert!(database.log().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_is_dropped_lets_its_rows_go() {
    let (database, a, row) = owned().await;
    a.set(slow(100));
    let append = tokio::time::timeout(Duration::from_millis(150), a.append(part(1, 1)));
    assert!(append.await.is_err());
    let before = tokio::time::Instant::now();
    assert!(database.client().take(&row, "b", "").await.unwrap().is_some());
    assert!(before.elapsed() < Duration::from_millis(10));
    assert!(database.log().is_empty());
}
