//! A session: one client's `Chat` stream.
//!
//! Two parts share a [`Session`]. The *input* ([`input`]) is a small task that
//! reads the client's frames. The *output* ([`body`]) is the response's body;
//! it has no task and no queue of messages: hyper polls it when the client can
//! take more, and it takes slices of the rooms' logs from its cursors. What the
//! node itself has to say (acknowledgements, notices, refusals) waits in `out`,
//! encoded, and goes before messages. It is bounded: while 256 such frames
//! wait, or 1,024 sends are not durable yet, the client's stream is not read.
//!
//! Order of locks: `reading`, then a room's, then `out`, which is a leaf: the
//! owner's task puts frames there while it holds a room.

mod body;
mod departure;
mod input;
mod join;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::Status;

use super::owner::Room;
use super::{Proposal, Published, service, wire};
use crate::clock;
use crate::cut::Cut;
use crate::principal::Principal;
use crate::proto::chat::v1 as pb;
use crate::proto::chat::v1::chat_response::Frame;
use crate::refusal::{Reason, Refusal};
use crate::security::audit::AuditTrail;
use crate::store::chat::{RoomId, RoomRole};

pub(crate) use body::SessionBody;
pub(crate) use input::Input;

/// Session frames that may wait before the client's stream is not read.
const WAITING_FRAMES: usize = 256;

/// Sends that may be under way before the client's stream is not read.
const IN_FLIGHT: usize = 1024;

/// How long a client may take to read how its stream ended.
const LAST_MOMENT: Duration = Duration::from_millis(500);

/// What the parts of a session share.
#[derive(Debug)]
pub(crate) struct Session {
    principal: Principal,
    audit: AuditTrail,
    /// Of the body's task.
    waker: AtomicWaker,
    /// Something that the input waits for may have come.
    progress: Notify,
    /// The body is gone.
    closed: AtomicBool,
    /// The node ends it.
    turned_away: AtomicBool,
    /// One of the two has come.
    closing: Notify,
    /// It was told to go elsewhere: until when it may take to be gone.
    moved: OnceLock<Instant>,
    /// Ends the stream of a client that takes nothing any more.
    cut: OnceLock<Cut>,
    in_flight: AtomicUsize,
    out: Mutex<Out>,
    reading: Mutex<Reading>,
}

/// What waits to be sent, messages apart.
#[derive(Debug, Default)]
struct Out {
    /// Encoded frames, back to back.
    bytes: BytesMut,
    frames: usize,
    /// How the stream ends, once the frames are sent.
    end: Option<Status>,
}

/// What waits.
enum Waiting {
    /// Encoded frames.
    Frames(Bytes),
    /// The end.
    End(Status),
    /// Nothing.
    Nothing,
}

/// What the session reads.
#[derive(Debug, Default)]
struct Reading {
    rooms: Vec<Joined>,
    /// The room that comes first, so that none starves.
    turn: usize,
    /// The client has ended its side: the stream ends when every room is read
    /// up to its goal.
    finishing: bool,
}

/// A joined room.
#[derive(Debug)]
struct Joined {
    room: Arc<Room>,
    reader: Arc<Reader>,
    /// The last seq that the client was given.
    cursor: u64,
    /// It was told that it is behind the tail.
    lagging: bool,
    /// The room's head when the client ended its side.
    goal: u64,
}

/// A session's place among a room's readers.
#[derive(Debug)]
pub(crate) struct Reader {
    session: Arc<Session>,
    room: RoomId,
    /// The role's number; 0 when the membership has ended.
    role: AtomicU8,
}

impl Session {
    pub(crate) fn new(principal: Principal, audit: AuditTrail) -> Arc<Self> {
        Arc::new(Self {
            principal,
            audit,
            waker: AtomicWaker::new(),
            progress: Notify::new(),
            closed: AtomicBool::new(false),
            turned_away: AtomicBool::new(false),
            closing: Notify::new(),
            moved: OnceLock::new(),
            cut: OnceLock::new(),
            in_flight: AtomicUsize::new(0),
            out: Mutex::default(),
            reading: Mutex::default(),
        })
    }

    /// Who it is.
    pub(crate) fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Has the body looked at again.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    /// A send is under way until [`Session::settle`].
    pub(crate) fn begin_send(&self) {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
    }

    /// The outcome of a send: its acknowledgement, or why it failed. The caller
    /// wakes the session afterwards.
    pub(crate) fn settle(&self, proposal: &Proposal, result: Result<Published, Refusal>) {
        let id = &proposal.client_message_id;
        self.push(match result {
            Ok(published) => Frame::Sent(pb::Sent {
                room_id: proposal.room.to_string(),
                client_message_id: id.to_string(),
                seq: published.seq,
                committed_at: Some(clock::timestamp(published.committed_at)),
                redactions: published.redactions,
            }),
            Err(refusal) => {
                self.audit_frame("send", &proposal.room, Some(&refusal));
                wire::failed(&proposal.room, id, refusal)
            }
        });
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.progress.notify_waiters();
    }

    /// Tells the audit log of a frame about a room. Never waits.
    fn audit_frame(&self, kind: &'static str, room: &str, refusal: Option<&Refusal>) {
        // As many as one likes may be sent; the rate's own metric counts them.
        if refusal.is_none_or(|refusal| refusal.reason != Reason::RateLimited) {
            self.audit.frame(kind, &service::room(room), refusal);
        }
    }

    /// Puts a frame where it goes before messages. Wakes nobody.
    fn push(&self, frame: Frame) {
        let mut out = self.out();
        wire::put(&mut out.bytes, &pb::ChatResponse { frame: Some(frame) });
        out.frames += 1;
    }

    /// Ends the stream after what waits. The first one counts.
    fn end(&self, status: Status) {
        self.out().end.get_or_insert(status);
        self.wake();
    }

    /// Whether the input may read on.
    fn has_room(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) < IN_FLIGHT && self.out().frames < WAITING_FRAMES
    }

    /// Whether every send has its outcome.
    pub(crate) fn is_settled(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) == 0
    }

    /// Whether it has yet to read what is in the store alone. Looks at each of its
    /// rooms.
    pub(crate) fn is_behind(&self) -> bool {
        self.reading().rooms.iter().any(|joined| {
            !joined.reader.has_ended() && joined.cursor + 1 < joined.room.tail_start()
        })
    }

    /// Waits until a condition holds that [`Session::progress`] is told of.
    async fn until(&self, holds: impl Fn(&Self) -> bool) {
        loop {
            let progress = self.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            if holds(self) {
                return;
            }
            progress.await;
        }
    }

    /// Waits until the body is gone.
    async fn closed(&self) {
        self.closing(|session| session.closed.load(Ordering::Acquire)).await;
    }

    /// Waits until the body is gone, or is to go.
    async fn over(&self) {
        let over = |session: &Self| {
            session.closed.load(Ordering::Acquire) || session.turned_away.load(Ordering::Acquire)
        };
        self.closing(over).await;
    }

    async fn closing(&self, holds: impl Fn(&Self) -> bool) {
        loop {
            let closing = self.closing.notified();
            tokio::pin!(closing);
            closing.as_mut().enable();
            if holds(self) {
                return;
            }
            closing.await;
        }
    }

    /// Gives the client a moment to take its status, then cuts the stream: one
    /// that reads nothing would keep it open for as long as it likes.
    async fn cut_unless_closed(&self) {
        if tokio::time::timeout(LAST_MOMENT, self.closed()).await.is_err()
            && let Some(cut) = self.cut.get()
        {
            tracing::debug!("a stream was cut: its client does not read");
            cut.now();
        }
    }

    /// The body is gone: leaves every room and stops the input.
    fn close(&self) {
        let rooms = {
            let mut reading = self.reading();
            self.closed.store(true, Ordering::Release);
            std::mem::take(&mut reading.rooms)
        };
        rooms.iter().for_each(|joined| joined.room.leave(&joined.reader));
        self.closing.notify_waiters();
    }

    /// Everything that waits, to be sent at once; when nothing does, how the
    /// stream ends, if it does.
    fn take_out(&self) -> Waiting {
        let mut out = self.out();
        if out.frames == 0 {
            return out.end.clone().map_or(Waiting::Nothing, Waiting::End);
        }
        let frames = std::mem::take(&mut out.frames);
        let bytes = std::mem::take(&mut out.bytes).freeze();
        drop(out);
        if frames >= WAITING_FRAMES {
            self.progress.notify_waiters();
        }
        Waiting::Frames(bytes)
    }

    fn out(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    fn new(session: Arc<Session>, room: RoomId) -> Arc<Self> {
        Arc::new(Self { session, room, role: AtomicU8::new(0) })
    }

    /// Begins with a role. Called under the room's lock.
    pub(crate) fn begin(&self, role: RoomRole) {
        self.role.store(role as u8, Ordering::Release);
    }

    /// Who reads.
    pub(crate) fn principal(&self) -> &Principal {
        self.session.principal()
    }

    /// Whether it may read no more.
    pub(crate) fn has_ended(&self) -> bool {
        self.role.load(Ordering::Acquire) == 0
    }

    /// Takes over the role that it has now, and tells the client of a change.
    /// False when the membership has ended. Called under the room's lock.
    pub(crate) fn update_role(&self, role: Option<RoomRole>) -> bool {
        let number = role.map_or(0, |role| role as u8);
        let before = self.role.swap(number, Ordering::AcqRel);
        if before != number && before != 0 {
            let text = match role {
                Some(_) => "your role in the room changed",
                None => "you are no longer a member of the room",
            };
            self.session.push(notice(pb::NoticeKind::AccessChanged, &self.room, 0, text));
        }
        number != 0
    }

    /// Has its session look for news.
    pub(crate) fn wake(&self) {
        self.session.wake();
    }
}

fn notice(kind: pb::NoticeKind, room: &str, head: u64, text: &str) -> Frame {
    Frame::Notice(pb::Notice {
        kind: kind.into(),
        room_id: room.into(),
        head,
        text: text.into(),
        ..pb::Notice::default()
    })
}
