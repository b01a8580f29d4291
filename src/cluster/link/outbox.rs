//! What waits to be sent on one link, and the body that sends it.
//!
//! Whatever waits goes into one message, up to a bound, and is flushed at once
//! when nothing more is ready: under load the messages grow by themselves, and
//! no timer delays a lone frame.
//!
//! *Bounds.* Appends are left out beyond the backlog: whoever follows the
//! partition reads the store. Everything else is bounded by who sends it
//! (publishes by the router, answers by publishes, the rest by being coalesced);
//! a link on which it piles up all the same is broken off.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::HeaderMap;
use http_body::Frame as BodyFrame;
use prometheus_client::metrics::gauge::Gauge;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::wire::{self, Encoded};
use crate::proto::cluster::v1 as pb;
use crate::store::chat::RoomId;

/// The most bytes of frames that are put into one message, one large frame
/// excepted.
const BATCH: usize = 256 * 1024;

/// Rooms in one Subscribe.
const ROOMS: usize = 1024;

/// Names that one Touched remembers; who is forgotten looks by itself after a
/// while.
const NAMES: usize = 16 * 1024;

/// How far beyond the backlog other frames may pile up, bytes.
const BEYOND: usize = 64 * 1024 * 1024;

/// One link's queue.
#[derive(Debug)]
pub(super) struct Outbox {
    state: Mutex<State>,
    waker: AtomicWaker,
    closed: CancellationToken,
    backlog: usize,
    gauge: Gauge,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Encoded>,
    bytes: usize,
    /// Rooms to follow (true) or to follow no more; the newest wish counts.
    interest: BTreeMap<(u16, RoomId), bool>,
    accounts: BTreeSet<String>,
    payments: BTreeSet<Vec<u8>>,
    /// What is said in the trailers; the queue takes nothing more.
    end: Option<Status>,
}

impl Outbox {
    /// An empty queue that leaves appends out beyond so many bytes.
    pub(super) fn new(backlog: usize, gauge: Gauge) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            waker: AtomicWaker::new(),
            closed: CancellationToken::new(),
            backlog,
            gauge,
        })
    }

    /// Adds a frame. False when the link has ended.
    pub(super) fn push(&self, frame: Encoded) -> bool {
        let mut state = self.state();
        if state.end.is_some() {
            return false;
        }
        if state.bytes > self.backlog.saturating_add(BEYOND) {
            state.end = Some(Status::resource_exhausted("the other node takes nothing"));
            drop(state);
            self.close();
            return false;
        }
        self.add(&mut state, frame);
        drop(state);
        self.waker.wake();
        true
    }

    /// Adds an append. False when there is no room for it.
    pub(super) fn push_append(&self, frame: Encoded) -> bool {
        let mut state = self.state();
        if state.end.is_some() {
            // It goes nowhere; the other side reads the store anyway.
            return true;
        }
        if state.bytes.saturating_add(frame.len()) > self.backlog {
            return false;
        }
        self.add(&mut state, frame);
        drop(state);
        self.waker.wake();
        true
    }

    fn add(&self, state: &mut State, frame: Encoded) {
        state.bytes += frame.len();
        self.gauge.inc_by(bytes(frame.len()));
        state.frames.push_back(frame);
    }

    /// A room is to be followed, or no more. The rooms of a partition go
    /// together.
    pub(super) fn interest(&self, partition: u16, room: &RoomId, wanted: bool) {
        let mut state = self.state();
        if state.end.is_none() {
            state.interest.insert((partition, room.clone()), wanted);
            drop(state);
            self.waker.wake();
        }
    }

    /// Accounts and payments changed.
    pub(super) fn touched(&self, accounts: &[String], payments: &[Vec<u8>]) {
        let mut state = self.state();
        if state.end.is_none() && state.accounts.len() + state.payments.len() < NAMES {
            state.accounts.extend(accounts.iter().cloned());
            state.payments.extend(payments.iter().cloned());
            drop(state);
            self.waker.wake();
        }
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.state().bytes
    }

    /// Ends the link. What waits is not sent.
    pub(super) fn close(&self) {
        {
            let mut state = self.state();
            state.end.get_or_insert_with(|| Status::ok(""));
            self.gauge.dec_by(bytes(state.bytes));
            let end = state.end.take();
            *state = State { end, ..State::default() };
        }
        self.closed.cancel();
        self.waker.wake();
    }

    /// Waits until the link has ended. Cancel safe.
    pub(super) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// What goes into the next message.
    fn take(&self, batch: &mut Vec<Encoded>) -> Option<Status> {
        let mut state = self.state();
        if let Some(end) = &state.end {
            return Some(end.clone());
        }
        for frame in state.gather() {
            self.add(&mut state, frame);
        }
        let mut len = 0;
        while let Some(frame) = state.frames.front() {
            if len > 0 && len + frame.len() > BATCH {
                break;
            }
            len += frame.len();
            batch.extend(state.frames.pop_front());
        }
        state.bytes -= len;
        self.gauge.dec_by(bytes(len));
        None
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes frames of what is coalesced.
    fn gather(&mut self) -> Vec<Encoded> {
        use pb::request_frame::Frame;
        let mut gathered = Vec::new();
        let mut wishes = std::mem::take(&mut self.interest).into_iter().peekable();
        while let Some(((partition, room), wanted)) = wishes.next() {
            let mut room_ids = vec![room.to_string()];
            while room_ids.len() < ROOMS
                && let Some(((_, room), _)) =
                    wishes.next_if(|((other, _), same)| *other == partition && *same == wanted)
            {
                room_ids.push(room.to_string());
            }
            let partition = partition.into();
            gathered.push(Encoded::request(if wanted {
                Frame::Subscribe(pb::Subscribe { partition, room_ids })
            } else {
                Frame::Unsubscribe(pb::Unsubscribe { partition, room_ids })
            }));
        }
        if !self.accounts.is_empty() || !self.payments.is_empty() {
            let accounts = std::mem::take(&mut self.accounts).into_iter().collect();
            let payment_ids = std::mem::take(&mut self.payments).into_iter().collect();
            gathered.push(Encoded::request(Frame::Touched(pb::Touched { accounts, payment_ids })));
        }
        gathered
    }
}

fn bytes(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The body of a request or response: the link's frames until it ends. Dropping
/// it ends the link.
#[derive(Debug)]
pub(super) struct OutboxBody {
    outbox: Arc<Outbox>,
    parts: VecDeque<Bytes>,
    /// Responses end with a status, requests do not.
    trailers: bool,
    ended: bool,
}

impl OutboxBody {
    /// Of a request.
    pub(super) fn request(outbox: Arc<Outbox>) -> Self {
        Self { outbox, parts: VecDeque::new(), trailers: false, ended: false }
    }

    /// Of a response.
    pub(super) fn response(outbox: Arc<Outbox>) -> Self {
        Self { outbox, parts: VecDeque::new(), trailers: true, ended: false }
    }

    fn look(&mut self) -> Option<Poll<Option<BodyFrame<Bytes>>>> {
        if self.ended {
            return Some(Poll::Ready(None));
        }
        if let Some(part) = self.parts.pop_front() {
            return Some(Poll::Ready(Some(BodyFrame::data(part))));
        }
        let mut batch = Vec::new();
        if let Some(status) = self.outbox.take(&mut batch) {
            self.ended = true;
            let trailers = || {
                let mut headers = HeaderMap::new();
                // A status of ours always fits into headers.
                let _ = status.add_header(&mut headers);
                BodyFrame::trailers(headers)
            };
            return Some(Poll::Ready(self.trailers.then(trailers)));
        }
        if batch.is_empty() {
            return None;
        }
        wire::message(&batch, &mut self.parts);
        self.parts.pop_front().map(|part| Poll::Ready(Some(BodyFrame::data(part))))
    }
}

impl http_body::Body for OutboxBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, Infallible>>> {
        let found = self.look().or_else(|| {
            // Registered before the last look: what comes in between is seen.
            self.outbox.waker.register(cx.waker());
            self.look()
        });
        found.map_or(Poll::Pending, |ready| ready.map(|frame| frame.map(Ok)))
    }
}

impl Drop for OutboxBody {
    fn drop(&mut self) {
        self.outbox.close();
    }
}

#[cfg(test)]
mod tests;
