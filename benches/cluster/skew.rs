//! A fourth node joins three that have all the sessions: how evenly they are
//! spread a minute later. The sessions are clients as anybody has them: they go
//! elsewhere when their node asks them to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use simpul::client::chat::{Event, From};

use crate::figures::Figure;
use crate::process::median;
use crate::stage::Stage;
use crate::talk;
use crate::world::LONG;

const SESSIONS: usize = 200;
const ROUNDS: usize = 3;
const AFTER: Duration = Duration::from_secs(60);

/// Sessions of every node, and the most ÷ the mean.
async fn skew(stage: &Stage) -> (Vec<u32>, f64) {
    let cluster = stage.cluster(0).await;
    let live = crate::stage::nodes_of(&cluster);
    let here = cluster.nodes.iter().filter(|node| live.contains(&node.node_id));
    let sessions: Vec<u32> = here.map(|node| node.sessions).collect();
    let all: u32 = sessions.iter().sum();
    let most = sessions.iter().copied().max().unwrap_or(0);
    let ratio = f64::from(most) * sessions.len() as f64 / f64::from(all.max(1));
    (sessions, ratio)
}

async fn round(number: usize) -> f64 {
    let mut stage = Stage::start(3, 1);
    stage.settled(0, 3).await;
    let rooms = stage.rooms("skew", None, 10).await;
    let joined = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    for session in 0..SESSIONS {
        let (chat, mut events) = talk::open(&stage, session % 3, &[0, 1, 2]);
        let (room, joined) = (rooms[session % rooms.len()].clone(), joined.clone());
        tasks.push(simpul::task::spawn("session", async move {
            chat.join(&room, From::Latest).await.expect("the chat runs");
            while let Some(event) = events.next().await {
                match event {
                    Event::Joined { again: false, .. } => {
                        joined.fetch_add(1, Ordering::Relaxed);
                    }
                    Event::Ended { why, .. } => panic!("sent away: {why}"),
                    _ => {}
                }
            }
        }));
    }
    let begun = Instant::now();
    while joined.load(Ordering::Relaxed) < SESSIONS {
        assert!(begun.elapsed() < LONG, "sessions that do not come about");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Their nodes tell with their next beats.
    while skew(&stage).await.0.iter().sum::<u32>() as usize != SESSIONS {
        assert!(begun.elapsed() < LONG, "sessions that are not counted");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("skew round {number}: before {:?}", skew(&stage).await.0);
    let begun = Instant::now();
    stage.world.start_node(3);
    stage.world.wait_ready(3);
    let mut last = 0.0;
    for part in 1..=6 {
        tokio::time::sleep((AFTER * part / 6).saturating_sub(begun.elapsed())).await;
        let (sessions, ratio) = skew(&stage).await;
        println!("skew round {number}: after {} s {sessions:?}: {ratio:.2}", part * 10);
        last = ratio;
    }
    assert!(tasks.iter().all(|task| !task.is_finished()), "a session has ended");
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    last
}

pub async fn run() -> Vec<Figure> {
    let mut ratios = Vec::new();
    for number in 1..=ROUNDS {
        ratios.push(round(number).await);
    }
    let name = "skew of sessions 60 s after scaling 3 → 4, most ÷ mean";
    vec![Figure::new(name, format!("{:.2} ×", median(ratios)), "1.5 ×", "1.3 ×")]
}
