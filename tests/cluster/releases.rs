//! Two releases side by side. There is none before this one that has a cluster:
//! the binary is told to be it (one migration less, an older protocol, newer
//! frames passed over), which only tests can.

use simpul::proto::chat::v1::join::From;

use crate::cluster::{Cluster, Writer, check, log};
use crate::payments::{Follower, pay, to_toko};
use crate::support::{Node, eventually, not_run};
use crate::talk::{Session, room};

const BEFORE: (&str, &str) = ("SIMPUL_TEST_RELEASE_BEFORE", "1");

const SCHEMA: &str = "SELECT max(version) FROM _sqlx_migrations";

fn refused_links(node: &Node) -> f64 {
    let (_, text) = node.admin("/metrics");
    let all = text.lines().filter(|line| line.starts_with("simpul_link_refused_total"));
    all.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// A room whose partition a node owns.
async fn room_of(cluster: &Cluster, node: usize, prefix: &str) -> String {
    for at in 0.. {
        let room = format!("{prefix}-{at}");
        if cluster.owner_of(&room).await == node {
            return room;
        }
    }
    unreachable!("every node owns partitions")
}

/// A room of each node, a reader and a writer on both: everybody reads what the
/// others write, in one order.
async fn talk_across(cluster: &Cluster, round: &str) {
    let alice = cluster.token("alice", &[]);
    for owner in 0..2 {
        let name = room_of(cluster, owner, &format!("{round}-{owner}")).await;
        room(cluster.nodes[0].channel().await, &alice, &name, &[]).await;
        let mut sessions = Vec::new();
        for node in &cluster.nodes {
            let channel = node.channel().await;
            sessions.push(Session::join(channel, &alice, &name, From::Earliest(true)).await);
        }
        for at in 0..10 {
            for (from, session) in sessions.iter().enumerate() {
                session.send(&name, &format!("{from}-{at}"), "across two releases").await;
            }
        }
        let mut read = Vec::new();
        for session in &mut sessions {
            let mut seen = Vec::new();
            while seen.len() < 21 {
                let message = session.message().await;
                seen.push((message.seq, message.client_message_id));
            }
            read.push(seen);
        }
        assert_eq!(read[0], read[1], "{name}");
    }
    for node in &cluster.nodes {
        assert_eq!(refused_links(node), 0.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_release_before_runs_beside_this_one_and_the_one_before_that_is_refused() {
    if !cfg!(feature = "fault") {
        return not_run("two releases: it needs `--features fault`, as tests/run gives it");
    }
    let Some(mut cluster) = Cluster::start_with("two releases", 1, &[BEFORE]).await else { return };
    let alice = cluster.token("alice", &[]);
    room(cluster.nodes[0].channel().await, &alice, "lobby", &[]).await;
    let database = cluster.database.as_ref().expect("a database");
    let before = database.number(SCHEMA).await;

    // The new one migrates while the old one works.
    let old = Writer::start(&[&cluster.nodes[0]], &alice, "lobby", "old", true).await;
    old.more(10).await;
    cluster.add(&[]);
    cluster.spread().await;
    old.more(10).await;
    let database = cluster.database.as_ref().expect("a database");
    assert_eq!(database.number(SCHEMA).await, before + 1, "the schema was expanded");
    let new = Writer::start(&[&cluster.nodes[1]], &alice, "lobby", "new", true).await;
    new.more(10).await;
    talk_across(&cluster, "side-by-side").await;
    let mut acknowledged = old.stop().await;
    acknowledged.extend(new.stop().await);

    // A posting reaches who follows on the old one, which knows no hints.
    let toko = cluster.token("toko", &[]);
    let mut history = Follower::start(&cluster.nodes[0], &toko).await;
    pay(&cluster.nodes[1], &alice, to_toko("k", "sandbox_ok")).await.expect("paid");
    history.next().await;

    // Two releases behind is one too many, and nothing is changed by the try.
    let older = cluster.refused("older", "n9", &[("SIMPUL_TEST_RELEASE_BEFORE", "2")]);
    let reason = format!(
        "its schema is {} and needs a release that knows schema {before}; this one knows {}",
        before + 1,
        before - 1
    );
    assert!(older.contains(&reason), "{older}");
    assert_eq!(cluster.seen_by(0).await.nodes.len(), 2);

    roll_back_and_forth(cluster, &alice, acknowledged).await;
}

/// The new one dies and comes back, the old one is started again on the schema
/// that it does not know, and then the new one is rolled back altogether.
async fn roll_back_and_forth(
    mut cluster: Cluster,
    alice: &str,
    mut acknowledged: Vec<(String, u64)>,
) {
    for (round, killed) in [1, 0].into_iter().enumerate() {
        let other = &cluster.nodes[1 - killed];
        let name = format!("killed-{killed}");
        let writer = Writer::start(&[other], alice, "lobby", &name, false).await;
        writer.more(10).await;
        cluster.nodes[killed].kill();
        writer.more(10).await;
        cluster.nodes[killed].restart();
        cluster.spread().await;
        writer.more(10).await;
        acknowledged.extend(writer.stop().await);
        talk_across(&cluster, &format!("again-{round}")).await;
    }
    cluster.nodes[1].set_env(BEFORE.0, BEFORE.1);
    cluster.nodes[1].restart();
    cluster.spread().await;
    talk_across(&cluster, "back").await;
    eventually("everything stands once", async || {
        check(&log(&cluster.nodes[1], alice, "lobby").await, &acknowledged);
        Some(())
    })
    .await;
    cluster.end().await;
}
