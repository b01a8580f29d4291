//! What happens when a write panics or the disk fails. What the disk does is
//! played with SQLite's own limit of pages and by taking the file away.

use std::path::PathBuf;
use std::time::Duration;

use crate::readiness::Readiness;
use crate::store::StoreError;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::metrics::StoreMetrics;

struct Fixture {
    _dir: tempfile::TempDir,
    path: PathBuf,
    store: SqliteStore,
}

async fn fixture() -> Fixture {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("simpul.db");
    let store = SqliteStore::open(&path, 1).await.expect("opened");
    Fixture { _dir: dir, path, store }
}

async fn put(store: &SqliteStore, key: &'static str, value: String) -> Result<(), StoreError> {
    let job = store.write("test.put", move |conn| {
        Box::pin(async move {
            sqlx::query("INSERT INTO meta (key, value) VALUES (?1, ?2)")
                .bind(key)
                .bind(value)
                .execute(conn)
                .await?;
            Ok(())
        })
    });
    job.await
}

async fn keys(store: &SqliteStore) -> Vec<String> {
    let keys = sqlx::query_scalar(
        "SELECT key FROM meta WHERE key NOT IN ('reopened', 'schema_needs') ORDER BY key",
    );
    keys.fetch_all(store.readers()).await.expect("read")
}

/// The disk is full for the connection that the writer has now.
async fn fill(store: &SqliteStore) {
    let limited = store.write("test.fill", |conn| {
        Box::pin(async move {
            let pages: i64 =
                sqlx::query_scalar("PRAGMA max_page_count = 1").fetch_one(conn).await?;
            Ok(pages)
        })
    });
    assert!(limited.await.expect("limited") > 1);
}

#[tokio::test]
async fn a_panicking_write_takes_nothing_with_it() {
    let Fixture { _dir, path: _, store } = fixture().await;
    let panics = store.write("test.panic", |conn| {
        Box::pin(async move {
            sqlx::query("INSERT INTO meta (key, value) VALUES ('lost', '')").execute(conn).await?;
            if std::hint::black_box(true) {
                panic!("as a bug would");
            }
            Ok(())
        })
    });
    let (before, panicked, after) = tokio::join!(
        put(&store, "before", String::new()),
        panics,
        put(&store, "after", String::new())
    );
    before.expect("kept");
    assert!(matches!(panicked, Err(StoreError::Fault(_))), "{panicked:?}");
    after.expect("kept");
    assert_eq!(keys(&store).await, ["after", "before"]);
    assert!(*store.health().borrow());
}

#[tokio::test]
async fn a_full_disk_fails_the_whole_group_and_writing_goes_on_when_it_has_room() {
    let Fixture { _dir, path: _, store } = fixture().await;
    fill(&store).await;
    let mut health = store.health();
    let big = put(&store, "big", "x".repeat(1 << 20));
    let (small, big) = tokio::join!(put(&store, "small", String::new()), big);
    assert!(matches!(small, Err(StoreError::Unavailable(_))), "{small:?}");
    assert!(matches!(big, Err(StoreError::Unavailable(_))), "{big:?}");
    let up = health.wait_for(|up| *up);
    tokio::time::timeout(Duration::from_secs(10), up).await.expect("in time").expect("it lives");
    assert_eq!(keys(&store).await, Vec::<String>::new());
    put(&store, "big", "x".repeat(1 << 20)).await.expect("kept");
    assert_eq!(keys(&store).await, ["big"]);
}

#[tokio::test]
async fn until_a_write_succeeds_writes_are_refused_and_the_node_is_not_ready() {
    let Fixture { _dir, path, store } = fixture().await;
    let readiness = Readiness::new();
    store.watch_readiness(&readiness);
    fill(&store).await;
    let away = path.with_extension("away");
    std::fs::rename(&path, &away).expect("taken away");
    put(&store, "big", "x".repeat(1 << 20)).await.expect_err("full");

    let mut health = store.health();
    health.wait_for(|up| !*up).await.expect("it lives");
    let mut pending = readiness.subscribe();
    pending.wait_for(|pending| pending.contains_key("store writable")).await.expect("held");
    let refused = tokio::time::timeout(Duration::from_secs(1), put(&store, "k", String::new()));
    let refused = refused.await.expect("at once");
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");

    std::fs::rename(&away, &path).expect("given back");
    let up = health.wait_for(|up| *up);
    tokio::time::timeout(Duration::from_secs(30), up).await.expect("in time").expect("it lives");
    tokio::time::timeout(Duration::from_secs(5), readiness.ready()).await.expect("ready again");
    put(&store, "k", String::new()).await.expect("kept");
    assert_eq!(keys(&store).await, ["k"]);
}

#[tokio::test]
async fn closing_finishes_what_waits_and_empties_the_log() {
    let Fixture { _dir, path, store } = fixture().await;
    let (put, closed) = tokio::join!(put(&store, "last", String::new()), store.close());
    put.expect("kept");
    closed.expect("closed");
    assert!(!path.with_extension("db-wal").exists());
    let refused = store.write("test.late", |_| Box::pin(async { Ok(()) })).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))));
    store.close().await.expect("closing twice");
    let store = SqliteStore::open(&path, 1).await.expect("opened");
    assert_eq!(keys(&store).await, ["last"]);
}

#[tokio::test]
async fn what_was_deleted_is_on_no_page_after_a_checkpoint() {
    let Fixture { _dir, path, store } = fixture().await;
    let canary = "canary-4b1d".repeat(20);
    put(&store, "secret", canary.clone()).await.expect("kept");
    let erased = store.write("test.erase", |conn| {
        Box::pin(async move {
            sqlx::query("DELETE FROM meta WHERE key = 'secret'").execute(conn).await?;
            Ok(())
        })
    });
    let found = || {
        ["db", "db-wal"].into_iter().any(|extension| {
            let bytes = std::fs::read(path.with_extension(extension)).unwrap_or_default();
            bytes.windows(canary.len()).any(|part| part == canary.as_bytes())
        })
    };
    assert!(found());
    erased.await.expect("erased");
    store.checkpoint_truncate().await.expect("truncated");
    assert!(!found());
}

#[tokio::test]
async fn a_newer_database_is_refused_as_it_is_unless_it_says_that_this_release_can() {
    let Fixture { _dir, path, store } = fixture().await;
    let newer = store.write("test.newer", |conn| {
        Box::pin(async move {
            sqlx::query(
                "INSERT INTO _sqlx_migrations (version, description, success, checksum, \
                 execution_time) VALUES (9000, 'later', TRUE, x'00', 0)",
            )
            .execute(&mut *conn)
            .await?;
            sqlx::query("UPDATE meta SET value = '9000' WHERE key = 'schema_needs'")
                .execute(conn)
                .await?;
            Ok(())
        })
    });
    newer.await.expect("made newer");
    store.close().await.expect("closed");
    let refused = SqliteStore::open(&path, 1).await.expect_err("newer");
    assert!(matches!(refused, StoreError::Version(_)), "{refused}");

    let mut connection =
        sqlx::ConnectOptions::connect(&crate::store::sqlite::writing(&path)).await.expect("open");
    let needs = "UPDATE meta SET value = '1' WHERE key = 'schema_needs'";
    sqlx::query(needs).execute(&mut connection).await.expect("said");
    sqlx::Connection::close(connection).await.expect("closed");
    let store = SqliteStore::open(&path, 1).await.expect("it only expanded");
    put(&store, "k", String::new()).await.expect("kept");
}

#[tokio::test]
async fn commits_are_counted() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut registry = prometheus_client::registry::Registry::default();
    let metrics = StoreMetrics::register(&mut registry);
    let path = dir.path().join("simpul.db");
    let store = SqliteStore::open_with(&path, 1, metrics).await.expect("opened");
    put(&store, "k", String::new()).await.expect("kept");
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("encoded");
    for line in [
        "store_commit_seconds_count 1",
        "store_commit_group_sum 1.0",
        "store_commit_failures_total 0",
        "store_writable 1",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line} in {text}");
    }
}

#[tokio::test]
async fn many_open_a_new_database_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("simpul.db");
    let opening = (0..6).map(|_| SqliteStore::open(&path, 1));
    for store in futures_util::future::join_all(opening).await {
        store.expect("opened").health();
    }
}

#[tokio::test]
async fn closing_ends_although_a_read_does_not() {
    let Fixture { _dir, path, store } = fixture().await;
    put(&store, "kept", "1".to_owned()).await.expect("written");
    let reading = store.readers().acquire().await.expect("a connection");
    let closing = tokio::time::timeout(Duration::from_secs(30), store.close());
    closing.await.expect("it hangs on the read").expect("the writer was closed");
    drop(reading);
    let store = SqliteStore::open(&path, 1).await.expect("opened again");
    assert_eq!(keys(&store).await, ["kept"]);
}
