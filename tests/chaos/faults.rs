//! Bad luck, produced for real.

use std::time::Duration;

use rustix::process::Signal;

use crate::net::Cut;
use crate::world::{FIRST, PRIMARY, STANDBY, World};

/// One piece of bad luck. Numbers are nodes, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// kill -9 of a node, started again after a while.
    Kill(usize),
    /// kill -9 of two.
    KillTwo(usize, usize),
    /// kill -9 of all, at once.
    KillAll,
    /// SIGSTOP, and SIGCONT after so many milliseconds.
    Freeze(usize, u64),
    /// Everything between two nodes vanishes.
    CutBoth(usize, usize),
    /// What the first sends to the second vanishes, not the other way round.
    CutOneWay(usize, usize),
    /// A firewall refuses the first node's connections to the second's mesh.
    Reject(usize, usize),
    /// No node reaches another; all reach the store.
    CutMesh,
    /// A node does not reach the store.
    CutStore(usize),
    /// A node reaches nobody but its clients.
    Isolate(usize),
    /// kill -9 of the database, started again after a while.
    KillStore,
    /// A restart of the database as an administrator does it.
    RestartStore,
    /// The database stands still for so many milliseconds.
    FreezeStore(u64),
    /// The primary is lost, its synchronous standby promoted.
    Promote,
    /// A node's wall clock is stepped by so many seconds.
    StepClock(usize, i64),
    /// Every node is stopped and started, one after another.
    Roll,
}

impl Fault {
    /// Lets it happen, lasts for `time` where the fault has no time of its own,
    /// and makes it good again.
    pub async fn strike(self, world: &mut World, time: Duration) {
        let host = |node: usize| FIRST + u8::try_from(node).expect("a node");
        match self {
            Fault::Kill(node) => kill(world, &[node], time).await,
            Fault::KillTwo(one, other) => kill(world, &[one, other], time).await,
            Fault::KillAll => {
                let all: Vec<usize> = (0..world.nodes.len()).collect();
                kill(world, &all, Duration::from_millis(100)).await;
            }
            Fault::Freeze(node, millis) => {
                world.nodes[node].signal(Signal::STOP);
                tokio::time::sleep(Duration::from_millis(millis)).await;
                world.nodes[node].signal(Signal::CONT);
            }
            Fault::CutBoth(one, other) => {
                world.net.cut(host(one), host(other), Cut::Drop);
                world.net.cut(host(other), host(one), Cut::Drop);
                tokio::time::sleep(time).await;
                world.net.heal(host(one));
                world.net.heal(host(other));
            }
            Fault::CutOneWay(one, other) => {
                world.net.cut(host(one), host(other), Cut::Drop);
                tokio::time::sleep(time).await;
                world.net.heal(host(other));
            }
            Fault::Reject(one, other) => {
                world.net.cut(host(one), host(other), Cut::Reject);
                tokio::time::sleep(time).await;
                world.net.heal(host(other));
            }
            Fault::CutMesh => {
                for one in 0..world.nodes.len() {
                    for other in (0..world.nodes.len()).filter(|other| *other != one) {
                        world.net.cut(host(one), host(other), Cut::Drop);
                    }
                }
                tokio::time::sleep(time).await;
                (0..world.nodes.len()).for_each(|node| world.net.heal(host(node)));
            }
            Fault::CutStore(node) => {
                cut_store(world, host(node));
                tokio::time::sleep(time).await;
                heal_store(world, host(node));
            }
            Fault::Isolate(node) => {
                cut_store(world, host(node));
                for other in (0..world.nodes.len()).filter(|other| *other != node) {
                    world.net.cut(host(node), host(other), Cut::Drop);
                    world.net.cut(host(other), host(node), Cut::Drop);
                }
                tokio::time::sleep(time).await;
                heal_store(world, host(node));
                (0..world.nodes.len()).for_each(|node| world.net.heal(host(node)));
            }
            Fault::KillStore => {
                world.postgres.kill();
                tokio::time::sleep(time.min(Duration::from_secs(3))).await;
                world.postgres.start(&world.net);
            }
            Fault::RestartStore => world.postgres.restart(&world.net),
            Fault::FreezeStore(millis) => {
                world.postgres.freeze();
                tokio::time::sleep(Duration::from_millis(millis)).await;
                world.postgres.thaw();
            }
            Fault::Promote => {
                let standby = world.standby.take().expect("the world has a standby");
                world.postgres.kill();
                standby.promote();
                standby.sql("ALTER SYSTEM RESET synchronous_standby_names");
                standby.sql("SELECT pg_reload_conf()");
                world.postgres = standby;
            }
            Fault::StepClock(node, seconds) => {
                world.nodes[node].step_clock(seconds);
                tokio::time::sleep(time).await;
                world.nodes[node].step_clock(0);
            }
            Fault::Roll => {
                for node in 0..world.nodes.len() {
                    let code = world.nodes[node].stop();
                    assert_eq!(code, Some(0), "a node that is asked to stop does");
                    world.start_node(node);
                    world.wait_ready(node);
                }
            }
        }
    }
}

async fn kill(world: &mut World, nodes: &[usize], time: Duration) {
    for node in nodes {
        world.nodes[*node].kill();
    }
    tokio::time::sleep(time).await;
    for node in nodes {
        world.start_node(*node);
    }
    for node in nodes {
        world.wait_ready(*node);
    }
}

fn stores(world: &World) -> Vec<u8> {
    let standby = world.standby.as_ref().map(|_| STANDBY);
    std::iter::once(PRIMARY).chain(standby).collect()
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
