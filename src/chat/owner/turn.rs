//! One turn of the owner's task: what it does at once, and in which order.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Command, Room};
use crate::chat::peers::Released;
use crate::chat::{Content, Job, trace};
use crate::refusal::{Reason, Refusal};
use crate::store::chat::RoomId;

/// Proposals in one group.
const GROUP: usize = 1024;

/// Bytes of bodies in one group; one proposal is always taken.
const GROUP_BYTES: usize = 1024 * 1024;

/// What one turn of the task does.
#[derive(Debug, Default)]
pub(super) struct Turn {
    pub(super) jobs: Vec<Job>,
    bytes: usize,
    pub(super) opens: Vec<(RoomId, OpenAnswer)>,
    /// After the jobs, and nothing after it: what goes into no group.
    pub(super) last: Option<Last>,
}

/// What ends a turn.
#[derive(Debug)]
pub(super) enum Last {
    Delete(Box<Job>),
    Release(u16, oneshot::Sender<Option<Released>>),
    Resume(u16),
}

type OpenAnswer = oneshot::Sender<Result<Option<Arc<Room>>, Refusal>>;

impl Turn {
    /// Adds what was asked.
    pub(super) fn add(&mut self, command: Command) {
        match command {
            Command::Publish(job) if matches!(job.proposal.content, Content::DeleteRoom) => {
                self.last = Some(Last::Delete(Box::new(job)));
            }
            Command::Publish(job) => {
                self.bytes += size(&job.proposal.content);
                self.jobs.push(job);
            }
            Command::Open { room, answer } => self.opens.push((room, answer)),
            Command::Release { partition, answer } => {
                self.last = Some(Last::Release(partition, answer));
            }
            Command::Resume { partition } => self.last = Some(Last::Resume(partition)),
        }
    }

    /// Whether nothing more goes into it.
    pub(super) fn is_full(&self) -> bool {
        self.last.is_some()
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
pub(super) fn commit_span(jobs: &[Job]) -> tracing::Span {
    let mut traced = jobs.iter().map(|job| &job.span).filter(|span| !span.is_disabled());
    let Some(first) = traced.next() else { return tracing::Span::none() };
    let span = trace::committing(first, jobs.len());
    traced.for_each(|other| {
        span.follows_from(other);
    });
    span
}

/// Answers a command while the store cannot be used.
pub(super) fn refuse(command: Command) {
    let why = || {
        Refusal::new(Reason::StoreUnavailable, "the store cannot be used now")
            .retry_after(Duration::from_secs(1))
    };
    match command {
        Command::Publish(job) => job.answer(Err(why())),
        Command::Open { answer, .. } => drop(answer.send(Err(why()))),
        Command::Release { answer, .. } => drop(answer.send(None)),
        Command::Resume { .. } => {}
    }
}
