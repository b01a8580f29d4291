//! What happens to the database.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::world::{LONG, World};

/// kill -9, and started again after a while.
pub async fn kill(world: &mut World, time: Duration) {
    world.postgres.kill();
    sleep(time.min(Duration::from_secs(3))).await;
    world.postgres.start(&world.net);
}

/// It stands still.
pub async fn freeze(world: &World, millis: u64) {
    world.postgres.freeze();
    sleep(Duration::from_millis(millis)).await;
    world.postgres.thaw();
}

/// The primary is lost for ever.
pub fn promote(world: &mut World) {
    let standby = world.standby.take().expect("the world has a standby");
    world.postgres.kill();
    standby.promote();
    standby.sql("ALTER SYSTEM RESET synchronous_standby_names");
    standby.sql("SELECT pg_reload_conf()");
    world.postgres = standby;
}

/// Nothing can be written for a while, from when the database has noticed.
pub async fn full_disk(world: &mut World, time: Duration) {
    let disk = world.disk.as_ref().expect("the world has a small disk");
    let said = |log: String| log.matches("No space left on device").count();
    let before = said(world.postgres.log());
    let begun = Instant::now();
    // What the database frees meanwhile is taken too.
    while said(world.postgres.log()) == before {
        disk.fill();
        assert!(begun.elapsed() < LONG, "the database does not notice that its disk is full");
        sleep(Duration::from_millis(50)).await;
    }
    sleep(time).await;
    disk.empty();
    world.postgres.revive(&world.net);
}
