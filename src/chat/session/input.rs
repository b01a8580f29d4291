//! The input of a session: a task that reads the client's frames.
//!
//! It ends with the body, with the permit, when the node stops, or when the
//! client breaks the protocol; after the client has ended its side it waits for
//! the body to deliver what was asked for. When the node stops, a client that
//! was told to go elsewhere keeps its stream for the time it was given to go.

use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, Status, Streaming};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::Session;
use super::departure::departure;
use crate::chat::owner::Owner;
use crate::chat::{Content, FrameLimit, Job, Proposal, rules, trace, wire};
use crate::drain;
use crate::proto::chat::v1 as pb;
use crate::proto::chat::v1::chat_request::Frame;
use crate::proto::chat::v1::chat_response::Frame as Reply;
use crate::refusal::{Reason, Refusal, Violations};
use crate::security::permit::Permit;
use crate::telemetry::context::TraceContext;

/// What the task needs.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) session: Arc<Session>,
    pub(crate) owner: Owner,
    pub(crate) permit: Permit,
    pub(crate) frame_limit: Option<Arc<dyn FrameLimit>>,
    /// The stream's trace, when it is recorded.
    pub(crate) trace: Option<TraceContext>,
}

/// Why reading ended.
enum Ended {
    /// The client has no more frames.
    ByClient,
    /// The stream is broken.
    Broken(Status),
}

/// What became of a frame that was not refused.
enum Executed {
    /// Everything was done; an answer may wait.
    Done,
    /// The owner has it.
    Submitted,
}

impl Input {
    /// Runs until the session ends.
    pub(crate) async fn run(self, frames: Streaming<pb::ChatRequest>, mut drain: drain::Watch) {
        let session = self.session.clone();
        let validity = self.permit.validity().clone();
        let work = async {
            match self.read(frames).await {
                Ended::ByClient => {
                    session.until(Session::is_settled).await;
                    self.finish();
                    std::future::pending().await
                }
                Ended::Broken(status) => {
                    session.until(Session::is_settled).await;
                    status
                }
            }
        };
        let status = tokio::select! {
            biased;
            () = session.over() => return session.cut_unless_closed().await,
            why = validity.ended() => why.into(),
            () = session.time_to_go(&mut drain) => return self.depart(&mut drain).await,
            status = work => status,
        };
        session.end(status);
        session.cut_unless_closed().await;
    }

    /// The node stops: says so, and ends the stream when every send has its
    /// outcome. Nothing is read any more.
    async fn depart(&self, drain: &mut drain::Watch) {
        let session = &self.session;
        let hints = self.owner.shared().sessions.hints();
        let text = "the node is stopping: connect again";
        session.push(departure(pb::NoticeKind::Draining, &hints, Duration::ZERO, text));
        session.wake();
        tokio::select! {
            biased;
            () = session.until(Session::is_settled) => {}
            () = session.closed() => return,
            () = drain.forced() => {}
        }
        // Who reads slowly has until the drain's deadline.
        session.end(Refusal::new(Reason::Draining, "the node is stopping").into());
    }

    /// Reads and executes frames.
    async fn read(&self, mut frames: Streaming<pb::ChatRequest>) -> Ended {
        let mut began = false;
        loop {
            self.session.until(Session::has_room).await;
            let mut request = match frames.message().await {
                Ok(Some(request)) => request,
                Ok(None) => return Ended::ByClient,
                // What follows would be misframed.
                Err(status) => return Ended::Broken(broken(&status)),
            };
            let executed = self.execute(&mut request, &mut began).await;
            self.audit(&request, executed.as_ref().err());
            match executed {
                // Its outcome comes later, and wakes the body then.
                Ok(Executed::Submitted) => {}
                Ok(Executed::Done) => self.session.wake(),
                Err(refusal) => {
                    let (room, message_id) = names(&request);
                    self.session.push(wire::failed(&room, &message_id, refusal));
                    self.session.wake();
                }
            }
        }
    }

    /// Tells the audit log of each Join and of what was refused before the
    /// owner got it; the session tells it of what the owner refuses.
    fn audit(&self, request: &pb::ChatRequest, refusal: Option<&Refusal>) {
        match &request.frame {
            Some(Frame::Join(join)) => self.session.audit_frame("join", &join.room_id, refusal),
            Some(Frame::Send(send)) if refusal.is_some() => {
                self.session.audit_frame("send", &send.room_id, refusal);
            }
            _ => {}
        }
    }

    /// Leaves the names that the frame has in it, for a refusal.
    async fn execute(
        &self,
        request: &mut pb::ChatRequest,
        began: &mut bool,
    ) -> Result<Executed, Refusal> {
        if let Some(limit) = &self.frame_limit {
            limit.take(self.session.principal()).map_err(|delay| {
                Refusal::new(Reason::RateLimited, "too many frames").retry_after(delay)
            })?;
        }
        let Some(frame) = &mut request.frame else {
            let mut violations = Violations::new();
            violations.add("frame", "must be one of the frames that the contract has");
            return violations.finish().map(|()| Executed::Done);
        };
        if !*began && !matches!(frame, Frame::Join(_)) {
            let why = "the first frame must be a Join";
            return Err(Refusal::new(Reason::JoinFirst, why));
        }
        match frame {
            Frame::Join(join) => {
                self.join(join).await?;
                *began = true;
            }
            Frame::Leave(leave) => self.leave(leave)?,
            Frame::Send(send) => {
                self.send(send).await?;
                return Ok(Executed::Submitted);
            }
            Frame::Ping(ping) => self.session.push(Reply::Pong(pb::Pong { nonce: ping.nonce })),
            Frame::Reauthenticate(again) => self.permit.reauthenticate(&again.token)?,
        }
        Ok(Executed::Done)
    }

    /// Hands a message to the owner; its outcome comes as a frame.
    async fn send(&self, send: &mut pb::Send) -> Result<(), Refusal> {
        let mut violations = Violations::new();
        rules::check_room_id(&mut violations, &send.room_id);
        rules::check_message_id(&mut violations, &send.client_message_id);
        let max = self.owner.shared().config.max_body_bytes;
        rules::check_body(&mut violations, &send.body, max);
        rules::check_after(&mut violations, &send.after);
        violations.finish()?;
        let (room, partition) = self.joined(&send.room_id)?;
        let span = self.span(&send.room_id);
        let proposal = Proposal {
            room,
            sender: self.session.principal().clone(),
            client_message_id: send.client_message_id.as_str().into(),
            after: (!send.after.is_empty()).then(|| send.after.as_str().into()),
            content: Content::Text {
                body: std::mem::take(&mut send.body),
                reply_to: send.reply_to,
            },
        };
        // Its outcome is settled whatever comes of it, if this future is dropped
        // too.
        let job = Job::of_session(proposal, partition, self.session.clone(), span);
        self.owner.submit(job).await;
        Ok(())
    }

    /// A span of the message's own, below the stream's but not held by it.
    fn span(&self, room: &str) -> Span {
        let Some(trace) = &self.trace else { return Span::none() };
        let span = trace::sending(room);
        // Refused only where no such layer is: then nobody sees the span.
        let _ = span.set_parent(trace.as_local());
        span
    }

    /// The client has ended its side: it still gets what there is now.
    fn finish(&self) {
        let mut reading = self.session.reading();
        reading.finishing = true;
        for joined in &mut reading.rooms {
            joined.goal = joined.room.head();
        }
        drop(reading);
        self.session.wake();
    }
}

/// The room and the message that a frame names, for its refusal.
fn names(request: &pb::ChatRequest) -> (String, String) {
    match &request.frame {
        Some(Frame::Join(join)) => (short(&join.room_id), String::new()),
        Some(Frame::Leave(leave)) => (short(&leave.room_id), String::new()),
        Some(Frame::Send(send)) => (short(&send.room_id), short(&send.client_message_id)),
        _ => (String::new(), String::new()),
    }
}

/// What no valid name is longer than: a refusal does not echo more.
fn short(name: &str) -> String {
    name.chars().take(64).collect()
}

/// The status that ends a broken stream.
fn broken(status: &Status) -> Status {
    match status.code() {
        Code::OutOfRange | Code::ResourceExhausted => {
            Refusal::new(Reason::MessageTooLarge, "the message is larger than the node takes")
        }
        _ => Refusal::new(
            Reason::MalformedMessage,
            "the stream's message is not what the contract says, or is cut short",
        ),
    }
    .into()
}
