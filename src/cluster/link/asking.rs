//! A link that this node opened: it asks, the other side answers and sends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Shared;
use super::convert;
use super::dial::Answers;
use super::outbox::Outbox;
use super::peer::Peer;
use super::wire::{self, Encoded};
use crate::chat::Job;
use crate::chat::peers::Position;
use crate::proto::cluster::v1 as pb;
use crate::proto::cluster::v1::request_frame::Frame as Request;
use crate::proto::cluster::v1::response_frame::Frame as Answer;

/// How often a link is pinged; the answer proves how far its partitions are.
const PING: Duration = Duration::from_millis(150);

/// A link on which nothing came for so many pings is broken.
const UNHEARD: u32 = 14;

/// Pings that may be under way; more tell nothing.
const PINGS: usize = 4;

/// A link that this node opened.
#[derive(Debug)]
pub(in crate::cluster) struct Outgoing {
    node: String,
    connection: u16,
    generation: u64,
    outbox: Arc<Outbox>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Partitions whose appends come over this link, with the owner's epoch.
    followed: BTreeMap<u16, u64>,
    /// Partitions whose rooms are to be asked for again at the next ping.
    again: BTreeSet<u16>,
    /// The nodes that the other one is linked to.
    reaches: BTreeSet<String>,
    pings: VecDeque<(u64, Instant)>,
    round_trip: Option<Duration>,
}

impl Outgoing {
    pub(super) fn new(
        peer: &Peer,
        connection: u16,
        generation: u64,
        outbox: Arc<Outbox>,
    ) -> Arc<Self> {
        let node = peer.info.id.clone();
        Arc::new(Self { node, connection, generation, outbox, state: Mutex::default() })
    }

    pub(super) fn node(&self) -> &str {
        &self.node
    }

    /// Which of the node's connections it is.
    pub(super) fn connection(&self) -> u16 {
        self.connection
    }

    /// Names it, for as long as this node runs.
    pub(in crate::cluster) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// The newest round trip.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.state().round_trip
    }

    /// Whether the other node says that it is linked to this one.
    pub(super) fn reaches(&self, node: &str) -> bool {
        self.state().reaches.contains(node)
    }

    /// Sends a job. False when the link has ended.
    pub(in crate::cluster) fn publish(&self, id: u64, partition: u16, job: &Job) -> bool {
        self.outbox.push(Encoded::request(Request::Publish(carried(id, partition, job))))
    }

    /// Sends a job to be sent on.
    pub(in crate::cluster) fn relay(&self, to: &str, id: u64, partition: u16, job: &Job) -> bool {
        let relay = pb::Relay { to: to.to_owned(), publish: Some(carried(id, partition, job)) };
        self.outbox.push(Encoded::request(Request::Relay(relay)))
    }

    /// The appends of a partition come over this link no more. True when they
    /// did.
    pub(super) fn forget(&self, partition: u16) -> bool {
        self.state().followed.remove(&partition).is_some()
    }

    /// Every partition whose appends came over this link, which is gone.
    pub(super) fn forget_all(&self) -> Vec<u16> {
        std::mem::take(&mut self.state().followed).into_keys().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rooms of the partition are to be asked for again, a little later.
    fn again(&self, partition: u16) {
        self.state().again.insert(partition);
    }

    fn ping(&self, nonce: u64) {
        {
            let mut state = self.state();
            if state.pings.len() >= PINGS {
                return;
            }
            state.pings.push_back((nonce, Instant::now()));
        }
        self.outbox.push(Encoded::request(Request::Ping(pb::Ping { nonce })));
    }
}

fn carried(id: u64, partition: u16, job: &Job) -> pb::Publish {
    convert::publish(id, partition, job.proposal(), job.traceparent(), job.remaining())
}

/// Runs a link until it ends; says why.
pub(super) async fn run(
    shared: &Shared,
    link: &Arc<Outgoing>,
    first: Vec<pb::ResponseFrame>,
    answers: &mut Answers,
) -> String {
    first.into_iter().for_each(|frame| take(shared, link, frame));
    let mut tick = interval(PING);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut unheard, mut nonce) = (0, 0);
    loop {
        tokio::select! {
            biased;
            () = link.outbox.closed() => return "it was closed".into(),
            // Before the answers: however many come, pings go on.
            _ = tick.tick() => {
                unheard += 1;
                if unheard > UNHEARD {
                    return "nothing is heard of the other node".into();
                }
                nonce += 1;
                link.ping(nonce);
                let again = std::mem::take(&mut link.state().again);
                again.into_iter().for_each(|partition| shared.ask_again(link, partition));
            }
            message = answers.message() => match message {
                Ok(Some(message)) => {
                    unheard = 0;
                    for frame in message.frames {
                        take(shared, link, frame);
                    }
                }
                Ok(None) => return "the other node ended it".into(),
                Err(status) => return format!("{}: {}", status.code(), status.message()),
            }
        }
    }
}

/// One frame of the other side.
fn take(shared: &Shared, link: &Arc<Outgoing>, frame: pb::ResponseFrame) {
    let Some(partitions) = shared.partitions() else { return };
    match frame.frame {
        Some(Answer::Published(published)) => answered(shared, published),
        Some(Answer::Relayed(relayed)) => {
            if let Some(published) = relayed.published {
                answered(shared, published);
            }
        }
        Some(Answer::Append(append)) => {
            let partition = u16::try_from(append.partition);
            let epoch = append.epoch;
            let delivery = wire::delivery(append);
            let Ok(partition) = partition else { return };
            if !shared.is_carried_by(link, partition) {
                // On its way when the partition moved to a sibling, which brings
                // it too, or after which the store was read.
                return;
            }
            // Before its Subscribed there is nothing to compare with; chat
            // looks at the epoch itself.
            let followed = link.state().followed.get(&partition).copied();
            match delivery {
                Some(delivery) if followed.is_none_or(|followed| followed == epoch) => {
                    partitions.deliver(delivery);
                }
                _ => shared.lost_track(link, partition),
            }
        }
        Some(Answer::Subscribed(subscribed)) => subscribed_to(shared, link, subscribed),
        Some(Answer::Resync(resync)) => {
            if let Ok(partition) = u16::try_from(resync.partition)
                && shared.is_carried_by(link, partition)
            {
                shared.lost_track(link, partition);
            }
        }
        Some(Answer::Pong(pong)) => ponged(shared, link, pong),
        // A second Hello says nothing new; others are of a newer release.
        Some(Answer::Hello(_)) | None => {}
    }
}

fn answered(shared: &Shared, published: pb::Published) {
    let id = published.id;
    // What is not this node's own it has sent on for another.
    if !shared.router.awaits(id) {
        shared.relayed(published);
        return;
    }
    shared.router.answered(shared, id, convert::outcome(published));
}

fn subscribed_to(shared: &Shared, link: &Arc<Outgoing>, subscribed: pb::Subscribed) {
    let (Some(partitions), Ok(partition)) =
        (shared.partitions(), u16::try_from(subscribed.partition))
    else {
        return;
    };
    let pb::Subscribed { epoch, commit_no, rooms, .. } = subscribed;
    let newer = shared.directory.owner(partition).is_some_and(|owner| owner.epoch > epoch);
    if epoch == 0 || newer {
        shared.lost_track(link, partition);
        return;
    }
    if shared.directory.learn(partition, &link.node, epoch) {
        // Known before anybody else said so: it is no news to be acted on
        // twice, except for what waits.
        shared.forget_others(link, partition);
        shared.pump(partition);
    }
    if !shared.is_carried_by(link, partition) {
        // Asked for before the partition moved to a sibling: it is asked for
        // there, or will be.
        link.again(partition);
        return;
    }
    let before = link.state().followed.insert(partition, epoch);
    if before.is_some_and(|before| before != epoch) {
        shared.lost_track(link, partition);
        return;
    }
    let heads: Vec<_> =
        rooms.into_iter().map(|room| (room.room_id.as_str().into(), room.head)).collect();
    partitions.followed(&Position { partition, epoch, commit_no }, &heads);
    // It may have moved in between: then nothing rests on this link.
    if !shared.is_carried_by(link, partition) {
        shared.lost_track(link, partition);
    }
}

fn ponged(shared: &Shared, link: &Arc<Outgoing>, pong: pb::Pong) {
    let Some(partitions) = shared.partitions() else { return };
    let now = Instant::now();
    let followed = {
        let mut state = link.state();
        while let Some((nonce, sent)) = state.pings.pop_front() {
            if nonce == pong.nonce {
                let took = now.saturating_duration_since(sent);
                state.round_trip = Some(took);
                shared.metrics.round_trip.observe(took.as_secs_f64());
                break;
            }
        }
        state.reaches = pong.linked.into_iter().collect();
        state.followed.clone()
    };
    let positions: BTreeMap<u16, Position> = pong
        .partitions
        .into_iter()
        .filter_map(|at| {
            let partition = u16::try_from(at.partition).ok()?;
            let position = Position { partition, epoch: at.epoch, commit_no: at.commit_no };
            Some((partition, position))
        })
        .collect();
    for (partition, epoch) in followed {
        match positions.get(&partition).filter(|position| position.epoch == epoch) {
            Some(position) => partitions.reached(position),
            None => shared.lost_track(link, partition),
        }
    }
}

impl Shared {
    /// The appends of a partition cannot be relied on to come over this link:
    /// its rooms are read from the store, and asked for again a little later.
    fn lost_track(&self, link: &Arc<Outgoing>, partition: u16) {
        if link.forget(partition)
            && let Some(partitions) = self.partitions()
        {
            partitions.unlinked(partition);
        }
        link.again(partition);
    }

    /// Asks for a partition's rooms again, if this link still leads to its owner.
    fn ask_again(&self, link: &Arc<Outgoing>, partition: u16) {
        let owner = self.directory.owner(partition);
        if owner.is_some_and(|owner| *owner.node == *link.node)
            && let Some(partitions) = self.partitions()
        {
            partitions.refollow(partition);
        }
    }
}
