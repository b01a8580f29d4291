//! The newest entries of a room.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Budget, Chunk, DATA_FRAME};

/// How long a reader that is about to get inside keeps the start in place.
const PIN: Duration = Duration::from_secs(2);

/// What a reader gets.
#[derive(Debug)]
pub(crate) enum Slice {
    /// Whole frames and the cursor after them.
    Data(Bytes, u64),
    /// It has everything.
    AtHead,
    /// What it needs is no longer here.
    Behind,
}

/// A contiguous suffix of a room's log.
#[derive(Debug)]
pub(crate) struct Tail {
    chunks: VecDeque<Chunk>,
    head: u64,
    bytes: usize,
    /// What it may have; twice that while its start is pinned.
    room_bytes: usize,
    /// Nothing from this seq on is cut before this time.
    pin: Option<(u64, Duration)>,
    budget: Arc<Budget>,
}

impl Tail {
    /// An empty one, of a room whose newest entry is `head`.
    pub(crate) fn new(head: u64, room_bytes: usize, budget: Arc<Budget>) -> Self {
        Self { chunks: VecDeque::new(), head, bytes: 0, room_bytes, pin: None, budget }
    }

    /// The newest entry's seq.
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// The seq of the oldest entry that is here; the one after the head when
    /// nothing is.
    pub(crate) fn start(&self) -> u64 {
        self.chunks.front().map_or(self.head + 1, Chunk::first)
    }

    /// Its size.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds what was committed, and cuts the front. Chunks that do not follow
    /// the head are not taken: false is a fault of the caller.
    pub(crate) fn append(&mut self, chunks: Vec<Chunk>, now: Duration) -> bool {
        for chunk in chunks {
            if chunk.first() != self.head + 1 {
                return false;
            }
            self.head = chunk.last();
            self.bytes += chunk.len();
            self.budget.hold(chunk.len());
            self.chunks.push_back(chunk);
        }
        self.cut(now);
        true
    }

    /// What comes after a cursor, at most `max` bytes.
    pub(crate) fn slice(&mut self, cursor: u64, max: usize) -> Slice {
        if cursor >= self.head {
            return Slice::AtHead;
        }
        if cursor + 1 < self.start() {
            return Slice::Behind;
        }
        let index = self.chunks.partition_point(|chunk| chunk.last() <= cursor);
        self.join_run(index);
        match self.chunks.get(index).and_then(|chunk| chunk.slice(cursor, max)) {
            Some((bytes, cursor)) => Slice::Data(bytes, cursor),
            // Unreachable while the chunks are contiguous; the store has it all.
            None => Slice::Behind,
        }
    }

    /// Keeps what is here now for a reader that is one page away.
    pub(crate) fn pin(&mut self, now: Duration) {
        if !matches!(self.pin, Some((_, until)) if now < until) {
            self.pin = Some((self.start(), now + PIN));
        }
    }

    /// Lets go of the oldest entries until at most so many bytes are left.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        while self.bytes > bytes && self.drop_front() {}
    }

    /// Lets go of everything and goes on from another head.
    pub(crate) fn reset(&mut self, head: u64) {
        self.shrink(0);
        self.head = head;
        self.pin = None;
    }

    fn cut(&mut self, now: Duration) {
        let pinned = match self.pin {
            Some((seq, until)) if now < until => seq,
            _ => {
                self.pin = None;
                u64::MAX
            }
        };
        // The newest chunk stays, so that readers at the head find it.
        while self.bytes > self.room_bytes && self.chunks.len() > 1 {
            let front = self.chunks.front().map_or(0, Chunk::last);
            if front >= pinned && self.bytes <= self.room_bytes * 2 {
                return;
            }
            self.drop_front();
        }
    }

    fn drop_front(&mut self) -> bool {
        let Some(chunk) = self.chunks.pop_front() else { return false };
        self.bytes -= chunk.len();
        self.budget.release(chunk.len());
        true
    }

    /// Makes one chunk of a small one and those after it, if that at least
    /// doubles it (else each new message would copy those before it again).
    fn join_run(&mut self, index: usize) {
        let Some(first) = self.chunks.get(index).map(Chunk::len) else { return };
        let mut total = first;
        let mut count = 1;
        for chunk in self.chunks.iter().skip(index + 1) {
            if total + chunk.len() > DATA_FRAME {
                break;
            }
            total += chunk.len();
            count += 1;
        }
        if count == 1 || total < first * 2 {
            return;
        }
        let run: Vec<&Chunk> = self.chunks.range(index..index + count).collect();
        if let Some(joined) = Chunk::join(&run, &self.budget) {
            // The sizes add up: neither `bytes` nor what is held changes.
            self.chunks.drain(index + 1..index + count);
            if let Some(place) = self.chunks.get_mut(index) {
                *place = joined;
            }
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}
