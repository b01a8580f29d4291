//! The owner's task: groups, commits, and what follows a failed one.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tracing::Instrument;

use super::batch::{self, Batch, RoomChange};
use super::load::open;
use super::memory::{fenced, forget, keep_budget};
use super::prepare::prepare;
use super::{Command, Job, Room, Shared, not_owner, now, seconds_since};
use crate::chat::rules::{self, Limits};
use crate::chat::{Content, Published};
use crate::principal::Principal;
use crate::readiness::{Guard, Readiness};
use crate::refusal::{Reason, Refusal};
use crate::store::StoreError;
use crate::store::chat::{Appended, RoomId};
use crate::{backoff, clock};

/// Proposals in one group.
const GROUP: usize = 1024;

/// Bytes of bodies in one group; one proposal is always taken.
const GROUP_BYTES: usize = 1024 * 1024;

/// How long groups are looked up after one was refused: who sends again what
/// was sent, after a lost connection say, does so many times.
const LOOK_UP: Duration = Duration::from_secs(1);

/// How often memory is looked after.
const CARE: Duration = Duration::from_secs(1);

/// What the node lacks until its partitions are taken.
const PENDING: &str = "partitions taken";

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
}

/// What one turn of the task does.
#[derive(Debug, Default)]
struct Turn {
    jobs: Vec<Job>,
    bytes: usize,
    opens: Vec<(RoomId, OpenAnswer)>,
    /// After the jobs.
    delete: Option<(RoomId, Principal, DeleteAnswer)>,
}

type OpenAnswer = tokio::sync::oneshot::Sender<Result<Option<Arc<Room>>, Refusal>>;
type DeleteAnswer = tokio::sync::oneshot::Sender<Result<(), Refusal>>;

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
            let first = tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => command,
                    None => return,
                },
                _ = care.tick() => {
                    self.care().await;
                    continue;
                }
            };
            let turn = self.gather(first);
            self.turn(turn).await;
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
        if !turn.jobs.is_empty() {
            self.commit(turn.jobs).await;
        }
        if let Some((room, sender, answer)) = turn.delete {
            let _ = answer.send(self.delete(&room, &sender).await);
        }
    }

    /// Most client message ids are new, and the store refuses a group with one
    /// that is not: it is asked for them only then, or when the rules refuse a
    /// message that may have been acknowledged before, and for a while after.
    async fn commit(&mut self, jobs: Vec<Job>) {
        let known = now() < self.look_up_until;
        if let Some(jobs) = self.attempt(jobs, known).await {
            self.look_up_until = now() + LOOK_UP;
            self.attempt(jobs, true).await;
        }
    }

    /// Gives the jobs back when the store must be asked for their keys first;
    /// nothing of them was kept then, and nobody was answered.
    async fn attempt(&mut self, jobs: Vec<Job>, look_up: bool) -> Option<Vec<Job>> {
        self.committed_at = clock::micros(SystemTime::now()).max(self.committed_at);
        let shared = self.shared.clone();
        let mut batch = Batch::new(self.limits, self.committed_at, &shared.budget);
        let jobs = prepare(&shared, &mut batch, jobs, look_up).await;
        let span = commit_span(&jobs);
        jobs.into_iter().for_each(|job| batch.decide(job));
        if !look_up && batch.doubts() {
            return Some(batch.into_jobs());
        }

        let parts = batch.take_parts();
        if parts.is_empty() {
            batch.answer().iter().for_each(|session| session.wake());
            return None;
        }
        let partitions: Vec<u16> = parts.iter().map(|part| part.partition).collect();
        let entries: usize = parts.iter().map(|part| part.entries.len()).sum();
        let began = Instant::now();
        let appended = shared.store.append(parts).instrument(span).await;
        shared.metrics.append_seconds.observe(seconds_since(began));
        shared.metrics.batch_entries.observe(entries as f64);
        match appended {
            Ok(results) => {
                for (partition, _) in partitions
                    .into_iter()
                    .zip(results)
                    .filter(|(_, result)| *result == Appended::Fenced)
                {
                    batch.fail(partition, &not_owner());
                    fenced(&shared, partition);
                }
                finish(&shared, batch);
            }
            Err(StoreError::Conflict(_)) if !look_up => return Some(batch.into_jobs()),
            Err(error) => {
                tracing::error!(%error, entries, "an append failed; its outcome is not known");
                shared.metrics.unknown_outcomes.inc();
                let why = Refusal::from(error);
                partitions.into_iter().for_each(|partition| batch.fail(partition, &why));
                // Nobody may read or write before the heads are known again.
                forget(&shared);
                batch.answer().iter().for_each(|session| session.wake());
                self.recover().await;
            }
        }
        None
    }

    async fn delete(&mut self, id: &RoomId, sender: &Principal) -> Result<(), Refusal> {
        let shared = self.shared.clone();
        let partition = shared.partition(id);
        let epoch = shared.view.epoch(partition).ok_or_else(not_owner)?;
        let room = open(&shared, id).await?;
        rules::may_delete(
            room.as_ref().and_then(|room| room.lock().state.clone()).as_ref(),
            sender,
        )?;
        match shared.store.delete_room(partition, epoch, id).await {
            Ok(Appended::Committed { .. }) => {
                shared.rooms().remove(id);
                if let Some(room) = room {
                    let readers = room.readers();
                    room.end();
                    readers.iter().for_each(|reader| reader.wake());
                }
                Ok(())
            }
            Ok(Appended::Fenced) => {
                fenced(&shared, partition);
                Err(not_owner())
            }
            Err(error) => {
                tracing::error!(%error, "a deletion failed; its outcome is not known");
                shared.metrics.unknown_outcomes.inc();
                forget(&shared);
                self.recover().await;
                Err(error.into())
            }
        }
    }

    /// Takes the partitions again, and reads what is read back. Until then the
    /// node is not ready, and whoever asks is refused.
    async fn recover(&mut self) {
        let guard = Self::pending(&self.readiness);
        let mut attempt = 0;
        loop {
            match self.take().await {
                Ok(()) => break,
                Err(error) => tracing::warn!(%error, attempt, "the partitions are not taken yet"),
            }
            let (base, cap) = (Duration::from_millis(50), Duration::from_secs(2));
            let nap = backoff::full_jitter(base, cap, attempt, rand::random());
            attempt = attempt.saturating_add(1);
            let wake_at = tokio::time::Instant::now() + nap;
            while let Ok(Some(command)) =
                tokio::time::timeout_at(wake_at, self.commands.recv()).await
            {
                refuse(command);
            }
        }
        tracing::info!("the partitions are taken again");
        drop(guard);
        self.resume().await;
    }

    /// Brings suspended rooms that somebody reads back. One that cannot be read
    /// stays suspended until the next time.
    async fn resume(&self) {
        let shared = &self.shared;
        for room in shared.all_rooms().into_iter().filter(|room| room.is_suspended()) {
            if shared.view.epoch(room.partition()).is_none() {
                continue;
            }
            if let Err(refusal) = open(shared, room.id()).await {
                tracing::warn!(reason = refusal.reason.as_str(), "a room stays suspended");
            }
        }
    }

    /// Memory: suspended rooms come back, idle ones go, the budget is kept.
    async fn care(&self) {
        self.resume().await;
        let shared = &self.shared;
        let idle = now().checked_sub(shared.config.idle_room);
        if let Some(before) = idle {
            shared.rooms().retain(|_, room| !room.retire(Some(before)));
        }
        keep_budget(shared);
    }
}

impl Turn {
    fn add(&mut self, command: Command) {
        match command {
            Command::Publish(job) => {
                self.bytes += size(&job.proposal.content);
                self.jobs.push(job);
            }
            Command::Open { room, answer } => self.opens.push((room, answer)),
            Command::Delete { room, sender, answer } => {
                self.delete = Some((room, sender, answer));
            }
        }
    }

    fn is_full(&self) -> bool {
        self.delete.is_some()
            || self.bytes >= GROUP_BYTES
            || self.jobs.len() + self.opens.len() >= GROUP
    }
}

fn size(content: &Content) -> usize {
    match content {
        Content::Text { body, .. } => body.len(),
        _ => 256,
    }
}

/// The commit's span, below the first proposal that is traced; the others are
/// linked to it.
fn commit_span(jobs: &[Job]) -> tracing::Span {
    let mut traced = jobs.iter().map(|job| &job.span).filter(|span| !span.is_disabled());
    let Some(first) = traced.next() else { return tracing::Span::none() };
    let span = tracing::info_span!(parent: first, "chat.commit", proposals = jobs.len());
    traced.for_each(|other| {
        span.follows_from(other);
    });
    span
}

/// Answers a command while the store cannot be used.
fn refuse(command: Command) {
    let why = || {
        Refusal::new(Reason::StoreUnavailable, "the store cannot be used now")
            .retry_after(Duration::from_secs(1))
    };
    match command {
        Command::Publish(job) => {
            let refused: Result<Published, Refusal> = Err(why());
            if let Some(session) = batch::answer(job, refused) {
                session.wake();
            }
        }
        Command::Open { answer, .. } => drop(answer.send(Err(why()))),
        Command::Delete { answer, .. } => drop(answer.send(Err(why()))),
    }
}

/// A commit is durable: memory first, then answers, then everybody is woken.
fn finish(shared: &Arc<Shared>, mut batch: Batch<'_>) {
    let at = now();
    let mut touched = Vec::new();
    for RoomChange { room, id, partition, state, chunks } in batch.take_changes() {
        let room = match (room, &state) {
            (Some(room), _) => room,
            (None, Some(created)) => {
                let empty = rules::RoomState { head: 0, ..created.clone() };
                let room = Room::new(empty, partition, &shared.config, &shared.budget, at);
                let room = Arc::new(room);
                shared.rooms().insert(id, room.clone());
                room
            }
            // A room begins with a change.
            (None, None) => continue,
        };
        let before = room.readers();
        room.commit(state, chunks, at);
        touched.push(before);
    }
    let answered = batch.answer();
    touched.iter().for_each(|readers| readers.iter().for_each(|reader| reader.wake()));
    answered.iter().for_each(|session| session.wake());
    if shared.budget.excess() > 0 {
        keep_budget(shared);
    }
}
