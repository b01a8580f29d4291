//! What only the engine can do: holds, and an audit of rows that were tampered
//! with. Everything else is in the conformance suite.

use super::*;
use crate::store::ledger::{HELD, Movement, TransactionKind};

async fn store() -> (tempfile::TempDir, SqliteStore) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = SqliteStore::open(&dir.path().join("simpul.db"), 2).await.expect("opened");
    (dir, store)
}

fn account(name: &str) -> AccountName {
    AccountName::from_stored(name.to_owned())
}

fn payment(payment_id: u128, minor_units: i64) -> Transfer {
    let movement = |from: &str, to: &str, kind| Movement {
        from: account(from),
        to: account(to),
        minor_units,
        kind,
        needs_balance: false,
    };
    Transfer {
        id: Uuid::from_u128(payment_id << 8),
        payment_id: Uuid::from_u128(payment_id),
        currency: "IDR".parse().expect("a currency"),
        movements: vec![
            movement("provider_clearing:sandbox", "user/alice@a", TransactionKind::Funding),
            movement("user/alice@a", "user/toko@a", TransactionKind::Payment),
        ],
        posted_at: 1_000_000,
    }
}

#[tokio::test]
async fn a_hold_stands_beside_the_balance_until_it_is_released() {
    let (_dir, store) = store().await;
    let (toko, id) = (account("user/toko@a"), Uuid::from_u128(7));
    let put = |units| {
        let toko = toko.clone();
        store.write("test.hold", move |conn| {
            Box::pin(async move {
                put_hold(conn, &toko, "IDR".parse().expect("a currency"), id, units).await
            })
        })
    };
    put(500).await.expect("held");
    assert!(matches!(put(900).await, Err(StoreError::Conflict(HELD))));
    let held = store.balances(&toko).await.expect("balances");
    assert_eq!(held.iter().map(|b| (b.posted.minor_units, b.held)).collect::<Vec<_>>(), [(0, 500)]);
    for _ in 0..2 {
        let released = store.write("test.release", move |conn| Box::pin(release_hold(conn, id)));
        released.await.expect("released");
        assert!(store.balances(&toko).await.expect("balances").is_empty());
    }
}

#[tokio::test]
async fn the_audit_finds_what_was_tampered_with() {
    let tampered = [
        (
            "UPDATE ledger_entry SET minor_units = minor_units + 1 WHERE position = 1 AND side = 1",
            "cancel out",
        ),
        (
            "UPDATE account_balance SET posted = posted - 1 WHERE account = 'user/toko@a'",
            "fold of its entries",
        ),
        (
            "UPDATE ledger_entry SET balance_after = 1 WHERE account = 'user/toko@a'",
            "after an entry",
        ),
        ("UPDATE account SET last_position = 9 WHERE name = 'user/toko@a'", "positions"),
        ("DELETE FROM ledger_entry WHERE account = 'user/toko@a'", "other side"),
        ("UPDATE ledger_entry SET step = 5 WHERE step = 1", "steps"),
        (
            "UPDATE ledger_entry SET counterparty = 'fees' WHERE account = 'user/toko@a'",
            "other side",
        ),
        ("UPDATE ledger_entry SET kind = 4", "gave back more"),
        ("DELETE FROM account WHERE name = 'user/toko@a'", "does not exist"),
        (
            "INSERT INTO hold SELECT payment_id, account, currency, 1 FROM ledger_entry \
             WHERE account = 'user/toko@a'",
            "still holds",
        ),
    ];
    for (sql, rule) in tampered {
        let (_dir, store) = store().await;
        store.post(payment(3, 100)).await.expect("posted");
        assert_eq!(store.audit().await.expect("audited"), Vec::<String>::new());
        let changed = store.write("test.tamper", move |conn| {
            Box::pin(async move { Ok(sqlx::query(sql).execute(conn).await?.rows_affected()) })
        });
        assert!(changed.await.expect("tampered") > 0, "{sql}");
        let findings = store.audit().await.expect("audited");
        assert!(findings.iter().any(|finding| finding.contains(rule)), "{sql}: {findings:?}");
    }
}

#[tokio::test]
async fn a_payment_posted_under_two_transfers_is_found() {
    let (_dir, store) = store().await;
    store.post(payment(3, 100)).await.expect("posted");
    let again = Transfer { id: Uuid::from_u128(99), ..payment(3, 100) };
    store.post(again).await.expect("posted");
    let findings = store.audit().await.expect("audited");
    assert!(findings.iter().any(|finding| finding.contains("posted twice")), "{findings:?}");
}
