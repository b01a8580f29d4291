//! Frozen runs of framed entries, and their making.

use std::sync::Arc;

use bytes::Bytes;

use super::DATA_FRAME;
use super::budget::{Budget, Counted};
use crate::chat::peers::Run;
use crate::chat::wire;
use crate::store::chat::Entry;

/// Framed entries with consecutive seqs, back to back. Never empty, never
/// changed.
#[derive(Debug)]
pub(crate) struct Chunk {
    first: u64,
    /// Where each entry's frame ends.
    ends: Vec<u32>,
    bytes: Bytes,
}

impl Chunk {
    /// The seq of its first entry.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// The seq of its last entry.
    pub(crate) fn last(&self) -> u64 {
        self.first + self.ends.len() as u64 - 1
    }

    /// Its size.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The frames after a cursor, at most `max` bytes of them but at least one,
    /// and the cursor after them. `None` unless the next entry is in the chunk.
    pub(crate) fn slice(&self, cursor: u64, max: usize) -> Option<(Bytes, u64)> {
        let index = usize::try_from((cursor + 1).checked_sub(self.first)?).ok()?;
        let own_end = *self.ends.get(index)? as usize;
        let start = match index.checked_sub(1) {
            Some(before) => *self.ends.get(before)? as usize,
            None => 0,
        };
        let fitting = self.ends.partition_point(|end| *end as usize <= start + max);
        let (end, taken) = match fitting.checked_sub(1).filter(|last| *last > index) {
            Some(last) => (*self.ends.get(last)? as usize, last - index + 1),
            None => (own_end, 1),
        };
        Some((self.bytes.slice(start..end), cursor + taken as u64))
    }

    /// The chunk as it goes to other nodes: the same bytes.
    pub(crate) fn run(&self) -> Run {
        Run { first: self.first, ends: self.ends.clone(), bytes: self.bytes.clone() }
    }

    /// The entries of a run after a cursor: the very bytes, counted. `None` when
    /// there are none, or the run is not what it says.
    pub(crate) fn of_run(run: &Run, cursor: u64, budget: &Arc<Budget>) -> Option<Chunk> {
        let ascending = run.ends.windows(2).all(|pair| matches!(pair, [a, b] if a < b));
        let whole = run.ends.last().map(|end| *end as usize) == Some(run.bytes.len());
        if !ascending || !whole || run.first == 0 || run.bytes.is_empty() {
            return None;
        }
        let known = usize::try_from((cursor + 1).saturating_sub(run.first)).ok()?;
        let start = match known.checked_sub(1) {
            Some(before) => *run.ends.get(before)?,
            None => 0,
        };
        let ends: Vec<u32> = run.ends.get(known..)?.iter().map(|end| end - start).collect();
        if ends.is_empty() {
            return None;
        }
        let bytes = Counted::new(run.bytes.slice(start as usize..), budget.clone());
        let first = run.first.saturating_add(known as u64);
        Some(Chunk { first, ends, bytes: Bytes::from_owner(bytes) })
    }

    /// One chunk of several that follow each other. `None` for none.
    pub(super) fn join(chunks: &[&Chunk], budget: &Arc<Budget>) -> Option<Chunk> {
        let first = chunks.first()?.first;
        let mut bytes = Vec::with_capacity(chunks.iter().map(|chunk| chunk.len()).sum());
        let mut ends = Vec::with_capacity(chunks.iter().map(|chunk| chunk.ends.len()).sum());
        for chunk in chunks {
            let offset = u32::try_from(bytes.len()).ok()?;
            ends.extend(chunk.ends.iter().map(|end| end + offset));
            bytes.extend_from_slice(&chunk.bytes);
        }
        Some(Chunk { first, ends, bytes: frozen(bytes, budget) })
    }
}

/// Frames entries into chunks.
#[derive(Debug)]
pub(crate) struct Frames {
    budget: Arc<Budget>,
    done: Vec<Chunk>,
    first: u64,
    ends: Vec<u32>,
    bytes: Vec<u8>,
}

impl Frames {
    /// Nothing yet; the first entry will have the seq after `cursor`.
    pub(crate) fn after(cursor: u64, budget: &Arc<Budget>) -> Self {
        Self {
            budget: budget.clone(),
            done: Vec::new(),
            first: cursor + 1,
            ends: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// Adds the next entry.
    pub(crate) fn push(&mut self, entry: &Entry) {
        let response = wire::response(entry);
        let size = wire::framed_len(&response);
        if !self.bytes.is_empty() && self.bytes.len() + size > DATA_FRAME {
            self.freeze();
        }
        self.bytes.reserve(size);
        wire::put(&mut self.bytes, &response);
        // A chunk is at most a DATA frame or one message: far below 4 GiB.
        self.ends.push(u32::try_from(self.bytes.len()).unwrap_or(u32::MAX));
    }

    /// The chunks.
    pub(crate) fn finish(mut self) -> Vec<Chunk> {
        if !self.bytes.is_empty() {
            self.freeze();
        }
        self.done
    }

    fn freeze(&mut self) {
        let ends = std::mem::take(&mut self.ends);
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.shrink_to_fit();
        let first = self.first;
        self.first += ends.len() as u64;
        self.done.push(Chunk { first, ends, bytes: frozen(bytes, &self.budget) });
    }
}

fn frozen(bytes: Vec<u8>, budget: &Arc<Budget>) -> Bytes {
    Bytes::from_owner(Counted::new(bytes, budget.clone()))
}
