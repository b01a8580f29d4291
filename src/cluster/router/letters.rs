//! Letters: jobs left in the store for an owner that this node does not reach,
//! by itself or through another.
//!
//! Two nodes that reach the store but not each other still converse: the one
//! that asks leaves a letter, the owner looks for letters of its partitions,
//! orders what they say and puts the outcome beside it. Slow, and in order. What
//! is answered after the one that asked has given up is taken away too: it may
//! be the text of a message.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};

use super::ordering::{self, ToOrder};
use crate::chat::{Job, Published};
use crate::cluster::link::Shared;
use crate::cluster::link::convert::{self, Outcome};
use crate::proto::cluster::v1 as pb;
use crate::refusal::{Reason, Refusal};
use crate::store::cluster::Letter;

/// How often the store is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// How often answers are collected that nobody here waits for.
const CLEAR: Duration = Duration::from_secs(30);

/// Letters taken in one look.
const LETTERS: u32 = 256;

/// A letter is ordered within this time when it does not say how long it has.
const TIME: Duration = Duration::from_secs(10);

/// In so many looks one is made even if every node is linked to this one: a
/// node may believe that it is not.
const IDLE: u32 = 8;

/// A letter to be left.
#[derive(Debug)]
pub(super) struct Leave {
    attempt: u64,
    partition: u16,
    body: Vec<u8>,
}

impl Leave {
    pub(super) fn new(attempt: u64, partition: u16, job: &Job) -> Self {
        let (proposal, traceparent) = (job.proposal(), job.traceparent());
        let publish = convert::publish(attempt, partition, proposal, traceparent, job.remaining());
        Self { attempt, partition, body: publish.encode_to_vec() }
    }
}

/// Both sides of letters, until it is dropped.
pub(in crate::cluster) async fn run(shared: Arc<Shared>) {
    let Some(leave) = shared.router.leave.take() else { return };
    tokio::join!(ask(&shared, leave), answer(&shared));
}

/// Leaves letters and collects what became of them.
async fn ask(shared: &Shared, mut leave: mpsc::Receiver<Leave>) {
    let mut attempts: BTreeMap<i64, u64> = BTreeMap::new();
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut clear = interval_at(Instant::now() + CLEAR, CLEAR);
    clear.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = look.tick(), if !attempts.is_empty() => {
                let from = shared.incarnation();
                collect(shared, &from, &mut attempts).await;
            }
            _ = clear.tick() => {
                let from = shared.incarnation();
                collect(shared, &from, &mut attempts).await;
            }
            letter = leave.recv() => {
                let Some(Leave { attempt, partition, body }) = letter else { return };
                let from = shared.incarnation();
                match shared.store.leave_letter(partition, &from, &body).await {
                    Ok(letter) => {
                        attempts.insert(letter, attempt);
                    }
                    Err(error) => {
                        tracing::debug!(%error, "a letter cannot be left now");
                        // It may be there all the same.
                        shared.router.answered(shared, attempt, Outcome::Lost);
                    }
                }
            }
        }
    }
}

async fn collect(shared: &Shared, from: &str, attempts: &mut BTreeMap<i64, u64>) {
    match shared.store.collect_answers(from).await {
        Ok(answers) => {
            for (letter, body) in answers {
                if let Some(attempt) = attempts.remove(&letter) {
                    let published = pb::Published::decode(body.as_slice());
                    let outcome = published.map_or(Outcome::Lost, convert::outcome);
                    shared.router.answered(shared, attempt, outcome);
                }
            }
        }
        Err(error) => tracing::debug!(%error, "answers to letters cannot be read now"),
    }
    // Those whose time is over are gone from the router.
    attempts.retain(|_, attempt| shared.router.awaits(*attempt));
}

/// Looks for letters of this node's partitions and answers them.
async fn answer(shared: &Arc<Shared>) {
    let Some(partitions) = shared.partitions() else { return };
    let (order, jobs) = mpsc::channel(LETTERS as usize);
    let (done, outcomes) = mpsc::channel(2 * LETTERS as usize);
    let ordering = ordering::run(jobs, partitions.clone(), |id, result| {
        // There is a place for each letter that was taken in.
        let _ = done.try_send((id, result));
    });
    tokio::join!(ordering, read(shared, order, outcomes));
}

async fn read(
    shared: &Shared,
    order: mpsc::Sender<ToOrder>,
    mut outcomes: mpsc::Receiver<(u64, Result<Published, Refusal>)>,
) {
    let mut under_way: BTreeSet<i64> = BTreeSet::new();
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = 0_u32;
    loop {
        tokio::select! {
            biased;
            Some(first) = outcomes.recv() => {
                let mut answers = Vec::new();
                let mut next = Some(first);
                while let Some((id, result)) = next {
                    let letter = id.cast_signed();
                    under_way.remove(&letter);
                    // The next owner finds it.
                    let stays = matches!(ordering::outcome(result.clone()), Outcome::NotOwner | Outcome::Lost);
                    if !stays {
                        answers.push((letter, convert::published(id, result).encode_to_vec()));
                    }
                    next = outcomes.try_recv().ok();
                }
                if let Err(error) = shared.store.answer_letters(answers).await {
                    // Ordered again, they are found by their names.
                    tracing::debug!(%error, "letters cannot be answered now");
                }
            }
            _ = look.tick() => {
                looks = looks.wrapping_add(1);
                if !shared.is_linked_by_all() || looks.is_multiple_of(IDLE) {
                    take(shared, &order, &mut under_way).await;
                }
            }
        }
    }
}

async fn take(shared: &Shared, order: &mpsc::Sender<ToOrder>, under_way: &mut BTreeSet<i64>) {
    let owned = shared.directory.settled();
    if owned.is_empty() || !under_way.is_empty() {
        return;
    }
    let letters = match shared.store.letters(&owned, LETTERS).await {
        Ok(letters) => letters,
        Err(error) => return tracing::debug!(%error, "letters cannot be read now"),
    };
    let mut spoilt = Vec::new();
    for letter in letters {
        let Letter { id, body, .. } = letter;
        match read_letter(id, &body) {
            Some(to_order) => {
                if order.try_send(to_order).is_ok() {
                    under_way.insert(id);
                }
            }
            None => {
                let why = "the letter is none of this release";
                let refused = Err(Refusal::new(Reason::Internal, why));
                let answer = convert::published(id.cast_unsigned(), refused);
                spoilt.push((id, answer.encode_to_vec()));
            }
        }
    }
    if !spoilt.is_empty()
        && let Err(error) = shared.store.answer_letters(spoilt).await
    {
        tracing::debug!(%error, "letters cannot be answered now");
    }
}

fn read_letter(id: i64, body: &[u8]) -> Option<ToOrder> {
    let publish = pb::Publish::decode(body).ok()?;
    let left = publish.deadline.map_or(TIME, convert::span);
    let traceparent = Some(publish.traceparent.clone());
    let proposal = convert::proposal(publish)?;
    let deadline = Instant::now() + left;
    Some(ToOrder { id: id.cast_unsigned(), proposal, traceparent, deadline })
}
