//! The ledger area.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use simpul::store::ledger::{
    ALREADY_POSTED, HistoryFilter, LACKS_BALANCE, Movement, TransactionKind, Transfer,
};
use simpul::store::{LedgerStore, StoreError};
use simpul::task;

use crate::transfers::{account, assert_sound, history, movement, transfer};

/// A transfer gives each side its entry, and the balances follow.
pub(crate) async fn a_transfer_stands_on_both_sides<S: LedgerStore>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store = open().await;
    let posted = transfer(vec![movement("clearing", "b", 700), movement("b", "a", 700)]);
    let touched = store.post(posted.clone()).await.expect("posted");
    assert_eq!(touched, [account("a"), account("b"), account("clearing")]);

    let entries = history(&*store, "b").await;
    let seen: Vec<_> = entries
        .iter()
        .map(|e| (e.position, e.amount.minor_units, e.balance_after, e.counterparty.as_str()))
        .collect();
    assert_eq!(seen, [(1, 700, 700, "clearing"), (2, -700, 0, "a")]);
    for entry in &entries {
        assert_eq!((entry.payment_id, entry.transfer_id), (posted.payment_id, posted.id));
        assert_eq!(store.ledger_entry(entry.id).await.expect("read"), Some(entry.clone()));
    }
    assert_eq!(store.ledger_entry(posted.id).await.expect("read"), None);
    let balances = store.balances(&account("a")).await.expect("balances");
    assert_eq!(balances.iter().map(|b| b.posted.minor_units).collect::<Vec<_>>(), [700]);
    assert_eq!(store.balances(&account("nobody")).await.expect("balances"), []);
    assert_eq!(store.history_head(&account("b")).await.expect("a head"), 2);
    assert_eq!(store.history_head(&account("nobody")).await.expect("a head"), 0);
    assert_sound(&*store).await;
}

/// Many post at once, in two currencies, on accounts that they share.
pub(crate) async fn positions_have_no_gaps_whoever_posts<S: LedgerStore + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store = open().await;
    let mut posting = Vec::new();
    for poster in 0..8 {
        let store = store.clone();
        posting.push(task::spawn("poster", async move {
            for turn in 0..25 {
                let (from, to) = if turn % 2 == 0 { ("a", "b") } else { ("b", "a") };
                let code = if (turn + poster) % 3 == 0 { "JPY" } else { "IDR" };
                let currency = code.parse().expect("a currency");
                let moved = transfer(vec![movement(from, to, 1 + turn)]);
                store.post(Transfer { currency, ..moved }).await.expect("posted");
            }
        }));
    }
    for posted in posting {
        posted.await.expect("a poster");
    }
    for name in ["a", "b"] {
        let entries = history(&*store, name).await;
        let positions: Vec<_> = entries.iter().map(|e| e.position).collect();
        assert_eq!(positions, (1..=200).collect::<Vec<_>>());
    }
    assert_sound(&*store).await;
}

/// The same id is posted by one of many, and never again.
pub(crate) async fn a_transfer_is_posted_once<S: LedgerStore + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store = open().await;
    let same = transfer(vec![movement("a", "b", 5)]);
    let mut posting = Vec::new();
    for _ in 0..10 {
        let (store, same) = (store.clone(), same.clone());
        posting.push(task::spawn("poster", async move { store.post(same).await }));
    }
    let mut posted = 0;
    for result in posting {
        match result.await.expect("a poster") {
            Ok(_) => posted += 1,
            Err(StoreError::Conflict(why)) => assert_eq!(why, ALREADY_POSTED),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(posted, 1);
    drop(store);
    let store = open().await;
    let other = Transfer { movements: vec![movement("x", "y", 1)], ..same };
    assert!(matches!(store.post(other).await, Err(StoreError::Conflict(ALREADY_POSTED))));
    assert_eq!(history(&*store, "a").await.len(), 1);
    assert_eq!(history(&*store, "x").await, []);
}

/// What came earlier in the same transfer counts; what is refused leaves nothing.
pub(crate) async fn a_balance_that_is_needed_is_there_or_nothing_moves<S: LedgerStore>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store = open().await;
    let needs = |from, to, units| Movement { needs_balance: true, ..movement(from, to, units) };
    let short = transfer(vec![movement("a", "b", 10), needs("b", "c", 11)]);
    assert!(matches!(store.post(short.clone()).await, Err(StoreError::Conflict(LACKS_BALANCE))));
    for name in ["a", "b", "c"] {
        assert_eq!(store.history_head(&account(name)).await.expect("a head"), 0);
        assert_eq!(store.balances(&account(name)).await.expect("balances"), []);
    }
    // The refused id is still free, and all of a balance may go.
    let enough = vec![movement("a", "b", 11), needs("b", "c", 11)];
    store.post(Transfer { movements: enough, ..short }).await.expect("posted");
    assert!(store.post(transfer(vec![needs("b", "c", 1)])).await.is_err());
    assert_sound(&*store).await;
}

/// Nothing, an amount of nothing, and an account that pays itself.
pub(crate) async fn an_unsound_transfer_is_refused<S: LedgerStore>(open: impl AsyncFn() -> Arc<S>) {
    let store = open().await;
    let self_paid = vec![movement("a", "a", 1)];
    for movements in [vec![], vec![movement("a", "b", 0)], vec![movement("a", "b", -1)], self_paid]
    {
        assert!(matches!(store.post(transfer(movements)).await, Err(StoreError::Fault(_))));
    }
    let huge = vec![movement("a", "b", i64::MAX), movement("c", "b", 1)];
    assert!(matches!(store.post(transfer(huge)).await, Err(StoreError::Fault(_))));
    assert_eq!(store.history_head(&account("b")).await.expect("a head"), 0);
}

/// A filter that matches nothing ends all the same, in bounded steps.
pub(crate) async fn pages_are_bounded_and_advance_whatever_the_filter<S: LedgerStore>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store = open().await;
    let many = (0..5_000).map(|_| movement("a", "b", 1)).collect();
    store.post(transfer(many)).await.expect("posted");
    let last = Movement { kind: TransactionKind::Refund, ..movement("a", "b", 1) };
    let late = Transfer { posted_at: 9_000_000, ..transfer(vec![last]) };
    store.post(late).await.expect("posted");

    let refunds = HistoryFilter { kinds: vec![TransactionKind::Refund], ..Default::default() };
    let after = HistoryFilter { from: Some(9_000_000), ..Default::default() };
    let before = HistoryFilter { before: Some(1_000_000), ..Default::default() };
    for (filter, expected) in [(refunds, vec![5_001]), (after, vec![5_001]), (before, vec![])] {
        let (mut cursor, mut found, mut pages) = (0, Vec::new(), 0);
        loop {
            let page = store.history(&account("b"), cursor, &filter, 10).await.expect("a page");
            assert!(page.scanned > cursor, "a page advances");
            (cursor, pages) = (page.scanned, pages + 1);
            found.extend(page.entries.iter().map(|e| e.position));
            if page.at_head {
                break;
            }
        }
        assert_eq!((found, cursor), (expected, 5_001));
        assert!((2..100).contains(&pages), "{pages} pages");
    }
    let all = HistoryFilter::default();
    let page = store.history(&account("b"), 0, &all, 10).await.expect("a page");
    assert_eq!((page.entries.len(), page.scanned, page.at_head), (10, 10, false));
    let page = store.history(&account("b"), 5_001, &all, 10).await.expect("a page");
    assert_eq!((page.entries.len(), page.scanned, page.at_head), (0, 5_001, true));
}

/// Random transfers against balances in a map.
pub(crate) async fn it_agrees_with_a_simple_model<S: LedgerStore>(open: impl AsyncFn() -> Arc<S>) {
    let store = open().await;
    let seed = rand::random::<u64>();
    let mut random = StdRng::seed_from_u64(seed);
    let names = ["a", "b", "c", "d"];
    let mut model: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    let mut heads: BTreeMap<&str, u64> = BTreeMap::new();
    for _ in 0..150 {
        let code = ["IDR", "JPY"][random.random_range(0..2)];
        let (mut next, mut next_heads, mut refused) = (model.clone(), heads.clone(), false);
        let mut movements = Vec::new();
        for _ in 0..random.random_range(1..4) {
            let from = random.random_range(0..4);
            let to = (from + random.random_range(1..4)) % 4;
            let (from, to, units) = (names[from], names[to], random.random_range(1..100));
            let needs_balance = random.random_bool(0.4);
            movements.push(Movement { needs_balance, ..movement(from, to, units) });
            *next.entry((from, code)).or_default() -= units;
            refused |= needs_balance && next[&(from, code)] < 0;
            *next.entry((to, code)).or_default() += units;
            for name in [from, to] {
                *next_heads.entry(name).or_default() += 1;
            }
        }
        let currency = code.parse().expect("a currency");
        let posted = store.post(Transfer { currency, ..transfer(movements) }).await;
        assert_eq!(posted.is_err(), refused, "seed {seed}: {posted:?}");
        if !refused {
            (model, heads) = (next, next_heads);
        }
    }
    for name in names {
        let balances = store.balances(&account(name)).await.expect("balances");
        for balance in balances {
            let code = balance.posted.currency.to_string();
            assert_eq!(balance.posted.minor_units, model[&(name, code.as_str())], "seed {seed}");
        }
        let head = store.history_head(&account(name)).await.expect("a head");
        assert_eq!(head, heads.get(name).copied().unwrap_or(0), "seed {seed}");
        assert_eq!(history(&*store, name).await.len() as u64, head);
    }
    assert_sound(&*store).await;
}
