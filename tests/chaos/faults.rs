//! Bad luck, produced for real.

mod cut;
mod inside;
mod named;
mod nodes;
mod renewal;
mod store;
mod ways;

use std::time::Duration;

use crate::world::World;

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
    /// The same between the fence of an append and its COMMIT.
    FreezeInside(usize, u64),
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
    /// Between nodes everything is slow.
    SlowLinks,
    /// Between nodes everything is held up at random, and connections are reset.
    LossyLinks,
    /// The store is far away.
    SlowStore,
    /// What nodes and the store say to each other is held up at random, and their
    /// connections are reset, in the middle of a COMMIT too.
    LossyStore,
    /// Clients' connections are held up at random, and reset.
    LossyClients,
    /// kill -9 of the database, started again after a while.
    KillStore,
    /// A restart of the database as an administrator does it.
    RestartStore,
    /// The database stands still for so many milliseconds.
    FreezeStore(u64),
    /// The primary is lost, its synchronous standby promoted.
    Promote,
    /// The database's disk is full.
    FullDisk,
    /// A node's wall clock is stepped by so many seconds.
    StepClock(usize, i64),
    /// Every node is stopped and started, one after another.
    Roll,
    /// The same, and while each stops the database stands still for so many
    /// milliseconds.
    RollFrozen(u64),
    /// The same, and while they stop one after another the authority of all their
    /// certificates changes.
    RollRenewed,
    /// Every node gets other certificates of the same authority.
    NewCertificates,
    /// Every node gets certificates of another authority, and believes the one
    /// before no more.
    NewAuthority,
}

impl Fault {
    /// Lets it happen, lasts for `time` where the fault has no time of its own,
    /// and makes it good again.
    pub async fn strike(self, world: &mut World, time: Duration) {
        match self {
            Fault::Kill(node) => nodes::kill(world, &[node], time).await,
            Fault::KillTwo(one, other) => nodes::kill(world, &[one, other], time).await,
            Fault::KillAll => nodes::kill_all(world).await,
            Fault::Freeze(node, millis) => nodes::freeze(world, node, millis).await,
            Fault::FreezeInside(node, millis) => inside::freeze(world, node, millis).await,
            Fault::CutBoth(one, other) => cut::both(world, one, other, time).await,
            Fault::CutOneWay(one, other) => cut::one_way(world, one, other, time).await,
            Fault::Reject(one, other) => cut::reject(world, one, other, time).await,
            Fault::CutMesh => cut::mesh(world, time).await,
            Fault::CutStore(node) => cut::store(world, node, time).await,
            Fault::Isolate(node) => cut::isolate(world, node, time).await,
            Fault::SlowLinks => ways::links(world, ways::SLOW, time).await,
            Fault::LossyLinks => ways::links(world, ways::LOSSY, time).await,
            Fault::SlowStore => ways::store(world, ways::FAR, time).await,
            Fault::LossyStore => ways::store(world, ways::LOSSY, time).await,
            Fault::LossyClients => ways::clients(world, ways::LOSSY, time).await,
            Fault::KillStore => store::kill(world, time).await,
            Fault::RestartStore => world.postgres.restart(&world.net),
            Fault::FreezeStore(millis) => store::freeze(world, millis).await,
            Fault::Promote => store::promote(world),
            Fault::FullDisk => store::full_disk(world, time).await,
            Fault::StepClock(node, seconds) => nodes::step_clock(world, node, seconds, time).await,
            Fault::Roll => nodes::roll(world).await,
            Fault::RollFrozen(millis) => nodes::roll_frozen(world, millis).await,
            Fault::RollRenewed => nodes::roll_renewed(world).await,
            Fault::NewCertificates => renewal::run(world, &[renewal::Step::Renew]).await,
            Fault::NewAuthority => renewal::run(world, &renewal::NEW_AUTHORITY).await,
        }
    }
}
