//! A node: what the product's own node wires, without files, TLS and payments.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use simpul::chat::metrics::ChatMetrics;
use simpul::chat::peers::Position;
use simpul::chat::{Chat, Content, Partitions, Peers, Proposal, Router};
use simpul::cluster::driver::{
    self, ClusterMetrics, Distrust, Driver, Handle, Inbox, Incarnations, LinkState, Mesh, Recovery,
};
use simpul::cluster::link::{self, Identity, LinkEvent, LinkMetrics, Links, OnTouched};
use simpul::cluster::membership::Rules;
use simpul::config::schema;
use simpul::readiness::Readiness;
use simpul::security::mesh::NodeName;
use simpul::store::chat::{PartitionState, RoomRole};
use simpul::store::cluster::{Agreement, ClusterStore, NodeInfo, NodeRecord, StoreIdentity};
use simpul::store::memory::MemoryStore;
use simpul::{chance, clock, drain, task};
use tokio::sync::watch;
use tonic::body::Body;

use crate::network::{self, MESH, PUBLIC, Wires, principal};

/// How many partitions there are.
pub(crate) const PARTITIONS: u16 = 4;

/// What outlives a node's crashes.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) id: String,
    pub(crate) store: MemoryStore,
    /// Which incarnations ran here.
    pub(crate) past: Past,
    /// The rooms that are to be made, and by whom read; by one node only.
    pub(crate) rooms: Vec<(String, Vec<String>)>,
    /// Raised once they are made.
    pub(crate) made: Arc<AtomicBool>,
    /// Asks the process to stop.
    pub(crate) stop: Arc<watch::Sender<bool>>,
    /// How many processes have left the cluster by themselves.
    pub(crate) left: Arc<AtomicUsize>,
    /// What links count.
    pub(crate) metrics: LinkMetrics,
}

/// The data directory's memory of incarnations.
#[derive(Debug, Clone, Default)]
pub(crate) struct Past(Arc<Mutex<Vec<String>>>);

impl Incarnations for Past {
    fn known(&self) -> Vec<String> {
        self.0.lock().expect("whole").clone()
    }

    fn begin(&self, incarnation: &str) -> std::io::Result<()> {
        self.0.lock().expect("whole").push(incarnation.to_owned());
        Ok(())
    }
}

/// There are no payments here.
#[derive(Debug)]
struct Nothing;

#[async_trait]
impl Recovery for Nothing {
    async fn recover_of(&self, _incarnation: &str) -> Result<(), String> {
        Ok(())
    }
}

impl OnTouched for Nothing {
    fn touched(&self, _accounts: &[String], _payments: &[Vec<u8>]) {}
}

/// The links, as the driver sees them.
#[derive(Debug)]
struct Linked(Arc<Links>);

#[async_trait]
impl Mesh for Linked {
    /// There are no certificates here.
    async fn distrust(&self, _: &[NodeInfo]) -> Vec<Distrust> {
        Vec::new()
    }

    fn joined(&self, node: &NodeInfo, store: &StoreIdentity) {
        self.0.joined(&node.incarnation);
        self.0.timeline(store.timeline);
    }

    fn observed(&self, alive: &[NodeRecord], partitions: &[PartitionState], _: Duration) {
        let nodes: Vec<NodeInfo> = alive.iter().map(|node| node.info.clone()).collect();
        self.0.peers_are(&nodes);
        self.0.directory(partitions);
    }

    fn owning(&self, positions: &[Position]) {
        self.0.own(positions);
    }

    fn lost(&self, partition: u16, epoch: u64) {
        self.0.disown(partition, epoch);
    }

    fn hand_over(&self, to: &str, partition: u16, epoch: u64) {
        self.0.handover(partition, epoch, to);
    }

    fn draining(&self) {
        self.0.draining();
    }

    fn links(&self) -> Vec<LinkState> {
        Vec::new()
    }
}

async fn tell(links: Arc<Links>, inbox: Inbox) {
    loop {
        match links.events().next().await {
            LinkEvent::Up { node, incarnation, .. } => inbox.link_up(&node, &incarnation),
            LinkEvent::Refused { node, incarnation, at } => {
                inbox.link_refused(&node, &incarnation, at);
            }
            LinkEvent::Handover { partition, epoch, .. } => inbox.released(partition, epoch),
            LinkEvent::Lost { partition, epoch } => inbox.lost(partition, epoch),
            LinkEvent::Down { .. } | LinkEvent::Draining { .. } | LinkEvent::Timeline { .. } => {
                inbox.look();
            }
        }
    }
}

fn chat_config() -> schema::Chat {
    schema::Chat {
        partitions: PARTITIONS,
        // Little, so that readers who lag read pages of the store.
        room_tail_bytes: 2 * 1024,
        total_tail_bytes: 64 * 1024,
        idle_room: Duration::from_secs(5),
        page_entries: 8,
        max_joined_rooms: 8,
        max_body_bytes: 16_384,
        client_message_id_kept: Duration::from_secs(86_400),
    }
}

fn cluster_config() -> schema::Cluster {
    schema::Cluster {
        name: "sim".to_owned(),
        shared_file: false,
        connections: 2,
        backlog_bytes: 64 * 1024,
        moves_per_second: 8,
    }
}

/// The links of one run of a node.
fn links(machine: &Machine, incarnation: &str) -> Arc<Links> {
    Links::new(link::Parts {
        identity: Identity {
            cluster: "sim".to_owned(),
            node_id: machine.id.as_str().into(),
            incarnation: incarnation.into(),
            schema: 1,
            partitions: PARTITIONS,
            system_id: "memory".to_owned(),
            release: "sim".to_owned(),
        },
        timeline: 1,
        config: cluster_config(),
        network: Arc::new(Wires),
        store: Arc::new(machine.store.clone()),
        touched: Arc::new(Nothing),
        metrics: machine.metrics.clone(),
    })
}

/// The process, from its start to its crash.
pub(crate) async fn run(machine: Machine) -> turmoil::Result {
    let Machine { id, store, .. } = &machine;
    let (public, watch) = drain::channel();
    // Links stand until the process is gone.
    let (_mesh, mesh_watch) = drain::channel();
    let readiness = Readiness::new();
    let incarnation = chance::uuid().to_string();
    let links = links(&machine, &incarnation);
    let chat = Chat::start(
        Arc::new(store.clone()),
        &chat_config(),
        65_536,
        id,
        ChatMetrics::unregistered(),
        watch.clone(),
        &readiness,
        None,
        Some(links.clone() as Arc<dyn Peers>),
    )
    .await?;
    let partitions = chat.partitions();
    links.start(partitions.clone(), &mesh_watch);
    let route = links.service();
    task::spawn("mesh listener", async move {
        let serve = |stream| link::serve(route.clone(), stream, NodeName::Any);
        let _ = network::accept(MESH, serve).await;
    });
    let inbox = Inbox::new();
    task::spawn("news of links", tell(links.clone(), inbox.clone()));
    let (driver, handle) =
        join(&machine, &incarnation, &links, partitions.clone(), &readiness, &inbox).await;
    task::spawn("cluster driver", driver.run());
    if !machine.rooms.is_empty() {
        task::spawn(
            "rooms",
            make_rooms(chat.router(), machine.rooms.clone(), machine.made.clone()),
        );
    }
    let nothing = tower::service_fn(|_: http::Request<Body>| {
        std::future::ready(Ok::<_, Infallible>(http::Response::new(Body::empty())))
    });
    let route = chat.route(nothing);
    tokio::select! {
        biased;
        () = hand_over(&machine, &handle, partitions) => {}
        served = network::accept(PUBLIC, |stream| network::chat(route.clone(), stream)) => {
            return served;
        }
    }
    public.drain(Duration::from_millis(500)).await;
    handle.leave(Duration::from_millis(500)).await;
    if handle.standing().borrow().left {
        machine.left.fetch_add(1, Ordering::Relaxed);
    }
    // What is left of the process is stopped by whoever starts the next.
    std::future::pending().await
}

/// Waits until the process is to stop; then what it owns is handed over, and
/// people are told where they may go. They are served meanwhile.
async fn hand_over(machine: &Machine, handle: &Handle, partitions: Arc<dyn Partitions>) {
    drop(machine.stop.subscribe().wait_for(|stop| *stop).await);
    handle.hand_over(Duration::from_secs(2)).await;
    let elsewhere = handle.standing().borrow().elsewhere.clone();
    if !elsewhere.is_empty() {
        partitions.move_sessions(usize::MAX, &elsewhere, Duration::from_millis(200));
    }
    tokio::time::sleep(Duration::from_millis(400)).await;
}

/// Tries until it takes part.
async fn join(
    machine: &Machine,
    incarnation: &str,
    links: &Arc<Links>,
    partitions: Arc<dyn Partitions>,
    readiness: &Readiness,
    inbox: &Inbox,
) -> (Driver, Handle) {
    let store: Arc<dyn ClusterStore> = Arc::new(machine.store.clone());
    let id = &machine.id;
    loop {
        let joined = Driver::join(driver::Parts {
            store: store.clone(),
            partitions: partitions.clone(),
            mesh: Arc::new(Linked(links.clone())),
            recovery: Arc::new(Nothing),
            past: Arc::new(machine.past.clone()),
            agreement: Agreement { cluster: "sim".to_owned(), trust_domain: "sim".to_owned() },
            info: NodeInfo {
                id: id.clone(),
                incarnation: incarnation.to_owned(),
                public_address: format!("{id}:{PUBLIC}"),
                mesh_address: format!("{id}:{MESH}"),
                zone: String::new(),
                release: "sim".to_owned(),
                started_at: clock::micros(clock::Clock::now(&clock::System)),
            },
            moves_per_second: 8,
            rules: Rules::default(),
            readiness: readiness.clone(),
            metrics: ClusterMetrics::unregistered(),
            inbox: inbox.clone(),
        });
        match joined.await {
            Ok(joined) => return joined,
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

async fn make_rooms(
    router: Arc<dyn Router>,
    rooms: Vec<(String, Vec<String>)>,
    made: Arc<AtomicBool>,
) {
    for (room, people) in rooms {
        let title = room.clone();
        publish(&*router, &room, Content::CreateRoom { title }).await;
        for person in people {
            let (member, role) = (principal(&person), RoomRole::Member);
            publish(&*router, &room, Content::AddMember { member, role }).await;
        }
    }
    made.store(true, Ordering::Relaxed);
}

/// Until it is done, by this or by an earlier try.
async fn publish(router: &dyn Router, room: &str, content: Content) {
    let proposal = Proposal {
        room: room.into(),
        sender: principal("maker"),
        client_message_id: "".into(),
        after: None,
        content,
    };
    loop {
        let told = router.publish(proposal.clone()).await.map_err(tonic::Status::from);
        match told {
            Ok(_) => return,
            Err(status) if status.code() == tonic::Code::AlreadyExists => return,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}
