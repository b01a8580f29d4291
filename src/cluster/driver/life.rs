//! One incarnation: from its join to its end.

mod look;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::beat::{Pulse, beat};
use super::drain::{Order, Orders};
use super::inbox::News;
use super::pace::Pace;
use super::read::{self, Read};
use super::seen::Seen;
use super::step::{self, Done, Released, Step};
use super::table::Table;
use super::{Lasting, Parts};
use crate::cluster::membership::Membership;
use crate::cluster::ownership::{Action, Orphans, View, plan};
use crate::readiness::Guard;
use crate::store::cluster::{NodeRecord, NodeState};
use crate::{clock, task};

/// Takes at once.
const TAKES: usize = 8;

/// Hand-overs at once.
const HANDOVERS: usize = 8;

/// How long the row may take to say that the node has left.
const LEAVE: Duration = Duration::from_secs(2);

/// How an incarnation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// By itself.
    Left,
    /// It was declared dead.
    Died,
}

/// One incarnation.
#[derive(Debug)]
pub(super) struct Life<'a> {
    parts: Arc<Parts>,
    seen: Arc<Seen>,
    incarnation: String,
    lasting: &'a mut Lasting,
    membership: Membership,
    orphans: Orphans,
    /// As of the newest read.
    nodes: Vec<NodeRecord>,
    table: Table,
    steps: FuturesUnordered<Step>,
    takes: usize,
    handovers: usize,
    /// Incarnations that are being declared dead, or whose work is being taken
    /// up.
    deciding: BTreeSet<String>,
    marking: bool,
    /// What was asked for, by the process or through the row.
    order: Order,
    pace: Pace,
    /// The newest beat that reached the store.
    beaten: Duration,
    /// The newest read that succeeded began then.
    read: Duration,
    /// Whether the next read asks which database it is, and when it does anyway.
    ask: bool,
    ask_at: Duration,
    tidy_at: Duration,
    balance_at: Duration,
    turned_away: Option<Duration>,
    unreachable: Option<Guard>,
    foreign: Option<Guard>,
    /// When the next read begins; at once after the one under way when `hurry`.
    next: Instant,
    hurry: bool,
}

/// What the loop wakes for.
enum Event {
    Pulse,
    Dead,
    Ordered(Order),
    Done(Done),
    Read(Box<Read>),
    News(News),
    Due,
}

impl<'a> Life<'a> {
    pub(super) fn new(
        parts: Arc<Parts>,
        seen: Arc<Seen>,
        incarnation: &str,
        lasting: &'a mut Lasting,
    ) -> Self {
        let now = clock::since_boot();
        let membership = Membership::new(&parts.info.id, incarnation, parts.rules);
        Self {
            pace: Pace::new(parts.moves_per_second, now),
            parts,
            seen,
            incarnation: incarnation.to_owned(),
            lasting,
            membership,
            orphans: Orphans::default(),
            nodes: Vec::new(),
            table: Table::default(),
            steps: FuturesUnordered::new(),
            takes: 0,
            handovers: 0,
            deciding: BTreeSet::new(),
            marking: false,
            order: Order::Work,
            beaten: now,
            read: now,
            ask: false,
            ask_at: now,
            tidy_at: now,
            balance_at: now,
            turned_away: None,
            unreachable: None,
            foreign: None,
            next: Instant::now(),
            hurry: false,
        }
    }

    /// Lives until the node is told to leave or was declared dead.
    pub(super) async fn run(mut self, orders: &mut Orders) -> End {
        let state = Some(NodeState::Live);
        let (tell, mut pulse) = watch::channel(Pulse { state, good: self.beaten });
        let (store, partitions) = (self.parts.store.clone(), self.parts.partitions.clone());
        let id = self.parts.info.id.clone();
        let beating = beat(store, partitions, id, self.incarnation.clone(), tell);
        // Owned: should this panic, the node must not look alive.
        let beating = task::spawn_owned("cluster beat", beating);
        let end = self.go_on(orders, &mut pulse).await;
        drop(beating);
        if end == End::Left {
            self.leave().await;
            orders.left();
        }
        end
    }

    async fn go_on(&mut self, orders: &mut Orders, pulse: &mut watch::Receiver<Pulse>) -> End {
        let mut reading: Option<BoxFuture<'static, Read>> = None;
        loop {
            let is_reading = reading.is_some();
            let read = async {
                match reading.as_mut() {
                    Some(read) => read.await,
                    None => std::future::pending().await,
                }
            };
            let event = tokio::select! {
                biased;
                changed = pulse.changed() => if changed.is_ok() { Event::Pulse } else { Event::Dead },
                order = orders.more_than(self.order) => Event::Ordered(order),
                Some(done) = self.steps.next() => Event::Done(done),
                read = read => Event::Read(Box::new(read)),
                news = self.parts.inbox.news() => Event::News(news),
                () = sleep_until(self.next), if !is_reading => Event::Due,
            };
            match event {
                Event::Pulse => {
                    let pulse = *pulse.borrow_and_update();
                    if self.beaten(pulse) == Some(End::Died) {
                        return End::Died;
                    }
                }
                Event::Dead => return End::Died,
                Event::Ordered(Order::Leave) => return End::Left,
                Event::Ordered(order) => self.ordered(order),
                Event::Done(done) => self.done(done),
                Event::Read(read) => {
                    reading = None;
                    self.schedule(read.began);
                    if self.looked(*read) == Some(End::Died) {
                        return End::Died;
                    }
                }
                Event::News(news) => self.told(news),
                Event::Due => {
                    self.hurry = false;
                    let whole = self.asks();
                    reading = Some(read::read(&self.parts, whole));
                    continue;
                }
            }
            self.act();
            self.stand(orders);
        }
    }

    /// When the next read begins: in a quarter of a second, or just when it can
    /// prove that a node is dead.
    fn schedule(&mut self, began: Duration) {
        let now = clock::since_boot();
        let usual = began + read::EVERY;
        let usual = if self.hurry { began } else { usual };
        let due = self.membership.look_at().map_or(usual, |look| look.max(began).min(usual));
        // Never without a pause: a late look is one that was not proof enough.
        let pause = due.saturating_sub(now).max(read::EVERY / 10);
        self.next = Instant::now() + pause;
    }

    /// The tables have changed, as far as is known: a read begins at once.
    fn look_now(&mut self) {
        self.hurry = true;
        self.next = Instant::now();
    }

    fn beaten(&mut self, pulse: Pulse) -> Option<End> {
        self.beaten = pulse.good;
        match pulse.state {
            None => Some(End::Died),
            Some(NodeState::Draining) if self.order < Order::HandOver => {
                tracing::info!("this node was asked to drain");
                self.ordered(Order::HandOver);
                None
            }
            Some(_) => None,
        }
    }

    fn ordered(&mut self, order: Order) {
        self.order = self.order.max(order);
        self.parts.mesh.draining();
        self.look_now();
    }

    fn is_draining(&self) -> bool {
        self.order >= Order::HandOver
    }

    /// What links and chat told since the last read.
    fn told(&mut self, news: News) {
        for (partition, epoch) in news.lost {
            if self.table.lost(partition, epoch) {
                self.parts.metrics.lost.inc();
            }
            self.parts.mesh.lost(partition, epoch);
        }
        for (partition, epoch) in news.released {
            self.table.released(partition, epoch, &self.parts.info.id);
        }
        for (node, (incarnation, refused)) in news.links {
            match refused {
                Some(at) => self.membership.link_refused(&node, &incarnation, at),
                None => self.membership.link_up(&node, &incarnation),
            }
        }
        if news.look {
            self.ask = true;
            self.look_now();
        }
        if let Some(look) = self.membership.look_at() {
            let pause = look.saturating_sub(clock::since_boot());
            self.next = self.next.min(Instant::now() + pause);
        }
    }

    /// A step came to its end.
    fn done(&mut self, done: Done) {
        match done {
            Done::Declared(suspect, outcome) => {
                self.deciding.remove(&suspect.incarnation);
                match outcome {
                    Ok(true) => {
                        tracing::warn!(node = suspect.id, "declared dead");
                        self.parts.metrics.declared.inc();
                        self.lasting.over.insert(suspect.incarnation);
                        self.look_now();
                    }
                    Ok(false) => {}
                    Err(error) => tracing::warn!(%error, "a death could not be declared"),
                }
            }
            Done::Taken(partition, outcome) => {
                self.takes -= 1;
                let row = outcome.unwrap_or_else(|error| {
                    tracing::warn!(%error, partition, "a partition could not be taken yet");
                    None
                });
                if row.is_none() {
                    self.look_now();
                }
                self.table.taken(partition, row.as_ref());
            }
            Done::Released(partition, released) => {
                self.handovers -= 1;
                let row = match &released {
                    Released::Named(row) => Some(row),
                    Released::NotOwned | Released::Unknown => None,
                };
                self.table.handed_over(partition, row);
            }
            Done::Recovered(incarnation, done) => {
                self.deciding.remove(&incarnation);
                if done {
                    self.lasting.over.remove(&incarnation);
                }
            }
            Done::Marked => self.marking = false,
            Done::Tidied => {}
        }
        self.parts.metrics.owned.set(i64::try_from(self.table.held.len()).unwrap_or(i64::MAX));
    }

    /// Begins what the pure core concludes, as much of it as may run at once.
    fn act(&mut self) {
        if self.nodes.is_empty() || self.foreign.is_some() {
            return;
        }
        let now = clock::since_boot();
        let (rows, busy) = (self.table.rows(), self.table.busy());
        let actions = plan(&View {
            me: &self.parts.info.id,
            incarnation: &self.incarnation,
            draining: self.is_draining(),
            nodes: &self.nodes,
            rows: &rows,
            held: &self.table.held,
            busy: &busy,
            orphans: &self.orphans,
            changed: self.membership.changed(),
            now,
            moves: self.pace.allowed(now),
        });
        for action in actions {
            self.begin(action);
        }
    }

    fn begin(&mut self, action: Action) {
        match action {
            Action::Lose { partition } => {
                if let Some(epoch) = self.table.held.remove(&partition) {
                    tracing::warn!(partition, epoch, "the partition is another node's");
                    self.parts.partitions.lose(partition);
                    self.parts.mesh.lost(partition, epoch);
                    self.parts.metrics.lost.inc();
                }
            }
            Action::Take { seen, from_incarnation } if self.takes < TAKES => {
                self.takes += 1;
                self.table.stepping.insert(seen.partition);
                self.steps.push(step::take(&self.parts, seen, from_incarnation));
            }
            Action::HandOver { partition, successor } if self.handovers < HANDOVERS => {
                self.handovers += 1;
                self.pace.spend();
                self.table.stepping.insert(partition);
                self.steps.push(step::hand_over(&self.parts, partition, successor));
            }
            // Planned again when one has ended.
            Action::Take { .. } | Action::HandOver { .. } => {}
        }
    }

    /// The row says that the node has left. What is under way is dropped: each
    /// step happens whole or not at all.
    async fn leave(&mut self) {
        self.steps.clear();
        let left =
            self.parts.store.set_state(&self.parts.info.id, &self.incarnation, NodeState::Left);
        match timeout(LEAVE, left).await {
            Ok(Ok(_)) => tracing::info!("left the cluster"),
            Ok(Err(error)) => {
                tracing::warn!(%error, "left the cluster, which its row does not say")
            }
            Err(_) => tracing::warn!("left the cluster, which its row does not say"),
        }
    }
}
