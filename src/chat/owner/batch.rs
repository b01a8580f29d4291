//! One group of proposals, from the rules to what is appended. No IO.
//!
//! A proposal is decided on the state that those before it in the group make.
//! That state is not durable yet, so no answer that rests on it may leave
//! before the commit, a refusal no more than a success.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::recent::Recent;
use super::{Room, not_owner};
use crate::chat::log::{Budget, Chunk, Frames};
use crate::chat::rules::{self, Decision, Limits, RoomState};
use crate::chat::{Job, Proposal, Published, job};
use crate::refusal::{Reason, Refusal};
use crate::store::chat::{
    Change, Entry, KeyName, KeyRecord, NewEntry, NewKey, PartitionAppend, RoomId,
};

/// What is known of a room before the group.
#[derive(Debug)]
pub(super) enum Known {
    /// It is in memory.
    Room(Arc<Room>),
    /// There is none.
    Missing,
    /// There was one; its id stays taken.
    Deleted,
}

/// A room as the group changes it.
#[derive(Debug)]
struct Working {
    known: Known,
    partition: u16,
    epoch: u64,
    head: u64,
    /// A copy of the state once the group changes more than the head.
    changed: Option<RoomState>,
    frames: Option<Frames>,
    /// What the group changes beside the log, in order.
    changes: Vec<Change>,
    /// The traces of entries whose senders are traced, by seq.
    traces: Vec<(u64, String)>,
}

/// A decided proposal.
#[derive(Debug)]
struct Decided {
    job: Job,
    result: Result<Published, Refusal>,
    /// The partition whose commit the result rests on.
    rests_on: Option<u16>,
}

/// What a key stands for, in the store or in this group.
#[derive(Debug, Clone, Copy)]
struct Taken {
    digest: [u8; 32],
    published: Published,
}

/// A room's part of a committed group.
#[derive(Debug)]
pub(super) struct RoomChange {
    /// The room, if it was there before.
    pub(super) room: Option<Arc<Room>>,
    /// Its id.
    pub(super) id: RoomId,
    /// Its partition.
    pub(super) partition: u16,
    /// The epoch under which it was committed.
    pub(super) epoch: u64,
    /// Its state, if more than the head changed.
    pub(super) state: Option<RoomState>,
    /// The new entries, framed.
    pub(super) chunks: Vec<Chunk>,
    /// What changed beside the log, in order.
    pub(super) changes: Vec<Change>,
    /// The traces of new entries, by seq.
    pub(super) traces: Vec<(u64, String)>,
}

/// A group.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    limits: Limits,
    committed_at: i64,
    budget: &'a Arc<Budget>,
    recent: &'a Recent,
    rooms: BTreeMap<RoomId, Working>,
    keys: HashMap<KeyName, Taken>,
    parts: BTreeMap<u16, PartitionAppend>,
    decided: Vec<Decided>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(
        limits: Limits,
        committed_at: i64,
        budget: &'a Arc<Budget>,
        recent: &'a Recent,
    ) -> Self {
        Self {
            limits,
            committed_at,
            budget,
            recent,
            rooms: BTreeMap::new(),
            keys: HashMap::new(),
            parts: BTreeMap::new(),
            decided: Vec::new(),
        }
    }

    /// Adds a room of the group.
    pub(super) fn room(&mut self, id: RoomId, partition: u16, epoch: u64, known: Known) {
        let head = match &known {
            Known::Room(room) => room.head(),
            Known::Missing | Known::Deleted => 0,
        };
        let (changed, frames) = (None, None);
        let (changes, traces) = (Vec::new(), Vec::new());
        let working = Working { known, partition, epoch, head, changed, frames, changes, traces };
        self.rooms.insert(id, working);
    }

    /// Adds a key that the store remembers.
    pub(super) fn key(&mut self, name: KeyName, record: KeyRecord) {
        let published = Published {
            seq: record.seq,
            committed_at: record.committed_at,
            redactions: record.redactions,
        };
        self.keys.insert(name, Taken { digest: record.digest, published });
    }

    /// Refuses a proposal that cannot be decided.
    pub(super) fn refuse(&mut self, job: Job, refusal: Refusal) {
        self.decided.push(Decided { job, result: Err(refusal), rests_on: None });
    }

    /// Decides a proposal.
    pub(super) fn decide(&mut self, job: Job) {
        let result = self.result(&job);
        let rests_on = self
            .rooms
            .get(&job.proposal.room)
            .filter(|working| working.frames.is_some())
            .map(|working| working.partition);
        self.decided.push(Decided { job, result, rests_on });
    }

    fn result(&mut self, job: &Job) -> Result<Published, Refusal> {
        let proposal = &job.proposal;
        let working = self.rooms.get_mut(&proposal.room).ok_or_else(not_owner)?;
        let name = key_name(job);
        // Before the rules: what was acknowledged is acknowledged again to
        // whoever is still a member, although it might not be said now.
        if let Some(taken) = name.as_ref().and_then(|name| self.keys.get(name)) {
            return working.again(job, taken);
        }
        if let Some(before) = before(job)
            && !self.keys.contains_key(&before)
            && !self.recent.is_last(&before)
        {
            return Err(send_before_failed());
        }
        let decision = working.decide(job, &self.limits)?;
        let Decision::Append { kind, body, reply_to, redactions, change, digest } = decision else {
            return Ok(Published { seq: 0, committed_at: 0, redactions: 0 });
        };
        if let Some(change) = &change {
            working.change(job, change, self.committed_at)?;
        }
        let frames = working.frames.get_or_insert_with(|| Frames::after(working.head, self.budget));
        working.head += 1;
        let entry = Entry {
            room: proposal.room.clone(),
            seq: working.head,
            kind,
            sender: proposal.sender.clone(),
            client_message_id: proposal.client_message_id.clone(),
            body,
            reply_to,
            committed_at: self.committed_at,
        };
        frames.push(&entry);
        if let Some(traceparent) = job.traceparent() {
            working.traces.push((working.head, traceparent));
        }
        let published =
            Published { seq: working.head, committed_at: self.committed_at, redactions };
        let key = name.map(|name| {
            self.keys.insert(name, Taken { digest, published });
            NewKey { digest, redactions }
        });
        let (partition, epoch) = (working.partition, working.epoch);
        let part = self.parts.entry(partition).or_insert_with(|| PartitionAppend {
            partition,
            epoch,
            entries: Vec::new(),
        });
        part.entries.push(NewEntry { entry, key, change });
        Ok(published)
    }

    /// Whether a named proposal is refused. If the store was not asked for
    /// names, it may have been acknowledged before: it must be asked then.
    pub(super) fn doubts(&self) -> bool {
        self.decided.iter().any(|decided| {
            decided.result.is_err() && !decided.job.proposal.client_message_id.is_empty()
        })
    }

    /// What is to be appended, by partition; empty when nothing is.
    pub(super) fn take_parts(&mut self) -> Vec<PartitionAppend> {
        std::mem::take(&mut self.parts).into_values().collect()
    }

    /// The partition's part was refused, for this reason.
    pub(super) fn fail(&mut self, partition: u16, why: &Refusal) {
        self.rooms.retain(|_, working| working.partition != partition);
        for decided in &mut self.decided {
            if decided.rests_on == Some(partition) {
                decided.result = Err(why.clone());
            }
        }
    }

    /// Gives back what rests on the parts of these partitions, which were not
    /// kept, unanswered and in its order.
    pub(super) fn take_jobs(&mut self, partitions: &[(u16, u64)]) -> Vec<Job> {
        let of = |partition: u16| partitions.iter().any(|(other, _)| *other == partition);
        self.rooms.retain(|_, working| !of(working.partition));
        let decided = std::mem::take(&mut self.decided).into_iter();
        let (taken, rest) = decided.partition(|decided| decided.rests_on.is_some_and(of));
        self.decided = rest;
        taken.into_iter().map(|decided: Decided| decided.job).collect()
    }

    /// What was committed, room by room.
    pub(super) fn take_changes(&mut self) -> Vec<RoomChange> {
        let rooms = std::mem::take(&mut self.rooms).into_iter();
        rooms
            .filter_map(|(id, working)| {
                let chunks = working.frames?.finish();
                let room = match working.known {
                    Known::Room(room) => Some(room),
                    Known::Missing | Known::Deleted => None,
                };
                Some(RoomChange {
                    room,
                    id,
                    partition: working.partition,
                    epoch: working.epoch,
                    state: working.changed,
                    chunks,
                    changes: working.changes,
                    traces: working.traces,
                })
            })
            .collect()
    }

    /// Gives the proposals back, unanswered and in their order.
    pub(super) fn into_jobs(self) -> Vec<Job> {
        self.decided.into_iter().map(|decided| decided.job).collect()
    }

    /// It is not known whether the partition's part was kept. What has a name is
    /// safe to send again: its senders are told as if nothing had been.
    pub(super) fn doubt(&mut self, partition: u16, why: &Refusal) {
        self.fail(partition, why);
        for decided in &mut self.decided {
            if decided.rests_on == Some(partition) && decided.job.is_named() {
                decided.result = Err(not_owner());
            }
        }
    }

    /// The jobs with their outcomes, in their order.
    pub(super) fn into_outcomes(self) -> impl Iterator<Item = (Job, Outcome)> {
        self.decided.into_iter().map(|decided| (decided.job, decided.result))
    }
}

fn send_before_failed() -> Refusal {
    let why = "the message that this one is to come after does not stand";
    Refusal::new(Reason::SendBeforeFailed, why)
}

/// What became of a job.
pub(super) type Outcome = Result<Published, Refusal>;

/// The name under which the proposal is remembered.
pub(super) fn key_name(job: &Job) -> Option<KeyName> {
    let proposal = &job.proposal;
    (!proposal.client_message_id.is_empty()).then(|| KeyName {
        room: proposal.room.clone(),
        sender: proposal.sender.clone(),
        client_message_id: proposal.client_message_id.clone(),
    })
}

/// The name of what must stand before it.
pub(super) fn before(job: &Job) -> Option<KeyName> {
    let Proposal { room, sender, after, .. } = &job.proposal;
    let client_message_id = after.clone()?;
    Some(KeyName { room: room.clone(), sender: sender.clone(), client_message_id })
}

impl Working {
    /// Answers a proposal whose key is taken.
    fn again(&self, job: &Job, taken: &Taken) -> Result<Published, Refusal> {
        let sender = &job.proposal.sender;
        let member = match (&self.changed, &self.known) {
            (Some(state), _) => state.role(sender).is_some(),
            (None, Known::Room(room)) => {
                let inner = room.lock();
                inner.state.as_ref().ok_or_else(not_owner)?.role(sender).is_some()
            }
            (None, Known::Missing | Known::Deleted) => false,
        };
        // The node's own name says that this very call is sent again; it may be
        // what ended the membership.
        if !member && !job::is_call(&job.proposal.client_message_id) {
            return Err(Refusal::not_found("room"));
        }
        if rules::digest_of(&job.proposal.content) == taken.digest {
            return Ok(taken.published);
        }
        let why = "the client message id was used with another body";
        Err(Refusal::new(Reason::KeyReused, why))
    }

    fn decide(&mut self, job: &Job, limits: &Limits) -> Result<Decision, Refusal> {
        if let Some(state) = &mut self.changed {
            state.head = self.head;
            return rules::decide(Some(state), &job.proposal, limits);
        }
        match &self.known {
            Known::Missing => rules::decide(None, &job.proposal, limits),
            Known::Deleted => match job.proposal.content {
                crate::chat::Content::CreateRoom { .. } => Err(rules::taken()),
                _ => rules::decide(None, &job.proposal, limits),
            },
            Known::Room(room) => {
                let mut inner = room.lock();
                let state = inner.state.as_mut().ok_or_else(not_owner)?;
                // The head that the entries before it in the group make, only
                // for the decision: the state itself is what is committed.
                let committed = std::mem::replace(&mut state.head, self.head);
                let decision = rules::decide(Some(state), &job.proposal, limits);
                state.head = committed;
                decision
            }
        }
    }

    fn change(&mut self, job: &Job, change: &Change, now: i64) -> Result<(), Refusal> {
        if self.changed.is_none() {
            self.changed = Some(match &self.known {
                Known::Room(room) => room.lock().state.clone().ok_or_else(not_owner)?,
                Known::Missing | Known::Deleted => RoomState {
                    room: job.proposal.room.clone(),
                    title: String::new(),
                    created_by: job.proposal.sender.clone(),
                    created_at: now,
                    head: 0,
                    members: HashMap::new(),
                },
            });
        }
        if let Some(state) = &mut self.changed {
            state.apply(change);
        }
        self.changes.push(change.clone());
        Ok(())
    }
}
