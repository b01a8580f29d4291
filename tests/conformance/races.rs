//! The races of ownership on PostgreSQL, each brought about by a session that a
//! test drives by hand, statement by statement.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use simpul::store::ClusterStore as _;
use simpul::store::chat::{Appended, PartitionAppend};
use simpul::store::postgres::PgStore;
use simpul::task;
use sqlx::Row as _;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::chat::{Chat, append, commit_nos, create, head, part, taken, text};
use crate::server::Postgres;

const FENCE: &str = "SELECT id FROM \"partition\" WHERE id = $1 AND epoch = $2 \
                     ORDER BY id FOR NO KEY UPDATE SKIP LOCKED";

/// A node's session between its fence and its COMMIT: entry 2 of `lobby`, in
/// partition 0 under epoch 1, is written and not committed.
async fn fenced(postgres: &Postgres, incarnation: &str) -> PgConnection {
    let mut session = postgres.session(&format!("simpul/{incarnation}/n1")).await;
    sqlx::query("BEGIN").execute(&mut session).await.unwrap();
    let held = sqlx::query(FENCE).bind(0).bind(1i64).fetch_all(&mut session).await.unwrap();
    assert_eq!(held.len(), 1);
    for sql in [
        "UPDATE \"partition\" SET commit_no = commit_no + 1 WHERE id = 0",
        "UPDATE room SET head = 2 WHERE \"partition\" = 0 AND room = 'lobby'",
        "INSERT INTO entry SELECT \"partition\", room, 2, kind, sender, 'm', body, 0, 5 FROM entry",
    ] {
        sqlx::query(sql).execute(&mut session).await.unwrap();
    }
    session
}

async fn pid(session: &mut PgConnection) -> i32 {
    sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(session).await.unwrap()
}

/// Returns once another session waits for this one.
async fn until_waited_for(postgres: &Postgres, pid: i32) {
    let mut looking = postgres.session("looking").await;
    loop {
        let row = sqlx::query(
            "SELECT EXISTS (SELECT FROM pg_stat_activity \
             WHERE $1 = ANY(pg_blocking_pids(pid)))",
        )
        .bind(pid)
        .fetch_one(&mut looking)
        .await
        .unwrap();
        if row.get(0) {
            return;
        }
    }
}

async fn lobby(postgres: &Postgres) -> (Arc<PgStore>, Chat) {
    let store = postgres.open().await;
    let chat: Chat = store.clone();
    taken(&chat).await;
    append(&chat, 0, vec![create("lobby")]).await;
    (store, chat)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_takeover_waits_for_the_commit_and_the_next_statement_sees_its_entry() {
    let Some(postgres) = Postgres::new() else { return };
    let (store, chat) = lobby(&postgres).await;
    let old = Uuid::now_v7().to_string();
    let mut session = fenced(&postgres, &old).await;
    let pid = pid(&mut session).await;
    let seen = chat.partition_states().await.unwrap()[0].clone();
    let taking = {
        let store = store.clone();
        task::spawn("taking", async move { store.take(&seen, "n2", &old).await })
    };
    until_waited_for(&postgres, pid).await;
    // Not committed: neither entry nor epoch is there.
    assert_eq!(head(&chat, 0, "lobby").await, 1);
    sqlx::query("COMMIT").execute(&mut session).await.unwrap();
    let taken = taking.await.unwrap().unwrap().unwrap();
    assert_eq!((taken.owner.as_str(), taken.epoch, taken.commit_no), ("n2", 2, 2));
    assert_eq!(chat.heads(0, vec!["lobby".into()]).await.unwrap(), [Some(2)]);
    // The owner before can commit nothing more.
    let held = sqlx::query(FENCE).bind(0).bind(1i64).fetch_all(&mut session).await.unwrap();
    assert!(held.is_empty());
    let late = chat.append(vec![part(0, vec![text("lobby", 3, "late")])]).await.unwrap();
    assert_eq!(late, [Appended::Fenced]);
}

/// Why heads are read by a statement of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_in_the_takeovers_own_statement_would_be_the_old_one() {
    let Some(postgres) = Postgres::new() else { return };
    let (_, chat) = lobby(&postgres).await;
    let mut session = fenced(&postgres, "x").await;
    let pid = pid(&mut session).await;
    let mut naive = postgres.session("naive").await;
    let taking = task::spawn("taking", async move {
        let row = sqlx::query(
            "UPDATE \"partition\" SET epoch = epoch + 1 WHERE id = 0 AND epoch = 1 \
             RETURNING (SELECT head FROM room WHERE \"partition\" = 0 AND room = 'lobby')",
        )
        .fetch_one(&mut naive)
        .await;
        row.unwrap().get::<i64, _>(0)
    });
    until_waited_for(&postgres, pid).await;
    sqlx::query("COMMIT").execute(&mut session).await.unwrap();
    assert_eq!(taking.await.unwrap(), 1, "the statement saw what was before it waited");
    assert_eq!(head(&chat, 0, "lobby").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_froze_with_the_fence_is_ended() {
    let Some(postgres) = Postgres::new() else { return };
    let (store, chat) = lobby(&postgres).await;
    let frozen = Uuid::now_v7().to_string();
    // Not of the incarnation that is replaced: nobody's to end.
    let mut bystander = postgres.session(&format!("simpul/{}/n1", Uuid::now_v7())).await;
    sqlx::query("BEGIN").execute(&mut bystander).await.unwrap();
    sqlx::query(FENCE).bind(1).bind(1i64).fetch_all(&mut bystander).await.unwrap();
    let mut session = fenced(&postgres, &frozen).await;
    let seen = chat.partition_states().await.unwrap()[0].clone();
    let begun = std::time::Instant::now();
    let taken = store.take(&seen, "n2", &frozen).await.unwrap().unwrap();
    assert!(begun.elapsed().as_secs_f64() < 2.5, "{:?}", begun.elapsed());
    assert_eq!((taken.epoch, taken.commit_no), (2, 1), "nothing of it was kept");
    assert_eq!(head(&chat, 0, "lobby").await, 1);
    // It thaws, and its COMMIT fails.
    sqlx::query("COMMIT").execute(&mut session).await.unwrap_err();
    sqlx::query("COMMIT").execute(&mut bystander).await.unwrap();
}

/// Two that saw the same row: one gets it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_takeovers_one_succeeds() {
    let Some(postgres) = Postgres::new() else { return };
    let (store, chat) = lobby(&postgres).await;
    let mut session = fenced(&postgres, "x").await;
    let pid = pid(&mut session).await;
    let seen = chat.partition_states().await.unwrap()[0].clone();
    let taking: Vec<_> = (0..3)
        .map(|taker| {
            let (store, seen) = (store.clone(), seen.clone());
            let by = format!("n{taker}");
            task::spawn("taking", async move { store.take(&seen, &by, "y").await })
        })
        .collect();
    until_waited_for(&postgres, pid).await;
    sqlx::query("ROLLBACK").execute(&mut session).await.unwrap();
    let mut won = 0;
    for one in taking {
        won += usize::from(one.await.unwrap().unwrap().is_some());
    }
    assert_eq!(won, 1);
    assert_eq!(chat.partition_states().await.unwrap()[0].epoch, 2);
}

/// Appends to partitions 0 and 1 while 1 is locked by another session; returns
/// once the part for 0 stands and that for 1 does not.
async fn append_past_a_lock(
    postgres: &Postgres,
    chat: &Chat,
) -> (PgConnection, tokio::task::JoinHandle<Vec<Appended>>) {
    append(chat, 1, vec![create("other")]).await;
    let mut locking = postgres.session("locking").await;
    sqlx::query("BEGIN").execute(&mut locking).await.unwrap();
    sqlx::query(FENCE).bind(1).bind(1i64).fetch_all(&mut locking).await.unwrap();
    let appending = {
        let chat = chat.clone();
        let parts =
            vec![part(0, vec![text("lobby", 2, "m")]), part(1, vec![text("other", 2, "m")])];
        task::spawn("appending", async move { chat.append(parts).await.unwrap() })
    };
    while head(chat, 0, "lobby").await < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(head(chat, 1, "other").await, 1);
    (locking, appending)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_skipped_is_tried_again() {
    let Some(postgres) = Postgres::new() else { return };
    let (_, chat) = lobby(&postgres).await;
    let (mut locking, appending) = append_past_a_lock(&postgres, &chat).await;
    sqlx::query("ROLLBACK").execute(&mut locking).await.unwrap();
    assert!(appending.await.unwrap().iter().all(|answer| answer.is_committed()));
    assert_eq!(head(&chat, 1, "other").await, 2);
    assert_eq!(commit_nos(&chat).await, [2, 2, 0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_skipped_and_then_taken_is_fenced() {
    let Some(postgres) = Postgres::new() else { return };
    let (_, chat) = lobby(&postgres).await;
    let (mut locking, appending) = append_past_a_lock(&postgres, &chat).await;
    sqlx::query("UPDATE \"partition\" SET owner = 'n2', epoch = epoch + 1 WHERE id = 1")
        .execute(&mut locking)
        .await
        .unwrap();
    sqlx::query("COMMIT").execute(&mut locking).await.unwrap();
    let answers = appending.await.unwrap();
    assert_eq!(answers, [Appended::Committed { commit_no: 2 }, Appended::Fenced]);
    assert_eq!(head(&chat, 1, "other").await, 1);
    assert_eq!(commit_nos(&chat).await, [2, 1, 0, 0]);
}

/// An append whose fence began, and has its snapshot, before what the statements
/// by hand commit: they have the table until then.
async fn append_begun_before(postgres: &Postgres, chat: &Chat, by_hand: &[&str]) -> Appended {
    let mut hand = postgres.session("by hand").await;
    let pid = pid(&mut hand).await;
    for sql in ["BEGIN", "LOCK TABLE \"partition\" IN ACCESS EXCLUSIVE MODE"] {
        sqlx::query(sql).execute(&mut hand).await.unwrap();
    }
    let appending = {
        let (chat, parts) = (chat.clone(), vec![part(0, vec![text("lobby", 3, "late")])]);
        task::spawn("appending", async move { chat.append(parts).await.unwrap() })
    };
    until_waited_for(postgres, pid).await;
    for sql in by_hand.iter().copied().chain(["COMMIT"]) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut hand).await.unwrap();
    }
    appending.await.unwrap()[0]
}

/// The fence and the raise of the commit number are one statement: both see the
/// row's newest version, and the statement after them the newest head.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_that_waited_raises_the_newest_number_and_heads_are_read_after_it() {
    let Some(postgres) = Postgres::new() else { return };
    let (_, chat) = lobby(&postgres).await;
    let entry_2 = [
        "UPDATE \"partition\" SET commit_no = commit_no + 1 WHERE id = 0",
        "UPDATE room SET head = 2 WHERE \"partition\" = 0 AND room = 'lobby'",
        "INSERT INTO entry SELECT \"partition\", room, 2, kind, sender, 'm', body, 0, 5 FROM entry",
    ];
    let answer = append_begun_before(&postgres, &chat, &entry_2).await;
    assert_eq!(answer, Appended::Committed { commit_no: 3 });
    assert_eq!(head(&chat, 0, "lobby").await, 3);
    assert_eq!(commit_nos(&chat).await, [3, 0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_that_waited_is_not_held_under_the_epoch_before() {
    let Some(postgres) = Postgres::new() else { return };
    let (_, chat) = lobby(&postgres).await;
    append(&chat, 0, vec![text("lobby", 2, "m")]).await;
    let taken = "UPDATE \"partition\" SET owner = 'n2', epoch = epoch + 1 WHERE id = 0";
    assert_eq!(append_begun_before(&postgres, &chat, &[taken]).await, Appended::Fenced);
    assert_eq!(head(&chat, 0, "lobby").await, 2);
    assert_eq!(commit_nos(&chat).await, [2, 0, 0, 0]);
}

/// Two appenders name the same partitions in opposite orders.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_in_any_order_do_not_deadlock() {
    const ROUNDS: u64 = 40;
    let Some(postgres) = Postgres::new() else { return };
    let (_, chat) = lobby(&postgres).await;
    let appenders: Vec<_> = [false, true]
        .map(|backwards| {
            let chat = chat.clone();
            task::spawn("appender", async move {
                for seq in 1..=ROUNDS {
                    let mut parts: Vec<PartitionAppend> = (0..4)
                        .map(|partition| {
                            let room = format!("r{backwards}");
                            let new = if seq == 1 { create(&room) } else { text(&room, seq, "") };
                            part(partition, vec![new])
                        })
                        .collect();
                    if backwards {
                        parts.reverse();
                    }
                    let answers = chat.append(parts).await.unwrap();
                    assert!(answers.iter().all(|answer| answer.is_committed()), "{answers:?}");
                }
            })
        })
        .into();
    for appender in appenders {
        appender.await.unwrap();
    }
    assert_eq!(commit_nos(&chat).await, [2 * ROUNDS + 1, 2 * ROUNDS, 2 * ROUNDS, 2 * ROUNDS]);
}
