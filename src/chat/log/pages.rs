//! Ranges of a room's log that were read back from the store, for readers that
//! are behind the tail.

use std::sync::Arc;

use bytes::Bytes;

use super::{Budget, Chunk};

/// What a reader behind the tail gets.
#[derive(Debug)]
pub(crate) enum Feed {
    /// Whole frames and the cursor after them.
    Data(Bytes, u64),
    /// Somebody already reads what it needs.
    Loading,
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
    entries: u64,
    room_bytes: usize,
    bytes: usize,
    uses: u64,
    budget: Arc<Budget>,
}

impl Pages {
    /// None, each to have at most `entries`, all together `room_bytes`.
    pub(crate) fn new(entries: u32, room_bytes: usize, budget: Arc<Budget>) -> Self {
        Self {
            pages: Vec::new(),
            loading: Vec::new(),
            entries: u64::from(entries.max(1)),
            room_bytes,
            bytes: 0,
            uses: 0,
            budget,
        }
    }

    /// Their size.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What comes after a cursor that lies before the tail's start.
    pub(crate) fn feed(&mut self, cursor: u64, tail_start: u64, max: usize) -> Feed {
        let next = cursor + 1;
        self.uses += 1;
        let uses = self.uses;
        if let Some(page) =
            self.pages.iter_mut().find(|page| (page.first()..=page.last()).contains(&next))
        {
            page.used = uses;
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
        let aligned = cursor / self.entries * self.entries;
        // A page that began there and ended early (by its bytes, or at what was
        // then the tail's start) would be read again and again.
        let known = self.pages.iter().any(|page| page.first() == aligned + 1);
        let after = if known { cursor } else { aligned };
        let last = (aligned + self.entries).min(tail_start - 1);
        self.loading.push((after, last));
        Feed::Load { after, limit: last - after }
    }

    /// A range was read.
    pub(crate) fn loaded(&mut self, after: u64, chunks: Vec<Chunk>) {
        self.failed(after);
        let bytes = chunks.iter().map(Chunk::len).sum();
        if bytes == 0 {
            return;
        }
        self.uses += 1;
        self.bytes += bytes;
        self.budget.hold(bytes);
        self.pages.push(Page { chunks, bytes, used: self.uses });
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
