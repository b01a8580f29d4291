//! What an engine promises of writing, seen through the ledger.

use std::sync::Arc;

use simpul::store::ledger::{ALREADY_POSTED, LACKS_BALANCE, Movement};
use simpul::store::{LedgerStore, StoreError};
use simpul::task;

use crate::transfers::{account, assert_sound, history, movement, transfer};

/// What was acknowledged is there for whoever opens the store next.
pub(crate) async fn concurrent_writes_are_all_there_when_opened_again<S: LedgerStore + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store = open().await;
    let mut posting = Vec::new();
    for _ in 0..300 {
        let store = store.clone();
        posting.push(task::spawn("poster", async move {
            let posted = transfer(vec![movement("a", "b", 1)]);
            store.post(posted.clone()).await.map(|_| posted.id)
        }));
    }
    let mut acknowledged = Vec::new();
    for result in posting {
        acknowledged.push(result.await.expect("a poster").expect("posted"));
    }
    drop(store);
    let store = open().await;
    let mut found: Vec<_> = history(&*store, "b").await.iter().map(|e| e.transfer_id).collect();
    acknowledged.sort();
    found.sort();
    assert_eq!(found, acknowledged);
    assert_sound(&*store).await;
}

/// Writes that are refused take none of those with them that are committed in
/// the same group.
pub(crate) async fn a_failing_write_fails_alone<S: LedgerStore + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store = open().await;
    let taken = transfer(vec![movement("a", "b", 1)]);
    store.post(taken.clone()).await.expect("posted");
    let mut posting = Vec::new();
    for turn in 0..120 {
        let (store, taken) = (store.clone(), taken.clone());
        posting.push(task::spawn("poster", async move {
            let poor = Movement { needs_balance: true, ..movement("poor", "b", 1) };
            match turn % 3 {
                0 => store.post(taken).await,
                1 => store.post(transfer(vec![movement("a", "b", 1), poor])).await,
                _ => store.post(transfer(vec![movement("a", "b", 1)])).await,
            }
        }));
    }
    for (turn, result) in posting.into_iter().enumerate() {
        match (turn % 3, result.await.expect("a poster")) {
            (0, Err(StoreError::Conflict(ALREADY_POSTED)))
            | (1, Err(StoreError::Conflict(LACKS_BALANCE)))
            | (2, Ok(_)) => {}
            (_, other) => panic!("write {turn}: {other:?}"),
        }
    }
    assert_eq!(store.history_head(&account("b")).await.expect("a head"), 41);
    assert_eq!(store.history_head(&account("poor")).await.expect("a head"), 0);
    assert_sound(&*store).await;
}

/// A future that is dropped may or may not have written, but whole.
pub(crate) async fn a_caller_that_leaves_loses_a_write_whole_or_not_at_all<
    S: LedgerStore + 'static,
>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store = open().await;
    let mut posting = Vec::new();
    for _ in 0..100 {
        let store = store.clone();
        posting.push(task::spawn("poster", async move {
            store.post(transfer(vec![movement("a", "b", 1), movement("b", "c", 1)])).await
        }));
        tokio::task::yield_now().await;
        if let Some(leaving) = posting.get(posting.len() / 2) {
            leaving.abort();
        }
    }
    let mut acknowledged = 0;
    for posted in posting {
        acknowledged += u64::from(matches!(posted.await, Ok(Ok(_))));
    }
    // Whatever is still under way is committed before this.
    store.post(transfer(vec![movement("x", "y", 1)])).await.expect("posted");
    let (b, c) = (history(&*store, "b").await.len(), history(&*store, "c").await.len());
    assert_eq!(b, 2 * c);
    assert!(c as u64 >= acknowledged, "{c} of {acknowledged}");
    assert_sound(&*store).await;
}
