//! Transfers for the cases.

use std::sync::atomic::{AtomicU64, Ordering};

use simpul::store::LedgerStore;
use simpul::store::ledger::{
    AccountName, HistoryFilter, LedgerEntry, Movement, TransactionKind, Transfer,
};
use uuid::Uuid;

/// An account by its name.
pub(crate) fn account(name: &str) -> AccountName {
    AccountName::from_stored(name.to_owned())
}

/// One movement of IDR.
pub(crate) fn movement(from: &str, to: &str, minor_units: i64) -> Movement {
    Movement {
        from: account(from),
        to: account(to),
        minor_units,
        kind: TransactionKind::Payment,
        needs_balance: false,
    }
}

/// A transfer in IDR with ids that no other has.
pub(crate) fn transfer(movements: Vec<Movement>) -> Transfer {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = u128::from(NEXT.fetch_add(1, Ordering::Relaxed));
    Transfer {
        id: Uuid::from_u128(number),
        payment_id: Uuid::from_u128(number << 64),
        currency: "IDR".parse().expect("a currency"),
        movements,
        posted_at: 1_000_000,
    }
}

/// The whole history of an account, read in pages.
pub(crate) async fn history<S: LedgerStore + ?Sized>(store: &S, name: &str) -> Vec<LedgerEntry> {
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let page = store.history(&account(name), after, &HistoryFilter::default(), 37).await;
        let page = page.expect("a page");
        assert!(page.scanned > after || page.at_head, "a page advances");
        after = page.scanned;
        all.extend(page.entries);
        if page.at_head {
            return all;
        }
    }
}

/// That the ledger breaks none of its rules.
pub(crate) async fn assert_sound<S: LedgerStore + ?Sized>(store: &S) {
    assert_eq!(store.audit().await.expect("audited"), Vec::<String>::new());
}
