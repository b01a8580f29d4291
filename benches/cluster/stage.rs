//! A running cluster with what is needed to measure it: rooms by their owner, a
//! user's token, and a view of who owns what.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use simpul::client::Client;
use simpul::client::dial::{self, Address};
use simpul::client::servers::Servers;
use simpul::proto::chat::v1::CreateRoomRequest;
use simpul::proto::cluster::v1::{Cluster, DrainNodeRequest, GetClusterRequest, NodeState};
use simpul::store::chat::partition_of;

use crate::process::Target;
use crate::world::{LONG, Plan, World};

/// Nothing but the work itself is to bound it; what is logged is not part of it.
const ENV: &[(&str, &str)] = &[
    ("SIMPUL_TELEMETRY__LOG", "warn"),
    ("SIMPUL_TRAFFIC__RATE_PER_PRINCIPAL", "10000000"),
    ("SIMPUL_TRAFFIC__BURST_PER_PRINCIPAL", "10000000"),
    ("SIMPUL_TRAFFIC__MAX_STREAMS_PER_PRINCIPAL", "10000"),
    ("SIMPUL_TRAFFIC__FRAME_RATE_PER_PRINCIPAL", "100000000"),
    ("SIMPUL_TRAFFIC__FRAME_BURST_PER_PRINCIPAL", "100000000"),
];

/// How long ownership must have stood still to count as settled.
const STILL: Duration = Duration::from_secs(2);

pub struct Stage {
    pub world: World,
    /// A user's, who is an operator too.
    pub token: String,
}

impl Stage {
    /// Starts nodes; the spare ones, the last, are only made.
    pub fn start(nodes: u8, spare: u8) -> Stage {
        let plan = Plan { nodes, spare, loopback: true, env: ENV, ..Plan::default() };
        let world = World::start(plan);
        let token = world.token("bench");
        Stage { world, token }
    }

    pub fn address(&self, node: usize) -> Address {
        self.world.servers()[node].parse().expect("an address")
    }

    pub fn addresses(&self, nodes: &[usize]) -> Vec<Address> {
        nodes.iter().map(|node| self.address(*node)).collect()
    }

    pub fn ca(&self) -> Vec<u8> {
        std::fs::read(self.world.ca()).expect("the CA")
    }

    pub fn target(&self, node: usize) -> Target {
        Target::new(&self.world.servers()[node], self.ca())
    }

    /// The process of a node.
    pub fn pid(&self, node: usize) -> u32 {
        let info = self.world.nodes[node].info().expect("a node that is ready");
        u32::try_from(info["pid"].as_u64().expect("a number")).expect("a pid")
    }

    pub async fn client(&self, node: usize) -> Client {
        let tls = std::sync::Arc::new(dial::client_config(&self.ca(), None).expect("PEM"));
        let servers = Servers::connect(vec![self.address(node)], Some("localhost"), tls).await;
        let bearer = format!("Bearer {}", self.token).parse().expect("ASCII");
        Client::new(servers.expect("the node answers"), Some(bearer), None, Duration::from_secs(20))
    }

    /// The cluster as a node sees it.
    pub async fn cluster(&self, via: usize) -> Cluster {
        let client = self.client(via).await;
        look(&client).await
    }

    /// Waits until so many nodes take part, each owns its share, and nothing has
    /// moved for a while.
    pub async fn settled(&self, via: usize, nodes: usize) {
        let client = self.client(via).await;
        let begun = Instant::now();
        let mut since = Instant::now();
        let mut before = BTreeMap::new();
        while since.elapsed() < STILL {
            let cluster = look(&client).await;
            let live = nodes_of(&cluster);
            let owners = owners(&cluster);
            let shares = live.iter().map(|id| owners.values().filter(|by| *by == id).count());
            let least = owners.len() / nodes / 2;
            let even = live.len() == nodes && shares.min().unwrap_or(0) >= least;
            let known = owners.values().all(|owner| live.contains(owner));
            if !even || !known || owners != before {
                since = Instant::now();
                before = owners;
            }
            assert!(begun.elapsed() < LONG, "the cluster does not settle: {cluster:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Creates rooms, in partitions of their own, of one owner or of anybody's.
    pub async fn rooms(&self, prefix: &str, owner: Option<usize>, count: usize) -> Vec<String> {
        let client = self.client(0).await;
        let cluster = look(&client).await;
        let partitions = u16::try_from(cluster.partitions.len()).expect("few");
        let owners = owners(&cluster);
        let wanted = owner.map(|node| self.world.nodes[node].id.clone());
        let mut taken = BTreeSet::new();
        let mut rooms = Vec::new();
        for number in 0..100_000 {
            let room = format!("{prefix}-{number}");
            let partition = partition_of(&room, partitions);
            let fits = wanted.as_ref().is_none_or(|id| owners.get(&partition) == Some(id));
            if !fits || !taken.insert(partition) {
                continue;
            }
            create(&client, &room).await;
            rooms.push(room);
            if rooms.len() == count {
                return rooms;
            }
        }
        panic!("{count} rooms of {wanted:?} were wanted, there are {}", rooms.len());
    }

    /// Creates one room at a node.
    pub async fn room_at(&self, node: usize, room: &str) {
        create(&self.client(node).await, room).await;
    }

    /// Has a node hand over what it owns.
    pub async fn drain(&self, via: usize, node: usize) {
        let client = self.client(via).await;
        let request = DrainNodeRequest { node_id: self.world.nodes[node].id.clone() };
        client.cluster().drain_node(client.unary(request)).await.expect("it is told");
    }

    /// Waits until a node owns nothing.
    pub async fn empty(&self, via: usize, node: usize) {
        let client = self.client(via).await;
        let begun = Instant::now();
        let id = &self.world.nodes[node].id;
        while owners(&look(&client).await).values().any(|owner| owner == id) {
            assert!(begun.elapsed() < LONG, "{id} still owns something");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn create(client: &Client, room: &str) {
    let request = CreateRoomRequest { room_id: room.to_owned(), title: "a room".into() };
    client.chat().create_room(client.unary(request)).await.expect("a room");
}

async fn look(client: &Client) -> Cluster {
    let asked = client.cluster().get_cluster(client.unary(GetClusterRequest {})).await;
    asked.expect("an answer").into_inner().cluster.expect("a cluster")
}

/// The nodes that take part and do not drain.
pub fn nodes_of(cluster: &Cluster) -> BTreeSet<String> {
    let live = cluster.nodes.iter().filter(|node| node.state() == NodeState::Live);
    live.map(|node| node.node_id.clone()).collect()
}

fn owners(cluster: &Cluster) -> BTreeMap<u16, String> {
    let number = |partition: u32| u16::try_from(partition).expect("a partition");
    cluster.partitions.iter().map(|row| (number(row.partition), row.owner.clone())).collect()
}
