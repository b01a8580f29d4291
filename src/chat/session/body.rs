//! The output of a session: the response's body.
//!
//! Each poll gives at most one DATA frame: what is left of something larger,
//! else session frames, else a slice of the next room that has news. The bytes
//! are those of the log: nothing is copied and nothing is encoded for a reader.
//! The stream ends between whole frames, with its status in the trailers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame as BodyFrame};
use tonic::Status;

use super::{Joined, Reading, Session, Waiting, notice};
use crate::chat::log::{DATA_FRAME, Frames};
use crate::chat::metrics::Counting;
use crate::chat::owner::{HOLD, Pull, Room, Shared, now};
use crate::cut::Cut;
use crate::proto::chat::v1::NoticeKind;
use crate::store::StoreError;
use crate::task;

/// The response's body. Dropping it ends the session.
#[derive(Debug)]
pub(crate) struct SessionBody {
    session: Arc<Session>,
    shared: Arc<Shared>,
    /// The rest of what did not fit one DATA frame; goes before anything else.
    rest: Bytes,
    polled: bool,
    ended: bool,
    /// Its place among the node's sessions.
    number: u64,
    /// The stop of the node waits for it.
    _drain: crate::drain::Guard,
    _counting: Counting,
}

/// What a look at the rooms gave.
enum Look {
    /// Frames to send.
    Data(Bytes),
    /// Session frames were put in `out`.
    Notice,
    /// Nothing, until the session is woken.
    Nothing,
    /// Everything that the client will get.
    Finished,
}

impl SessionBody {
    pub(crate) fn new(
        session: Arc<Session>,
        shared: Arc<Shared>,
        drain: crate::drain::Guard,
    ) -> Self {
        let counting = shared.metrics.session();
        let number = shared.sessions.enter(&session);
        Self {
            session,
            shared,
            rest: Bytes::new(),
            polled: false,
            ended: false,
            number,
            _drain: drain,
            _counting: counting,
        }
    }

    fn send(&mut self, mut bytes: Bytes) -> Poll<Option<Result<BodyFrame<Bytes>, Status>>> {
        if bytes.len() > DATA_FRAME {
            self.rest = bytes.split_off(DATA_FRAME);
        }
        Poll::Ready(Some(Ok(BodyFrame::data(bytes))))
    }

    fn finish(&mut self, status: &Status) -> Poll<Option<Result<BodyFrame<Bytes>, Status>>> {
        self.ended = true;
        // The memory of the rooms is not kept for a client that is slow to
        // take its trailers.
        self.session.close();
        Poll::Ready(Some(Ok(BodyFrame::trailers(trailers(status)))))
    }

    /// Looks at each room once, beginning with the one whose turn it is.
    fn look(&self) -> Look {
        let mut reading = self.session.reading();
        let Reading { rooms, turn, finishing } = &mut *reading;
        rooms.retain(|joined| !joined.reader.has_ended());
        let at = now();
        for step in 0..rooms.len() {
            let index = (*turn + step) % rooms.len();
            let Some(joined) = rooms.get_mut(index) else { continue };
            if joined.room.head() <= joined.cursor {
                if std::mem::take(&mut joined.lagging) {
                    self.tell(joined, NoticeKind::CaughtUp, "you read what is appended again");
                    return Look::Notice;
                }
                continue;
            }
            match self.pull(joined, at) {
                Look::Nothing => {}
                found => {
                    *turn = index + 1;
                    return found;
                }
            }
        }
        if *finishing && rooms.iter().all(|joined| joined.cursor >= joined.goal) {
            return Look::Finished;
        }
        Look::Nothing
    }

    fn pull(&self, joined: &mut Joined, at: Duration) -> Look {
        if !self.shared.is_fresh(&joined.room, at) {
            if self.shared.view.halt() {
                self.shared.metrics.stale_views.inc();
            }
            return Look::Nothing;
        }
        match joined.room.pull(&joined.reader, joined.cursor, at) {
            Pull::Data { behind, .. } if behind != joined.lagging => {
                // Told first; the slice is there to be taken again.
                self.turn_over(joined)
            }
            Pull::Data { bytes, cursor, .. } => {
                joined.cursor = cursor;
                Look::Data(bytes)
            }
            Pull::Waiting => self.behind(joined),
            Pull::Load { after, limit } => {
                task::spawn(
                    "page",
                    read_page(self.shared.clone(), joined.room.clone(), after, limit),
                );
                self.behind(joined)
            }
            Pull::Hold => {
                let room = joined.room.clone();
                task::spawn("page pause", async move {
                    tokio::time::sleep(HOLD).await;
                    room.go_on();
                });
                self.behind(joined)
            }
            Pull::Nothing | Pull::Suspended => Look::Nothing,
        }
    }

    fn behind(&self, joined: &mut Joined) -> Look {
        if joined.lagging { Look::Nothing } else { self.turn_over(joined) }
    }

    /// Begins or ends lagging, and says so.
    fn turn_over(&self, joined: &mut Joined) -> Look {
        joined.lagging = !joined.lagging;
        if joined.lagging {
            let text = "you are behind and read from the store; nothing is lost";
            self.tell(joined, NoticeKind::Lagging, text);
        } else {
            self.tell(joined, NoticeKind::CaughtUp, "you read what is appended again");
        }
        Look::Notice
    }

    fn tell(&self, joined: &Joined, kind: NoticeKind, text: &str) {
        self.session.push(notice(kind, joined.room.id(), joined.room.head(), text));
    }
}

impl Body for SessionBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        if !std::mem::replace(&mut this.polled, true)
            && let Some(cut) = Cut::current()
        {
            let _ = this.session.cut.set(cut);
        }
        if !this.rest.is_empty() {
            let rest = std::mem::take(&mut this.rest);
            return this.send(rest);
        }
        // Before looking: what comes after the look wakes.
        this.session.waker.register(cx.waker());
        loop {
            match this.session.take_out() {
                Waiting::Frames(frames) => return this.send(frames),
                Waiting::End(status) => return this.finish(&status),
                Waiting::Nothing => {}
            }
            match this.look() {
                Look::Data(bytes) => return this.send(bytes),
                Look::Notice => {}
                Look::Nothing => return Poll::Pending,
                Look::Finished if this.session.out().frames == 0 => {
                    return this.finish(&Status::ok(""));
                }
                Look::Finished => {}
            }
        }
    }
}

impl Drop for SessionBody {
    fn drop(&mut self) {
        self.shared.sessions.leave(self.number);
        self.session.close();
    }
}

/// How long a failed read waits before the readers try again.
const RETRY: Duration = Duration::from_millis(300);

/// The same, when what is there cannot be read: somebody has to mend it.
const DAMAGED: Duration = Duration::from_secs(10);

/// Reads a page for all who wait for it.
async fn read_page(shared: Arc<Shared>, room: Arc<Room>, after: u64, limit: u64) {
    shared.metrics.page_loads.inc();
    let entries = u32::try_from(limit).unwrap_or(u32::MAX);
    // A page is a part of what the room may have, however large its bodies are.
    let bytes = shared.config.room_tail_bytes.max(DATA_FRAME);
    let read = shared.store.entries(room.partition(), room.id(), after, entries, bytes).await;
    let mut retry = RETRY;
    let chunks = match read {
        Ok(entries) if entries.first().is_some_and(|entry| entry.seq == after + 1) => {
            let mut frames = Frames::after(after, &shared.budget);
            entries.iter().for_each(|entry| frames.push(entry));
            Some(frames.finish())
        }
        Ok(_) => {
            // The room was deleted meanwhile, or the log has a gap.
            tracing::warn!(room = %room.id(), after, "a page of a room's log is not there");
            None
        }
        Err(error @ StoreError::Corrupt(_)) => {
            let (room, partition) = (room.id(), room.partition());
            tracing::error!(%error, %room, partition, after, "nobody can read on in a room's log");
            retry = DAMAGED;
            None
        }
        Err(error) => {
            tracing::warn!(%error, "a page of a room's log could not be read");
            None
        }
    };
    if chunks.is_none() {
        tokio::time::sleep(retry).await;
    }
    room.loaded(after, chunks, now());
}

/// The trailers of a status; the code alone when it cannot be written.
fn trailers(status: &Status) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(3);
    if status.add_header(&mut headers).is_err() {
        headers.clear();
        headers.insert(Status::GRPC_STATUS, HeaderValue::from(i32::from(status.code())));
    }
    headers
}
