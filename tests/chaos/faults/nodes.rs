//! What happens to processes of nodes.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::sleep;

use super::renewal;
use crate::world::World;

/// kill -9, and started again after a while.
pub async fn kill(world: &mut World, nodes: &[usize], time: Duration) {
    for node in nodes {
        world.nodes[*node].kill();
    }
    sleep(time).await;
    for node in nodes {
        world.start_node(*node);
    }
    for node in nodes {
        world.wait_ready(*node);
    }
}

/// All at once, and started again at once.
pub async fn kill_all(world: &mut World) {
    let all: Vec<usize> = (0..world.nodes.len()).collect();
    kill(world, &all, Duration::from_millis(100)).await;
}

/// SIGSTOP, then SIGCONT.
pub async fn freeze(world: &World, node: usize, millis: u64) {
    world.nodes[node].signal(Signal::STOP);
    sleep(Duration::from_millis(millis)).await;
    world.nodes[node].signal(Signal::CONT);
}

/// Another wall clock, and the right one again.
pub async fn step_clock(world: &World, node: usize, seconds: i64, time: Duration) {
    world.nodes[node].step_clock(seconds);
    sleep(time).await;
    world.nodes[node].step_clock(0);
}

/// Each node in turn is asked to stop and started again.
pub async fn roll(world: &mut World) {
    for node in 0..world.nodes.len() {
        let code = world.nodes[node].stop();
        again(world, node, code);
    }
}

/// The same, and the store stands still while each of them hands over.
pub async fn roll_frozen(world: &mut World, millis: u64) {
    for node in 0..world.nodes.len() {
        world.nodes[node].signal(Signal::TERM);
        super::store::freeze(world, millis).await;
        let code = world.nodes[node].wait_end();
        again(world, node, code);
    }
}

/// The same, and while each of them hands over all nodes are given the next thing
/// of a change of authorities.
pub async fn roll_renewed(world: &mut World) {
    for (node, step) in renewal::NEW_AUTHORITY.into_iter().enumerate() {
        let node = node % world.nodes.len();
        world.nodes[node].signal(Signal::TERM);
        let given = renewal::give(world, step);
        let code = world.nodes[node].wait_end();
        again(world, node, code);
        given.taken(world).await;
    }
    renewal::links_stand(world).await;
}

/// Starts a node again that was asked to stop and ended with a code.
fn again(world: &mut World, node: usize, code: Option<i32>) {
    assert_eq!(code, Some(0), "a node that is asked to stop does");
    world.start_node(node);
    world.wait_ready(node);
}
