//! What is refused at the start, with its reason and without the URL.

use secrecy::SecretString;
use simpul::store::postgres::{PgSettings, PgStore};
use simpul::store::{ChatStore as _, StoreError};

use super::Postgres;

async fn refused(postgres: &Postgres) -> StoreError {
    postgres.try_open().await.expect_err("refused")
}

#[tokio::test]
async fn a_database_that_can_lose_what_was_acknowledged() {
    let Some(postgres) = Postgres::new() else { return };
    for (level, good) in [("off", false), ("local", false), ("remote_write", false), ("on", true)] {
        postgres.on_server(format!(
            "ALTER DATABASE {} SET synchronous_commit = '{level}'",
            postgres.database
        ));
        match postgres.try_open().await {
            Ok(store) => {
                assert!(good, "{level}");
                store.close().await;
            }
            Err(StoreError::Version(reason)) => {
                assert!(!good && reason.contains("synchronous_commit"), "{level}: {reason}");
            }
            Err(other) => panic!("{level}: {other}"),
        }
    }
}

#[tokio::test]
async fn a_database_of_another_encoding() {
    let options = "ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0";
    let Some(postgres) = Postgres::with(options) else { return };
    let reason = refused(&postgres).await;
    assert!(matches!(&reason, StoreError::Version(text) if text.contains("UTF8")), "{reason}");
}

#[tokio::test]
async fn a_user_without_rights() {
    let Some(postgres) = Postgres::new() else { return };
    let role = format!("{}_reader", postgres.database);
    postgres.by_hand("REVOKE CREATE ON SCHEMA public FROM PUBLIC").await;
    postgres.on_server(format!("CREATE ROLE {role} LOGIN"));
    let settings =
        PgSettings { url: SecretString::from(postgres.url(&role)), ..postgres.settings() };
    let reason = PgStore::open(settings).await.map(|_| ()).expect_err("refused");
    postgres.on_server(format!("DROP ROLE {role}"));
    assert!(matches!(&reason, StoreError::Version(text) if text.contains("GRANT")), "{reason}");
}

#[tokio::test]
async fn a_database_that_is_not_there_and_a_server_that_is_not_there() {
    let Some(postgres) = Postgres::new() else { return };
    let open = async |url: String| {
        let settings = PgSettings { url: SecretString::from(url), ..postgres.settings() };
        PgStore::open(settings).await.map(|_| ()).expect_err("refused")
    };
    let absent = open(postgres.url("").replace(&postgres.database, "no_such_database")).await;
    assert!(matches!(&absent, StoreError::Unavailable(text) if text.contains("3D000")), "{absent}");
    let nobody = open("postgres://me:hunter2@127.0.0.1:1/db,postgres://me@[::1]:1/db".into()).await;
    assert!(matches!(&nobody, StoreError::Unavailable(_)), "{nobody}");
    let wrong = open("postgres://me:hunter2@a/db?passwd=hunter2".into()).await;
    for said in [&absent, &nobody, &wrong] {
        assert!(!said.to_string().contains("hunter2"), "{said}");
    }
    // The second address is tried when the first is nobody's.
    let both = format!("postgres://me@127.0.0.1:1/db,{}", postgres.url(""));
    let settings = PgSettings { url: SecretString::from(both), ..postgres.settings() };
    let store = PgStore::open(settings).await.expect("opened at the second address");
    assert!(store.partition_states().await.expect("read").is_empty());
}

#[tokio::test]
async fn a_read_only_database_until_it_is_not() {
    let Some(postgres) = Postgres::new() else { return };
    let set = |value: &str| {
        postgres.on_server(format!(
            "ALTER DATABASE {} SET default_transaction_read_only = {value}",
            postgres.database
        ));
    };
    set("on");
    let reason = refused(&postgres).await;
    assert!(matches!(reason, StoreError::Unavailable(_)), "{reason}");
    set("off");
    postgres.open().await;
}

/// A newer release's schema, unless it says that this one may still use it.
#[tokio::test]
async fn a_schema_of_a_newer_release() {
    let Some(postgres) = Postgres::new() else { return };
    postgres.open().await.close().await;
    postgres
        .by_hand(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, \
             execution_time) VALUES (9000, 'later', true, '', 0)",
        )
        .await;
    postgres.by_hand("DELETE FROM meta WHERE key = 'schema_needs'").await;
    for (needs, runs) in [("", false), ("9000", false), ("4", true), ("x", false)] {
        if !needs.is_empty() {
            postgres
                .by_hand(&format!(
                    "INSERT INTO meta VALUES ('schema_needs', '{needs}') \
                     ON CONFLICT (key) DO UPDATE SET value = excluded.value"
                ))
                .await;
        }
        match postgres.try_open().await {
            Ok(store) => {
                assert!(runs, "{needs}");
                store.close().await;
            }
            Err(StoreError::Version(_)) => assert!(!runs, "{needs}"),
            Err(other) => panic!("{needs}: {other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_nodes_migrate_at_once() {
    let Some(postgres) = Postgres::new() else { return };
    let mut settings = postgres.settings();
    settings.connections = 4;
    let opening = (0..10).map(|_| PgStore::open(settings.clone()));
    let stores = futures_util::future::join_all(opening).await;
    for store in &stores {
        let store = store.as_ref().expect("opened");
        assert!(store.partition_states().await.expect("read").is_empty());
    }
}
