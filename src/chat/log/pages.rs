//! Ranges of a room's log that were read back from the store, for readers that
//! are behind the tail.
//!
//! Readers that fell behind together drift apart, and if the first ones pushed
//! out what the others are about to read, each would read the store for itself.
//! So while the pages are full and the least used one is being read, whoever
//! wants another one waits for those ([`Feed::Hold`]): not for one who stands
//! still, and no longer than [`LONGEST_HOLD`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Budget, Chunk};

/// A page that nobody took anything of for so long is not being read.
const ACTIVE: Duration = Duration::from_millis(500);

/// The longest that a page waits for the readers of another. When that was in
/// vain they are too slow for the others, and nobody waits for some time: so
/// they cost the others a sixth of their time at most.
const LONGEST_HOLD: Duration = Duration::from_secs(2);
const NO_HOLD: Duration = Duration::from_secs(10);

/// What a reader behind the tail gets.
#[derive(Debug)]
pub(crate) enum Feed {
    /// Whole frames and the cursor after them.
    Data(Bytes, u64),
    /// Somebody already reads what it needs.
    Loading,
    /// What it needs would push out what others are reading: ask again soon.
    Hold,
    /// The caller reads the entries after `after`, at most `limit`, and then
    /// calls [`Pages::loaded`] or [`Pages::failed`].
    Load {
        /// The seq before the first one to read.
        after: u64,
        /// How many.
        limit: u64,
    },
}

#[derive(Debug)]
struct Page {
    chunks: Vec<Chunk>,
    bytes: usize,
    used: u64,
    used_at: Duration,
}

impl Page {
    fn first(&self) -> u64 {
        self.chunks.first().map_or(0, Chunk::first)
    }

    fn last(&self) -> u64 {
        self.chunks.last().map_or(0, Chunk::last)
    }
}

/// The pages of one room. The least used go first.
#[derive(Debug)]
pub(crate) struct Pages {
    pages: Vec<Page>,
    /// Ranges being read: after the first seq, up to the second.
    loading: Vec<(u64, u64)>,
    /// How many entries a page has: as many as fit, at most `most_entries`.
    entries: u64,
    most_entries: u64,
    room_bytes: usize,
    bytes: usize,
    uses: u64,
    /// Since when a page waits for the readers of another.
    held: Option<Duration>,
    /// Until when no page waits.
    no_hold: Duration,
    budget: Arc<Budget>,
}

impl Pages {
    /// None, each to have at most `entries`, all together `room_bytes`.
    pub(crate) fn new(entries: u32, room_bytes: usize, budget: Arc<Budget>) -> Self {
        Self {
            pages: Vec::new(),
            loading: Vec::new(),
            entries: u64::from(entries.max(1)),
            most_entries: u64::from(entries.max(1)),
            room_bytes,
            bytes: 0,
            uses: 0,
            held: None,
            no_hold: Duration::ZERO,
            budget,
        }
    }

    /// Their size.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What comes after a cursor that lies before the tail's start.
    pub(crate) fn feed(&mut self, cursor: u64, tail_start: u64, max: usize, now: Duration) -> Feed {
        let next = cursor + 1;
        self.uses += 1;
        let uses = self.uses;
        if let Some(page) =
            self.pages.iter_mut().find(|page| (page.first()..=page.last()).contains(&next))
        {
            page.used = uses;
            page.used_at = now;
            let index = page.chunks.partition_point(|chunk| chunk.last() <= cursor);
            if let Some((bytes, cursor)) =
                page.chunks.get(index).and_then(|chunk| chunk.slice(cursor, max))
            {
                return Feed::Data(bytes, cursor);
            }
        }
        if self.loading.iter().any(|(after, last)| *after < next && next <= *last) {
            return Feed::Loading;
        }
        if self.holds(now) {
            return Feed::Hold;
        }
        let aligned = cursor / self.entries * self.entries;
        // A page that began there and ended early (by its bytes, or at what was
        // then the tail's start) would be read again and again.
        let known = self.pages.iter().any(|page| page.first() == aligned + 1);
        let after = if known { cursor } else { aligned };
        let last = (aligned + self.entries).min(tail_start - 1);
        self.loading.push((after, last));
        Feed::Load { after, limit: last - after }
    }

    /// Whether another page has to wait for the readers of the least used one.
    fn holds(&mut self, now: Duration) -> bool {
        let coming = self.bytes / self.pages.len().max(1) * (self.loading.len() + 1);
        let full = self.pages.len() > 1 && self.bytes + coming > self.room_bytes;
        let least = self.pages.iter().min_by_key(|page| page.used).filter(|_| full);
        let read = least.is_some_and(|page| now.saturating_sub(page.used_at) < ACTIVE);
        if read && now >= self.no_hold {
            let since = *self.held.get_or_insert(now);
            if now.saturating_sub(since) < LONGEST_HOLD {
                return true;
            }
            self.no_hold = now + NO_HOLD;
        }
        self.held = None;
        false
    }

    /// Fits the number of entries of a page to the bytes that it may have: one
    /// that is cut short would be found under another beginning each time.
    fn fit(&mut self, asked: u64, got: u64, bytes: usize) {
        if got < asked {
            // The largest power of two that fits.
            self.entries = (got + 1).next_power_of_two() / 2;
        } else if got >= self.entries && bytes.saturating_mul(16) < self.room_bytes {
            self.entries = (self.entries * 2).min(self.most_entries);
        }
    }

    /// A range was read.
    pub(crate) fn loaded(&mut self, after: u64, chunks: Vec<Chunk>, now: Duration) {
        let asked = self.loading.iter().find(|(loading, _)| *loading == after);
        let asked = asked.map_or(0, |(_, last)| last - after);
        self.failed(after);
        let bytes = chunks.iter().map(Chunk::len).sum();
        if bytes == 0 {
            return;
        }
        let got = chunks.last().map_or(0, Chunk::last) - after;
        self.fit(asked, got, bytes);
        self.uses += 1;
        self.bytes += bytes;
        self.budget.hold(bytes);
        self.pages.push(Page { chunks, bytes, used: self.uses, used_at: now });
        // The one that somebody waits for stays, whatever its size.
        while self.bytes > self.room_bytes && self.pages.len() > 1 {
            self.drop_least_used();
        }
    }

    /// A range could not be read.
    pub(crate) fn failed(&mut self, after: u64) {
        self.loading.retain(|(loading, _)| *loading != after);
    }

    /// Lets go of all pages.
    pub(crate) fn clear(&mut self) {
        while !self.pages.is_empty() {
            self.drop_least_used();
        }
    }

    fn drop_least_used(&mut self) {
        let least = self.pages.iter().enumerate().min_by_key(|(_, page)| page.used);
        if let Some((index, _)) = least {
            let page = self.pages.swap_remove(index);
            self.bytes -= page.bytes;
            self.budget.release(page.bytes);
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}
