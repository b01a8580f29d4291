//! What sessions are, what a warning means, and what happens when they break.

use std::sync::Arc;

use simpul::store::chat::Appended;
use simpul::store::{ClusterStore as _, StoreError};
use sqlx::Row as _;

use super::Postgres;
use crate::chat::{Chat, create, part, taken, text};

#[tokio::test]
async fn fencing_sessions_lose_their_fence_soon_and_have_the_incarnations_name() {
    let Some(postgres) = Postgres::new() else { return };
    let settings = postgres.settings();
    let incarnation = settings.incarnation.clone();
    let store = simpul::store::postgres::PgStore::open(settings).await.expect("opened");
    let store: Chat = Arc::new(store);
    taken(&store).await;
    store.append(vec![part(0, vec![create("lobby")])]).await.expect("appended");
    let mut hand = postgres.session("by hand").await;
    let rows = sqlx::query(
        "SELECT application_name FROM pg_stat_activity WHERE datname = current_database() \
         AND application_name LIKE 'simpul/%'",
    )
    .fetch_all(&mut hand)
    .await
    .unwrap();
    let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert!(!names.is_empty());
    assert!(names.iter().all(|name| *name == format!("simpul/{incarnation}/n1")), "{names:?}");
}

/// As when a COMMIT no longer waits for a synchronous standby.
#[tokio::test]
async fn a_warning_on_commit_is_an_unknown_outcome() {
    let Some(postgres) = Postgres::new() else { return };
    let store: Chat = postgres.open().await;
    taken(&store).await;
    postgres
        .by_hand(
            "CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS \
             $$BEGIN RAISE WARNING 'canceled'; RETURN NULL; END$$; \
             CREATE CONSTRAINT TRIGGER warn AFTER UPDATE ON \"partition\" \
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION warn()",
        )
        .await;
    let doubtful = store.append(vec![part(0, vec![create("lobby")])]).await;
    assert!(matches!(doubtful, Err(StoreError::Unavailable(_))), "{doubtful:?}");
    // It stands all the same: nobody may write it again.
    assert_eq!(store.room(0, "lobby").await.expect("read").expect("a room").head, 1);
    postgres.by_hand("DROP TRIGGER warn ON \"partition\"").await;
    let next = store.append(vec![part(0, vec![text("lobby", 2, "m")])]).await.expect("appended");
    assert_eq!(next, [Appended::Committed { commit_no: 2 }]);
}

/// The server ends every session, as when it is restarted.
#[tokio::test]
async fn broken_sessions_are_replaced() {
    let Some(postgres) = Postgres::new() else { return };
    let store = postgres.open().await;
    let chat: Chat = store.clone();
    taken(&chat).await;
    for seq in 1..=5 {
        postgres
            .by_hand(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
            .await;
        // A read finds a new connection by itself.
        assert_eq!(chat.partition_states().await.expect("read").len(), 4);
        let entry = if seq == 1 { create("lobby") } else { text("lobby", seq, "") };
        // A write is never repeated blindly; the second try is its caller's.
        let mut answer = chat.append(vec![part(0, vec![entry.clone()])]).await;
        while let Err(StoreError::Unavailable(_)) = answer {
            assert_eq!(chat.heads(0, vec!["lobby".into()]).await.unwrap()[0].unwrap_or(0), seq - 1);
            answer = chat.append(vec![part(0, vec![entry.clone()])]).await;
        }
        assert!(answer.expect("appended")[0].is_committed());
    }
}

#[tokio::test]
async fn a_newer_timeline_elsewhere_makes_this_server_an_old_one() {
    let Some(postgres) = Postgres::new() else { return };
    let store = postgres.open().await;
    let now = store.identity().await.expect("an identity");
    assert!(!now.system_id.is_empty() && now.timeline > 0);
    store.saw_timeline(now.timeline);
    assert_eq!(store.identity().await.expect("the same"), now);
    store.saw_timeline(now.timeline + 1);
    let refused = store.identity().await.expect_err("an old primary");
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused}");
    let mut health = store.health();
    health.wait_for(|reached| !reached).await.expect("the store is open");
}
