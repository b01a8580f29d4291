//! The owner's task: groups, commits, and what follows a failed one.

mod care;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tracing::Instrument;

use super::batch::{Batch, Outcome};
use super::finish::{self, Commit};
use super::load::open;
use super::memory::{fenced, forget, give_up};
use super::prepare::prepare;
use super::turn::{Last, Turn, commit_span};
use super::{Command, Room, Shared, not_owner, now, seconds_since};
use crate::chat::Job;
use crate::chat::peers::Released;
use crate::chat::rules::Limits;
use crate::clock::{self, Clock};
use crate::fault::{self, Plant};
use crate::readiness::{Guard, Readiness};
use crate::refusal::Refusal;
use crate::store::StoreError;
use crate::store::chat::Appended;

/// How long groups are looked up after one was refused: who sends again what
/// was sent, after a lost connection say, does so many times.
const LOOK_UP: Duration = Duration::from_secs(1);

/// How often memory is looked after.
const CARE: Duration = Duration::from_secs(1);

/// What the node lacks until its partitions are taken.
const PENDING: &str = "partitions taken";

/// What a node that is alone lacks once another has taken a partition from it.
const LOST: &str = "partitions owned";

/// The owner's task.
#[derive(Debug)]
pub(crate) struct Committer {
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    readiness: Readiness,
    node_id: String,
    limits: Limits,
    /// The newest commit's time: the next one is not before it, whatever the
    /// wall clock does.
    committed_at: i64,
    /// Until then the store is asked for client message ids beforehand.
    look_up_until: Duration,
    /// Rooms that wait to be brought back, a few between two groups.
    resuming: VecDeque<Arc<Room>>,
    /// Held while a partition is lost that nobody but this node should have.
    lost: Option<Guard>,
}

impl Committer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Command>,
        readiness: Readiness,
        node_id: &str,
    ) -> Self {
        let limits = Limits { max_body_bytes: shared.config.max_body_bytes };
        let node_id = node_id.to_owned();
        Self {
            shared,
            commands,
            readiness,
            node_id,
            limits,
            committed_at: 0,
            look_up_until: Duration::ZERO,
            resuming: VecDeque::new(),
            lost: None,
        }
    }

    /// Takes the partitions.
    pub(crate) async fn take(&self) -> Result<(), StoreError> {
        let began = now();
        let count = self.shared.view.count();
        let taken = self.shared.store.take_partitions(&self.node_id, count).await?;
        self.shared.view.take(&taken, began);
        Ok(())
    }

    /// What a probe shows until the partitions are taken.
    pub(crate) fn pending(readiness: &Readiness) -> Guard {
        readiness.hold(PENDING)
    }

    /// Runs for ever.
    pub(crate) async fn run(mut self) {
        let mut care = tokio::time::interval(CARE);
        care.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if !self.resuming.is_empty() {
                if let Ok(first) = self.commands.try_recv() {
                    let turn = self.gather(first);
                    self.turn(turn).await;
                }
                self.resume_some().await;
                continue;
            }
            tokio::select! {
                biased;
                _ = care.tick() => self.care().await,
                command = self.commands.recv() => match command {
                    Some(command) => {
                        let turn = self.gather(command);
                        self.turn(turn).await;
                    }
                    None => return,
                },
            }
        }
    }

    /// What waits now, up to a group.
    fn gather(&mut self, first: Command) -> Turn {
        let mut turn = Turn::default();
        turn.add(first);
        while !turn.is_full() {
            match self.commands.try_recv() {
                Ok(command) => turn.add(command),
                Err(_) => break,
            }
        }
        turn
    }

    async fn turn(&mut self, turn: Turn) {
        let opens = turn.opens.into_iter().map(|(room, answer)| {
            let shared = &self.shared;
            async move {
                let _ = answer.send(open(shared, &room).await);
            }
        });
        join_all(opens).await;
        let mut done = Vec::new();
        let mut jobs = turn.jobs;
        if self.shared.peers.is_some() {
            done.extend(jobs.iter().map(|job| job.partition));
            jobs = self.ours(jobs);
        }
        if !jobs.is_empty() {
            self.commit(jobs).await;
        }
        match turn.last {
            Some(Last::Delete(job)) => {
                done.push(job.partition);
                for job in self.ours(vec![*job]) {
                    let outcome = self.delete(&job).await;
                    finish::answer(&self.shared, [(job, outcome)]);
                }
            }
            Some(Last::Release(partition, answer)) => {
                let _ = answer.send(self.release(partition));
            }
            Some(Last::Resume(partition)) => {
                let rooms = self.shared.all_rooms().into_iter();
                self.resuming.extend(rooms.filter(|room| room.partition() == partition));
            }
            None => {}
        }
        done.into_iter().for_each(|partition| self.shared.dequeue(partition));
    }

    /// The jobs that are decided here. This node's own others go on: to whoever
    /// owns their partition, and behind those that wait with the peers.
    fn ours(&self, jobs: Vec<Job>) -> Vec<Job> {
        let Some(peers) = &self.shared.peers else { return jobs };
        let mut elsewhere: Vec<u16> = Vec::new();
        let mut ours = Vec::with_capacity(jobs.len());
        for job in jobs {
            let partition = job.partition;
            let owned = self.shared.view.epoch(partition).is_some();
            if job.is_brought() && !owned {
                job.answer(Err(not_owner()));
            } else if !job.is_brought()
                && (!owned || elsewhere.contains(&partition) || peers.waits(partition))
            {
                elsewhere.push(partition);
                finish::pass_on(peers, job);
            } else {
                ours.push(job);
            }
        }
        ours
    }

    /// No append is under way: what is handed in from now on goes elsewhere.
    fn release(&self, partition: u16) -> Option<Released> {
        let position = self.shared.view.position(partition)?;
        let (epoch, reached) = (position.epoch, position.commit_no);
        let follower = &self.shared.follower;
        follower
            .take_over(&self.shared, partition, Some(epoch), reached)
            .then_some(Released { epoch })
    }

    /// Most client message ids are new, and the store refuses a part with one
    /// that is not: it is asked for them only then, or when the rules refuse a
    /// message that may have been acknowledged before, and for a while after.
    async fn commit(&mut self, jobs: Vec<Job>) {
        let known = now() < self.look_up_until;
        if let Some(jobs) = self.attempt(jobs, known).await {
            self.look_up_until = now() + LOOK_UP;
            self.attempt(jobs, true).await;
        }
    }

    /// Gives those jobs back whose keys the store must be asked for first:
    /// nothing of them was kept then, and none of them was answered.
    async fn attempt(&mut self, jobs: Vec<Job>, look_up: bool) -> Option<Vec<Job>> {
        fault::point("chat.deciding").await;
        self.committed_at = clock::micros(clock::System.now()).max(self.committed_at);
        let shared = self.shared.clone();
        let mut batch = Batch::new(self.limits, self.committed_at, &shared.budget, &shared.recent);
        let jobs = prepare(&shared, &mut batch, jobs, look_up).await;
        let span = commit_span(&jobs);
        jobs.into_iter().for_each(|job| batch.decide(job));
        if !look_up && batch.doubts() {
            return Some(batch.into_jobs());
        }

        let parts = batch.take_parts();
        if parts.is_empty() {
            finish::answer(&shared, batch.into_outcomes());
            return None;
        }
        let appends: Vec<_> = parts.iter().map(|part| (part.partition, part.epoch)).collect();
        let entries: usize = parts.iter().map(|part| part.entries.len()).sum();
        let began = Instant::now();
        let appended = shared.store.append(parts).instrument(span).await;
        shared.metrics.append_seconds.observe(seconds_since(began));
        shared.metrics.batch_entries.observe(entries as f64);
        match appended {
            Ok(results) => {
                let mut commits = Vec::with_capacity(results.len());
                let mut taken = Vec::new();
                for ((partition, epoch), result) in appends.into_iter().zip(results) {
                    match result {
                        Appended::Committed { commit_no } => {
                            commits.push(Commit { partition, epoch, commit_no });
                        }
                        Appended::Fenced => {
                            batch.fail(partition, &not_owner());
                            fenced(&shared, partition, epoch);
                        }
                        Appended::KeyTaken => taken.push((partition, epoch)),
                    }
                }
                if look_up && !taken.is_empty() {
                    // The store had just said that it is not.
                    let error = StoreError::Fault("a key is taken that there was not".to_owned());
                    tracing::error!(%error, "an append was refused");
                    self.doubt(&mut batch, &taken, &Refusal::from(error));
                    finish::finish(&shared, batch, &commits);
                    self.know_again().await;
                    return None;
                }
                let again = batch.take_jobs(&taken);
                finish::finish(&shared, batch, &commits);
                return (!again.is_empty()).then_some(again);
            }
            // Acknowledged before, whatever has become of it.
            Err(_) if fault::planted(Plant::AckFirst) => finish::finish(&shared, batch, &[]),
            Err(error) => {
                tracing::error!(%error, entries, "an append failed; its outcome is not known");
                self.doubt(&mut batch, &appends, &Refusal::from(error));
                finish::answer(&shared, batch.into_outcomes());
                self.know_again().await;
            }
        }
        None
    }

    /// What became of these appends is not known: nobody may read or write there
    /// before the heads are known again.
    fn doubt(&self, batch: &mut Batch<'_>, appends: &[(u16, u64)], why: &Refusal) {
        let shared = &self.shared;
        shared.metrics.unknown_outcomes.inc();
        for (partition, epoch) in appends {
            if shared.peers.is_some() {
                batch.doubt(*partition, why);
                give_up(shared, *partition, *epoch);
            } else {
                batch.fail(*partition, why);
            }
        }
        if shared.peers.is_none() {
            forget(shared);
        }
    }

    /// With other nodes the driver sees to it.
    async fn know_again(&mut self) {
        if self.shared.peers.is_none() {
            self.recover().await;
        }
    }

    async fn delete(&mut self, job: &Job) -> Outcome {
        let shared = self.shared.clone();
        let partition = job.partition;
        let epoch = shared.view.epoch(partition).ok_or_else(not_owner)?;
        let Some(room) = finish::to_delete(&shared, job).await? else {
            return Ok(finish::NOTHING);
        };
        match shared.store.delete_room(partition, epoch, room.id()).await {
            Ok(Appended::Committed { commit_no }) => {
                finish::deleted(&shared, &room, &Commit { partition, epoch, commit_no });
                Ok(finish::NOTHING)
            }
            // A deletion has no key.
            Ok(Appended::Fenced | Appended::KeyTaken) => {
                fenced(&shared, partition, epoch);
                Err(not_owner())
            }
            Err(error) => {
                tracing::error!(%error, "a deletion failed; its outcome is not known");
                shared.metrics.unknown_outcomes.inc();
                if shared.peers.is_some() {
                    give_up(&shared, partition, epoch);
                    return Err(if job.is_named() { not_owner() } else { error.into() });
                }
                forget(&shared);
                self.recover().await;
                Err(error.into())
            }
        }
    }
}
