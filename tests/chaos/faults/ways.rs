//! Bad ways: slow ones and lossy ones, between nodes, to the store, and from
//! clients.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::net::Who;
use crate::way::{Way, Weather};
use crate::world::{LONG, World, host};

/// Half a megabyte a second, and a round trip of 80 to 160 ms.
pub const SLOW: Weather =
    Weather { delay: 40, jitter: 40, rate: 500_000, stall_one_in: None, life: None };

/// A round trip of 10 to 30 ms: a database in another place.
pub const FAR: Weather =
    Weather { delay: 5, jitter: 10, rate: 10_000_000, stall_one_in: None, life: None };

/// Little delay, but stalls, and no connection lives for six seconds.
pub const LOSSY: Weather =
    Weather { delay: 1, jitter: 4, rate: 10_000_000, stall_one_in: Some(50), life: Some(6000) };

/// Between nodes.
pub async fn links(world: &World, weather: Weather, time: Duration) {
    let nodes = 0..world.nodes.len();
    let begin = |node| Way::begin(&world.net, host(node), 7444, Who::Hosts, weather);
    last(world, nodes.map(begin).collect(), weather, time).await;
}

/// Between nodes and the store, and between the store and its standby.
pub async fn store(world: &World, weather: Weather, time: Duration) {
    let way = Way::begin(&world.net, world.postgres.host(), 5432, Who::Hosts, weather);
    last(world, vec![way], weather, time).await;
}

/// Between clients and every node.
pub async fn clients(world: &World, weather: Weather, time: Duration) {
    let nodes = 0..world.nodes.len();
    let begin = |node| Way::begin(&world.net, host(node), 7443, Who::Outside, weather);
    last(world, nodes.map(begin).collect(), weather, time).await;
}

/// Waits for `time`, and for what these ways are for: that something went over
/// them, and that something was lost if they lose.
async fn last(world: &World, ways: Vec<Way>, weather: Weather, time: Duration) {
    sleep(time).await;
    let begun = Instant::now();
    let sum = |what: fn(&Way) -> usize| ways.iter().map(what).sum::<usize>();
    loop {
        let bytes = sum(|way| way.counts().bytes.load(Ordering::Relaxed));
        let reset = sum(|way| way.counts().reset.load(Ordering::Relaxed));
        if bytes > 0 && (reset > 0 || weather.life.is_none()) {
            break;
        }
        assert!(begun.elapsed() < LONG, "nothing went a bad way: {ways:?}");
        sleep(Duration::from_millis(20)).await;
    }
    ways.into_iter().for_each(|way| way.end(&world.net));
}
