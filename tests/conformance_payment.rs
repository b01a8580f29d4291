//! The payment area's promises, on SQLite.

#[path = "conformance/payment.rs"]
mod payment;

use std::sync::Arc;

use simpul::store::sqlite::SqliteStore;

macro_rules! on_sqlite {
    ($($promise:ident,)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $promise() {
            let dir = tempfile::tempdir().unwrap();
            let store = SqliteStore::open(&dir.path().join("simpul.db"), 4).await.unwrap();
            payment::$promise(Arc::new(store)).await;
        }
    )+};
}

payment::for_each_promise!(on_sqlite);
