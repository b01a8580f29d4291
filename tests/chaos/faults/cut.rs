//! What is sent does not arrive.

use std::time::Duration;

use tokio::time::sleep;

use crate::net::Cut;
use crate::world::{PRIMARY, STANDBY, World, host};

/// Between two nodes, in both directions.
pub async fn both(world: &World, one: usize, other: usize, time: Duration) {
    world.net.cut(host(one), host(other), Cut::Drop);
    world.net.cut(host(other), host(one), Cut::Drop);
    sleep(time).await;
    world.net.heal(host(one));
    world.net.heal(host(other));
}

/// From one node to another.
pub async fn one_way(world: &World, one: usize, other: usize, time: Duration) {
    world.net.cut(host(one), host(other), Cut::Drop);
    sleep(time).await;
    world.net.heal(host(other));
}

/// One node's connections to another are refused.
pub async fn reject(world: &World, one: usize, other: usize, time: Duration) {
    world.net.cut(host(one), host(other), Cut::Reject);
    sleep(time).await;
    world.net.heal(host(other));
}

/// Between all nodes.
pub async fn mesh(world: &World, time: Duration) {
    for one in 0..world.nodes.len() {
        cut_off(world, one);
    }
    sleep(time).await;
    (0..world.nodes.len()).for_each(|node| world.net.heal(host(node)));
}

/// Between a node and the store.
pub async fn store(world: &World, node: usize, time: Duration) {
    cut_store(world, host(node));
    sleep(time).await;
    heal_store(world, host(node));
}

/// Between a node and everybody but its clients.
pub async fn isolate(world: &World, node: usize, time: Duration) {
    cut_store(world, host(node));
    cut_off(world, node);
    sleep(time).await;
    heal_store(world, host(node));
    (0..world.nodes.len()).for_each(|node| world.net.heal(host(node)));
}

/// Between a node and the other nodes.
fn cut_off(world: &World, node: usize) {
    for other in (0..world.nodes.len()).filter(|other| *other != node) {
        world.net.cut(host(node), host(other), Cut::Drop);
        world.net.cut(host(other), host(node), Cut::Drop);
    }
}

fn stores(world: &World) -> Vec<u8> {
    let standby = world.standby.as_ref().map(|_| STANDBY);
    [PRIMARY, world.postgres.host()].into_iter().chain(standby).collect()
}

fn cut_store(world: &World, host: u8) {
    for store in stores(world) {
        world.net.cut(host, store, Cut::Drop);
        world.net.cut(store, host, Cut::Drop);
    }
}

fn heal_store(world: &World, host: u8) {
    stores(world).into_iter().for_each(|store| world.net.heal(store));
    world.net.heal(host);
}
