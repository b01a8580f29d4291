//! A link that another node opened: it asks, this one answers and sends.
//!
//! Reading never waits for anything: what takes time (ordering, heads) is done
//! by the link's own workers, so that a Ping is answered at once whatever the
//! owner is busy with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Streaming;

use super::convert;
use super::outbox::Outbox;
use super::release;
use super::wire::Encoded;
use super::{LinkEvent, Shared};
use crate::chat::{Partitions, Published};
use crate::cluster::router::ordering::{self, ToOrder};
use crate::proto::cluster::v1 as pb;
use crate::proto::cluster::v1::request_frame::Frame as Request;
use crate::proto::cluster::v1::response_frame::Frame as Answer;
use crate::refusal::{Reason, Refusal};
use crate::store::chat::RoomId;

/// Publishes of one link that may wait for the owner.
const PUBLISHES: usize = crate::cluster::router::JOBS;

/// Subscriptions of one link that may wait for their heads.
const SUBSCRIPTIONS: usize = 1024;

/// What an owner has for a publish that does not say how long it has.
const TIME: std::time::Duration = std::time::Duration::from_secs(10);

/// What a link wants, by partition.
pub(super) type Wants = BTreeMap<u16, Wanted>;

/// The rooms of one partition that a link wants.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Names this row of subscriptions: another one begins when the partition
    /// was removed in between, and what was appended meanwhile is missing.
    pub(super) since: u64,
    pub(super) rooms: BTreeSet<RoomId>,
}

/// A link that another node opened.
#[derive(Debug)]
pub(super) struct Incoming {
    node: String,
    incarnation: String,
    connection: u32,
    generation: u64,
    outbox: Arc<Outbox>,
    /// What it subscribed to; `None` once it has ended. Changed by
    /// [`super::interest::Interest`] alone.
    subscribed: Mutex<Option<Wants>>,
}

/// What one link's workers take.
struct Work {
    publishes: mpsc::Sender<ToOrder>,
    subscriptions: mpsc::Sender<Subscription>,
}

/// A subscription that waits for its heads.
struct Subscription {
    partition: u16,
    rooms: Vec<RoomId>,
    /// As [`Wanted::since`].
    since: u64,
}

impl Incoming {
    pub(super) fn new(hello: &pb::Hello, generation: u64, outbox: Arc<Outbox>) -> Arc<Self> {
        Arc::new(Self {
            node: hello.node_id.clone(),
            incarnation: hello.incarnation.clone(),
            connection: hello.connection,
            generation,
            outbox,
            subscribed: Mutex::new(Some(Wants::new())),
        })
    }

    pub(super) fn node(&self) -> &str {
        &self.node
    }

    pub(super) fn incarnation(&self) -> &str {
        &self.incarnation
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    pub(super) fn subscribed(&self) -> MutexGuard<'_, Option<Wants>> {
        self.subscribed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, frame: Answer) {
        self.outbox.push(Encoded::response(frame));
    }
}

/// Runs a link until it ends. `first` came behind the Hello.
pub(super) async fn run(
    shared: Arc<Shared>,
    link: Arc<Incoming>,
    first: Vec<pb::RequestFrame>,
    mut frames: Streaming<pb::LinkRequest>,
) {
    let Some(partitions) = shared.partitions().cloned() else { return };
    let _standing = Standing::new(&shared, &link);
    let (publishes, to_order) = mpsc::channel(PUBLISHES);
    let (subscriptions, to_read) = mpsc::channel(SUBSCRIPTIONS);
    let work = Work { publishes, subscriptions };
    let read = async {
        let work = work;
        first.into_iter().for_each(|frame| take(&shared, &link, &work, frame));
        loop {
            let message = tokio::select! {
                biased;
                () = link.outbox.closed() => return,
                message = frames.message() => message,
            };
            match message {
                Ok(Some(message)) => {
                    for frame in message.frames {
                        take(&shared, &link, &work, frame);
                    }
                }
                Ok(None) => return,
                Err(status) => {
                    tracing::debug!(node = link.node, %status, "a node's link broke");
                    return;
                }
            }
        }
    };
    let order = ordering::run(to_order, partitions.clone(), |id, result| {
        published(&link, id, result);
    });
    let heads = subscribe(&shared, &link, partitions.as_ref(), to_read);
    // What was handed to the owner runs on when the link has ended; its answers
    // are for nobody.
    tokio::select! {
        biased;
        () = read => {}
        ((), ()) = async { tokio::join!(order, heads) } => {}
    }
}

/// A link that stands; it is taken down however its task ends.
struct Standing<'a> {
    shared: &'a Shared,
    link: &'a Arc<Incoming>,
}

impl<'a> Standing<'a> {
    fn new(shared: &'a Shared, link: &'a Arc<Incoming>) -> Self {
        let place = (link.node.clone(), link.connection);
        let older = shared.incoming().insert(place, link.clone());
        // What is left of it when its cut was not noticed here yet.
        if let Some(older) = older {
            older.outbox.close();
        }
        Self { shared, link }
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        let Self { shared, link } = self;
        link.outbox.close();
        shared.interest.end(link);
        shared.relays_unwanted(link);
        let place = (link.node.clone(), link.connection);
        let mut all = shared.incoming();
        if all.get(&place).is_some_and(|present| Arc::ptr_eq(present, link)) {
            all.remove(&place);
        }
    }
}

impl Shared {
    /// The other links of an incoming link's node.
    fn siblings(&self, link: &Arc<Incoming>) -> Vec<Arc<Incoming>> {
        let all = self.incoming();
        let from = (link.node.clone(), 0)..=(link.node.clone(), u32::MAX);
        let links = all.range(from).map(|(_, other)| other);
        links.filter(|other| !Arc::ptr_eq(other, link)).cloned().collect()
    }
}

fn published(link: &Incoming, id: u64, result: Result<Published, Refusal>) {
    link.answer(Answer::Published(convert::published(id, result)));
}

/// One frame of the other side.
fn take(shared: &Shared, link: &Arc<Incoming>, work: &Work, frame: pb::RequestFrame) {
    match frame.frame.filter(|frame| !release::passes_over(frame)) {
        Some(Request::Publish(publish)) => take_publish(link, work, publish),
        Some(Request::Subscribe(subscribe)) => take_subscribe(shared, link, work, subscribe),
        Some(Request::Unsubscribe(unsubscribe)) => {
            if let Ok(partition) = u16::try_from(unsubscribe.partition) {
                let rooms = rooms(&unsubscribe.room_ids);
                shared.interest.remove(link, partition, &rooms);
            }
        }
        Some(Request::Ping(ping)) => pong(shared, link, ping.nonce),
        Some(Request::Owning(owning)) => {
            for position in owning.partitions {
                if let Ok(partition) = u16::try_from(position.partition) {
                    shared.learn(partition, &link.node, position.epoch);
                }
            }
        }
        Some(Request::Handover(handover)) => {
            if let Ok(partition) = u16::try_from(handover.partition) {
                let (me, epoch) = (shared.directory.me().clone(), handover.epoch);
                shared.learn(partition, &me, epoch);
                let from = link.node.clone();
                shared.events.tell(LinkEvent::Handover { partition, epoch, from });
            }
        }
        Some(Request::Touched(touched)) => {
            shared.touched.touched(&touched.accounts, &touched.payment_ids);
        }
        Some(Request::Relay(relay)) => shared.relay(link, relay),
        Some(Request::Draining(_)) => {
            shared.events.tell(LinkEvent::Draining { node: link.node.clone() });
        }
        // A second Hello says nothing new; others are of a newer release.
        Some(Request::Hello(_)) | None => {}
    }
}

fn take_publish(link: &Arc<Incoming>, work: &Work, publish: pb::Publish) {
    let id = publish.id;
    let left = publish.deadline.map_or(TIME, convert::span);
    let traceparent = Some(publish.traceparent.clone()).filter(|text| !text.is_empty());
    let refuse = |reason, why: &str| published(link, id, Err(Refusal::new(reason, why)));
    let Some(proposal) = convert::proposal(publish) else {
        return refuse(Reason::MalformedMessage, "the owner does not know what this is");
    };
    let deadline = Instant::now() + left;
    if work.publishes.try_send(ToOrder { id, proposal, traceparent, deadline }).is_err() {
        refuse(Reason::Overloaded, "too many messages wait for the room's owner");
    }
}

fn take_subscribe(shared: &Shared, link: &Arc<Incoming>, work: &Work, subscribe: pb::Subscribe) {
    let Ok(partition) = u16::try_from(subscribe.partition) else { return };
    let rooms = rooms(&subscribe.room_ids);
    // A node's rooms of a partition are sent over one of its links, that which
    // asked last. Should another one have asked after all, it asks again.
    for sibling in shared.siblings(link) {
        shared.interest.resync(&sibling, partition);
    }
    // Registered before the heads are read: nothing falls between.
    let Some(since) = shared.interest.add(link, partition, &rooms) else { return };
    if work.subscriptions.try_send(Subscription { partition, rooms, since }).is_err() {
        shared.interest.remove_partition(link, partition);
        not_subscribed(link, partition);
    }
}

fn not_subscribed(link: &Incoming, partition: u16) {
    let partition = partition.into();
    link.answer(Answer::Subscribed(pb::Subscribed { partition, ..pb::Subscribed::default() }));
}

/// Reads the heads of what was subscribed to, one after the other.
async fn subscribe(
    shared: &Shared,
    link: &Arc<Incoming>,
    partitions: &dyn Partitions,
    mut subscriptions: mpsc::Receiver<Subscription>,
) {
    while let Some(Subscription { partition, rooms, since }) = subscriptions.recv().await {
        let Some(heads) = partitions.heads(partition, &rooms).await else {
            shared.interest.remove_partition(link, partition);
            not_subscribed(link, partition);
            continue;
        };
        let head = |(room, head): (RoomId, u64)| pb::RoomHead { room_id: room.to_string(), head };
        let subscribed = Answer::Subscribed(pb::Subscribed {
            partition: partition.into(),
            epoch: heads.position.epoch,
            commit_no: heads.position.commit_no,
            rooms: rooms.into_iter().zip(heads.heads).map(head).collect(),
        });
        // When it was told meanwhile to read the store it asks again by itself.
        shared.interest.answer(link, partition, since, Encoded::response(subscribed));
    }
}

/// Everything up to the positions has been put into the outbox before.
fn pong(shared: &Shared, link: &Arc<Incoming>, nonce: u64) {
    let Some(partitions) = shared.partitions() else { return };
    let positions = partitions.positions();
    let subscribed = link.subscribed();
    let wanted = |partition| subscribed.as_ref().is_some_and(|all| all.contains_key(&partition));
    let partitions =
        positions.iter().filter(|at| wanted(at.partition)).map(super::peers::position).collect();
    drop(subscribed);
    let linked = shared.linked().into_iter().collect();
    link.answer(Answer::Pong(pb::Pong { nonce, partitions, linked }));
}

fn rooms(ids: &[String]) -> Vec<RoomId> {
    ids.iter().map(|id| RoomId::from(id.as_str())).collect()
}
