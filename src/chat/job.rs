//! A proposal on its way to the owner of its room, with whoever waits for it.
//!
//! A job is answered exactly once: by [`Job::answer`], or, when it is dropped
//! (the node stops), with DRAINING. So nothing that takes a job in can leave its
//! sender without an outcome.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::Span;

use super::session::Session;
use super::{Proposal, Published, trace};
use crate::id;
use crate::refusal::{Reason, Refusal};
use crate::telemetry::context;

/// How long a message of a stream may be under way.
const SESSION_TIME: Duration = Duration::from_secs(10);

/// How long a call without a deadline of its own waits for its entry.
const CALL_TIME: Duration = Duration::from_secs(30);

/// Before the names that the node gives to proposals without one. The colon
/// keeps them apart from every name that a client can give.
const CALL: &str = "call:";

tokio::task_local! {
    /// When the call that is being answered must be over.
    static DEADLINE: Instant;
}

/// Runs what answers a call, which must be over by then.
pub(crate) async fn by<F: Future>(deadline: Option<Instant>, answering: F) -> F::Output {
    match deadline {
        Some(deadline) => DEADLINE.scope(deadline, answering).await,
        None => answering.await,
    }
}

/// Whether the node gave the name, to something that has none of its own, so
/// that it can be sent again.
pub(crate) fn is_call(client_message_id: &str) -> bool {
    client_message_id.starts_with(CALL)
}

/// A proposal on its way.
#[derive(Debug)]
pub struct Job {
    pub(crate) proposal: Proposal,
    /// The room's partition; whoever hands the job in sets it.
    pub(crate) partition: u16,
    /// The sender's span; disabled when nobody traces it.
    pub(crate) span: Span,
    deadline: Instant,
    /// Brought by a link or a letter: never passed on.
    brought: bool,
    waiting: Option<Waiting>,
}

/// Who waits for a proposal.
#[derive(Debug)]
enum Waiting {
    /// Somebody who asked once.
    Call(oneshot::Sender<Result<Published, Refusal>>),
    /// A session: an acknowledgement frame.
    Session(Arc<Session>),
}

impl Job {
    /// Something that another node, or a letter, brought. The answer goes where
    /// the receiver's other end is.
    pub fn from_peer(
        proposal: Proposal,
        traceparent: Option<&str>,
        deadline: Instant,
        answer: oneshot::Sender<Result<Published, Refusal>>,
    ) -> Self {
        let span = match traceparent.filter(|text| !text.is_empty()) {
            Some(traceparent) => {
                let span = trace::ordering(&proposal.room);
                trace::below(&span, traceparent);
                span
            }
            None => Span::none(),
        };
        let waiting = Some(Waiting::Call(answer));
        Self { proposal, partition: 0, span, deadline, brought: true, waiting }
    }

    /// What a call of this node wants.
    pub fn of_call(
        proposal: Proposal,
        partition: u16,
        answer: oneshot::Sender<Result<Published, Refusal>>,
    ) -> Self {
        let deadline = DEADLINE.try_with(|at| *at).unwrap_or_else(|_| Instant::now() + CALL_TIME);
        let recorded = context::current().is_some_and(|place| place.is_recorded());
        let span = if recorded { trace::sending(&proposal.room) } else { Span::none() };
        let waiting = Some(Waiting::Call(answer));
        Self { proposal, partition, span, deadline, brought: false, waiting }
    }

    /// What a session sends. Its acknowledgement is a frame of the session.
    pub(crate) fn of_session(
        proposal: Proposal,
        partition: u16,
        session: Arc<Session>,
        span: Span,
    ) -> Self {
        session.begin_send();
        let deadline = Instant::now() + SESSION_TIME;
        let waiting = Some(Waiting::Session(session));
        Self { proposal, partition, span, deadline, brought: false, waiting }
    }

    /// What is proposed.
    pub fn proposal(&self) -> &Proposal {
        &self.proposal
    }

    /// When nobody waits for it any more.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// How much time is left for it.
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Whether whoever waited has gone; it may be left then.
    pub fn is_abandoned(&self) -> bool {
        match &self.waiting {
            Some(Waiting::Call(answer)) => answer.is_closed(),
            Some(Waiting::Session(_)) | None => false,
        }
    }

    /// The sender's place in its trace, as W3C has it; `None` when nobody
    /// records it.
    pub fn traceparent(&self) -> Option<String> {
        trace::traceparent(&self.span)
    }

    /// Whether another node or a letter brought it.
    pub fn is_brought(&self) -> bool {
        self.brought
    }

    /// Answers it. Everybody who waits is told.
    pub fn answer(self, result: Result<Published, Refusal>) {
        if let Some(session) = self.settle(result) {
            session.wake();
        }
    }

    /// As [`Job::answer`], but leaves it to the caller to wake the session:
    /// once, after all of its jobs.
    pub(crate) fn settle(mut self, result: Result<Published, Refusal>) -> Option<Arc<Session>> {
        match self.waiting.take()? {
            Waiting::Call(call) => {
                // The caller may have gone.
                let _ = call.send(result);
                None
            }
            Waiting::Session(session) => {
                session.settle(&self.proposal, result);
                Some(session)
            }
        }
    }

    /// Whether sending it again is safe.
    pub(crate) fn is_named(&self) -> bool {
        !self.proposal.client_message_id.is_empty()
    }

    /// Names it, if it has no name, so that sending it again is safe.
    pub(crate) fn name(&mut self) {
        if !self.is_named() {
            self.proposal.client_message_id = format!("{CALL}{}", id::fresh()).into();
        }
    }

    /// Takes it in as one that is never passed on.
    pub(crate) fn bring(&mut self, partition: u16) {
        self.brought = true;
        self.partition = partition;
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(Waiting::Session(session)) = self.waiting.take() {
            let why = Refusal::new(Reason::Draining, "the node is stopping");
            session.settle(&self.proposal, Err(why));
            session.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Content;
    use crate::chat::testing::who;

    fn proposal() -> Proposal {
        let content = Content::Text { body: "b".into(), reply_to: 0 };
        Proposal {
            room: "r".into(),
            sender: who("bob"),
            client_message_id: Arc::from(""),
            after: None,
            content,
        }
    }

    #[tokio::test]
    async fn a_call_has_its_own_deadline_and_a_name_only_when_it_needs_one() {
        let at = Instant::now() + Duration::from_secs(3);
        let (answer, answered) = oneshot::channel();
        let mut job = by(Some(at), async { Job::of_call(proposal(), 0, answer) }).await;
        assert_eq!(job.deadline(), at);
        assert!(!job.is_named() && !job.is_abandoned());
        job.name();
        assert!(is_call(&job.proposal.client_message_id));
        assert!(!id::is_client_key(&job.proposal.client_message_id));
        drop(answered);
        assert!(job.is_abandoned());
    }

    #[test]
    fn a_session_s_job_that_is_dropped_is_settled() {
        let session = Session::new(who("bob"), Default::default());
        // Needs the clock of a runtime.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let _entered = runtime.as_ref().expect("a runtime").enter();
        let job = Job::of_session(proposal(), 0, session.clone(), Span::none());
        assert!(!session.is_settled());
        drop(job);
        assert!(session.is_settled());
    }
}
