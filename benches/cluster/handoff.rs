//! Planned moves while everybody talks: a node is drained, comes back, and a
//! fourth joins. The longest silence of any room, from the order until nothing
//! moves any more.

use std::time::{Duration, Instant};

use crate::figures::{Figure, millis, percentile};
use crate::stage::Stage;
use crate::talk::Talk;

const ROOMS: usize = 30;
const ROUNDS: usize = 4;

/// Part of every silence: who talks pauses that long.
const PAUSE: Duration = Duration::from_millis(30);

/// The node that goes and comes, and the one that is added.
const NODE: usize = 1;
const FOURTH: usize = 3;

/// How long after a drain clients are still watched as they move.
const MOVING: Duration = Duration::from_secs(5);

pub async fn run() -> Vec<Figure> {
    let mut stage = Stage::start(3, 1);
    stage.settled(0, 3).await;
    let rooms = stage.rooms("handoff", None, ROOMS).await;
    let (mut drains, mut joins) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let talk = Talk::start(&stage, &rooms, &[0, 1, 2], &[0, 1, 2], PAUSE);
        usual(&talk).await;
        let begun = Instant::now();
        stage.drain(0, NODE).await;
        stage.empty(0, NODE).await;
        let took = begun.elapsed();
        tokio::time::sleep(MOVING).await;
        drains.push(longest(&talk, begun, &format!("drain {round}"), took).await);
        assert_eq!(stage.world.nodes[NODE].stop(), Some(0), "a drained node stops");
        joins.push(join(&mut stage, &talk, NODE, 3, &format!("join {round}")).await);
    }
    let talk = Talk::start(&stage, &rooms, &[0, 1, 2], &[0, 1, 2], PAUSE);
    usual(&talk).await;
    joins.push(join(&mut stage, &talk, FOURTH, 4, "join of a fourth").await);
    let measured = |values: Vec<Duration>| {
        let (middle, longest) = (percentile(values.clone(), 50), percentile(values, 100));
        format!("{} (median {})", millis(longest), millis(middle))
    };
    let name = |what| format!("planned hand-off, longest silence of a room: {what}");
    vec![
        Figure::new(name("drain"), measured(drains), "500 ms", "250 ms"),
        Figure::new(name("join"), measured(joins), "500 ms", "250 ms"),
    ]
}

/// Waits until everybody talks, and shows how silent it is when nothing happens.
async fn usual(talk: &Talk) {
    talk.goes_on(Instant::now()).await;
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_secs(2)).await;
    longest(talk, begun, "before", begun.elapsed()).await;
}

/// Starts a node and gives the longest silence until everything has settled.
async fn join(stage: &mut Stage, talk: &Talk, node: usize, nodes: usize, what: &str) -> Duration {
    let begun = Instant::now();
    stage.world.start_node(node);
    stage.world.wait_ready(node);
    stage.settled(0, nodes).await;
    longest(talk, begun, what, begun.elapsed()).await
}

async fn longest(talk: &Talk, begun: Instant, what: &str, took: Duration) -> Duration {
    talk.goes_on(Instant::now()).await;
    let silences = talk.silences(begun);
    let longest = percentile(silences.clone(), 100);
    println!(
        "handoff, {what}: longest silence {}, of the median room {}; took {}",
        millis(longest),
        millis(percentile(silences, 50)),
        millis(took),
    );
    longest
}
