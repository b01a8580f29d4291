//! The way of jobs to the owner of their partition.
//!
//! Each partition has a lane: its jobs that are not answered yet, in the order
//! in which they came. They are sent to the owner that the directory knows, by
//! the best route there is:
//!
//! ```text
//! this node (settled) ▸ link to the owner ▸ relay through a node that is linked
//! to it ▸ letter in the store ▸ wait
//! ```
//!
//! *Order.* A lane uses one route at a time, and sends nothing behind a job that
//! came back until all that was sent has come back. To an owner that has not
//! answered yet it sends one job alone: one that has not quite taken the
//! partition would refuse the first and accept the second.
//!
//! *Once.* What came back as NOT_OWNER was not appended. What was sent over a
//! link that broke may have been: it is sent again under its name, which the
//! owner's key table knows. Every job has a name.
//!
//! The same holds for letters once there is another way: they are looked for
//! seldom, and a node that died may have had them.
//!
//! *In time.* Who waits is answered when its time is over, and at once when
//! there is no room for its job.

mod lane;
pub(super) mod letters;
pub(super) mod ordering;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::lane::{Entry, Lane, Via};
use self::letters::Leave;
use self::ordering::ToOrder;
use super::link::LinkMetrics;
use super::link::convert::Outcome;
use super::link::{Outgoing, Shared};
use crate::chat::{Content, Job, Published};
use crate::refusal::{Reason, Refusal};

/// Jobs that may wait here, of all partitions.
pub(super) const JOBS: usize = 8192;

/// How often waiting jobs are looked at.
const TICK: Duration = Duration::from_millis(25);

/// How long a job waits for a link before it goes by letter.
const BEFORE_LETTER: Duration = Duration::from_millis(300);

/// What a job costs beside its body, bytes.
const OVERHEAD: usize = 512;

/// The router's state.
#[derive(Debug)]
pub(super) struct Router {
    state: Mutex<State>,
    limit: usize,
    metrics: LinkMetrics,
    local: Queue<ToOrder>,
    leave: Queue<Leave>,
}

#[derive(Debug, Default)]
struct State {
    lanes: BTreeMap<u16, Lane>,
    /// The partition of each attempt that is not answered.
    attempts: BTreeMap<u64, u16>,
    count: usize,
    bytes: usize,
}

/// A job that is to be answered once the lock is let go.
type Answers = Vec<(Job, Result<Published, Refusal>)>;

/// A bounded queue whose other end is taken once.
#[derive(Debug)]
struct Queue<T> {
    into: mpsc::Sender<T>,
    out: Mutex<Option<mpsc::Receiver<T>>>,
}

impl<T> Queue<T> {
    fn new() -> Self {
        let (into, out) = mpsc::channel(JOBS);
        Self { into, out: Mutex::new(Some(out)) }
    }

    fn take(&self) -> Option<mpsc::Receiver<T>> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Where a partition's jobs go now.
pub(super) enum Route {
    /// This node orders it.
    Local,
    /// There is a link to the owner.
    Link(Arc<Outgoing>),
    /// There is a link to a node that is linked to the owner.
    Relay(Arc<Outgoing>, Arc<str>),
    /// The owner is alive and out of reach.
    Letter,
    /// Nobody is known to order it.
    Nowhere,
}

impl Route {
    fn via(&self) -> Option<Via> {
        match self {
            Route::Local => Some(Via::Local),
            Route::Link(link) => Some(Via::Link(link.generation())),
            Route::Relay(link, _) => Some(Via::Relay(link.generation())),
            Route::Letter => Some(Via::Letter),
            Route::Nowhere => None,
        }
    }
}

impl Router {
    /// Takes in so many bytes of jobs at most.
    pub(super) fn new(limit: usize, metrics: LinkMetrics) -> Self {
        let state = Mutex::default();
        Self { state, limit, metrics, local: Queue::new(), leave: Queue::new() }
    }

    /// Whether jobs of the partition wait here.
    pub(super) fn waits(&self, partition: u16) -> bool {
        self.state().lanes.get(&partition).is_some_and(|lane| !lane.is_empty())
    }

    /// Takes a job in and sends it on.
    pub(super) fn submit(&self, shared: &Shared, partition: u16, mut job: Job) {
        job.name();
        let size = size(&job);
        let refused = {
            let mut state = self.state();
            if state.count >= JOBS || state.bytes.saturating_add(size) > self.limit {
                Some(job)
            } else {
                state.count += 1;
                state.bytes += size;
                self.metrics.waiting.inc();
                state.lanes.entry(partition).or_default().push(job, size);
                self.pump_lane(shared, &mut state, partition);
                None
            }
        };
        if let Some(job) = refused {
            let rule = "too many messages wait for other nodes";
            let refusal = Refusal::new(Reason::Overloaded, rule);
            job.answer(Err(refusal.retry_after(Duration::from_millis(500))));
        }
    }

    /// Something about the partition's owner or its links changed.
    pub(super) fn pump(&self, shared: &Shared, partition: u16) {
        self.pump_lane(shared, &mut self.state(), partition);
    }

    /// An attempt was answered. False when it is none of this router.
    pub(super) fn answered(&self, shared: &Shared, attempt: u64, outcome: Outcome) -> bool {
        let answer = {
            let mut state = self.state();
            let Some(partition) = state.attempts.remove(&attempt) else { return false };
            let answer = state
                .lanes
                .get_mut(&partition)
                .and_then(|lane| lane.answered(attempt, outcome, Instant::now()));
            let answer = answer.map(|(entry, result)| (self.leave(&mut state, entry), result));
            self.pump_lane(shared, &mut state, partition);
            answer
        };
        if let Some((job, result)) = answer {
            job.answer(result);
        }
        true
    }

    /// Whether an attempt is not answered yet.
    pub(super) fn awaits(&self, attempt: u64) -> bool {
        self.state().attempts.contains_key(&attempt)
    }

    /// A link broke: what was sent over it is sent again.
    pub(super) fn broken(&self, shared: &Shared, generation: u64) {
        let mut state = self.state();
        let State { lanes, attempts, .. } = &mut *state;
        for lane in lanes.values_mut() {
            lane.broken(generation, |attempt| {
                attempts.remove(&attempt);
            });
        }
        let partitions: Vec<u16> = lanes.keys().copied().collect();
        for partition in partitions {
            self.pump_lane(shared, &mut state, partition);
        }
    }

    /// Answers whose time is over, and sends what can be sent now.
    fn tick(&self, shared: &Shared) {
        let mut over: Answers = Vec::new();
        {
            let mut state = self.state();
            let now = Instant::now();
            let partitions: Vec<u16> = state.lanes.keys().copied().collect();
            for partition in partitions {
                let lane = state.lanes.get_mut(&partition);
                for (entry, refusal) in lane.map(|lane| lane.expired(now)).unwrap_or_default() {
                    if let Some((attempt, _)) = entry.sent {
                        state.attempts.remove(&attempt);
                    }
                    over.push((self.leave(&mut state, entry), Err(refusal)));
                }
                self.pump_lane(shared, &mut state, partition);
            }
        }
        for (job, result) in over {
            job.answer(result);
        }
    }

    /// Sends what may be sent. Under the lock, so that two callers cannot send
    /// in another order than the lane's; nothing in here waits.
    fn pump_lane(&self, shared: &Shared, state: &mut State, partition: u16) {
        let State { lanes, attempts, .. } = state;
        let Some(lane) = lanes.get_mut(&partition).filter(|lane| !lane.is_empty()) else {
            return;
        };
        let now = Instant::now();
        let (route, epoch) = shared.route(partition);
        lane.recall(route.via(), |attempt| {
            attempts.remove(&attempt);
        });
        let Some(via) = lane.ready(route.via(), now, BEFORE_LETTER) else { return };
        while let Some(job) = lane.next(via, epoch, now) {
            let attempt = shared.next_attempt();
            if !self.send(&route, attempt, partition, job) {
                return;
            }
            lane.sent(attempt, via);
            attempts.insert(attempt, partition);
        }
    }

    fn send(&self, route: &Route, attempt: u64, partition: u16, job: &Job) -> bool {
        match route {
            Route::Local => {
                let order = ToOrder {
                    id: attempt,
                    proposal: job.proposal().clone(),
                    traceparent: job.traceparent(),
                    deadline: job.deadline(),
                };
                self.local.into.try_send(order).is_ok()
            }
            Route::Link(link) => {
                self.metrics.forwarded.inc();
                link.publish(attempt, partition, job)
            }
            Route::Relay(link, owner) => {
                self.metrics.relayed.inc();
                link.relay(owner, attempt, partition, job)
            }
            Route::Letter => {
                self.metrics.letters.inc();
                self.leave.into.try_send(Leave::new(attempt, partition, job)).is_ok()
            }
            Route::Nowhere => false,
        }
    }

    /// An entry left its lane.
    fn leave(&self, state: &mut State, entry: Entry) -> Job {
        state.count -= 1;
        state.bytes -= entry.size;
        self.metrics.waiting.dec();
        entry.job
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn size(job: &Job) -> usize {
    let body = match &job.proposal().content {
        Content::Text { body, .. } => body.len(),
        Content::CreateRoom { title } | Content::SetTitle { title } => title.len(),
        _ => 0,
    };
    body + OVERHEAD
}

/// Looks after what waits, until it is dropped.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        shared.router.tick(&shared);
    }
}

/// Orders the jobs whose partition is this node's by now.
pub(super) async fn local(shared: Arc<Shared>) {
    let (Some(jobs), Some(partitions)) = (shared.router.local.take(), shared.partitions()) else {
        return;
    };
    ordering::run(jobs, partitions.clone(), |attempt, result| {
        shared.router.answered(&shared, attempt, ordering::outcome(result));
    })
    .await;
}

impl Shared {
    /// Where the partition's jobs go now, and under which epoch of its owner.
    fn route(&self, partition: u16) -> (Route, u64) {
        let Some(owner) = self.directory.owner(partition) else { return (Route::Nowhere, 0) };
        let route = if owner.settled {
            Route::Local
        } else if owner.node.is_empty() || owner.node == *self.directory.me() {
            Route::Nowhere
        } else if let Some(link) = self.link_to(&owner.node, partition) {
            Route::Link(link)
        } else if let Some(link) = self.link_through(&owner.node, partition) {
            Route::Relay(link, owner.node)
        } else if self.is_member(&owner.node) {
            Route::Letter
        } else {
            // It is dead or gone: somebody will take the partition.
            Route::Nowhere
        };
        (route, owner.epoch)
    }

    /// Sends what waits for a partition.
    pub(in crate::cluster) fn pump(&self, partition: u16) {
        self.router.pump(self, partition);
    }
}
