//! The bytes of all rooms' entries that are in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Counts encoded entries while they exist.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    alive: AtomicUsize,
    held: AtomicUsize,
}

impl Budget {
    /// A budget of so many bytes.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, alive: AtomicUsize::new(0), held: AtomicUsize::new(0) })
    }

    /// Bytes over the limit; 0 when within it.
    pub(crate) fn excess(&self) -> usize {
        self.alive().saturating_sub(self.limit)
    }

    /// Bytes that exist: in tails and pages, and what HTTP/2 still holds.
    pub(crate) fn alive(&self) -> usize {
        self.alive.load(Relaxed)
    }

    /// Bytes in tails and pages.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// Bytes that tails and pages let go of and that slices still pin.
    pub(crate) fn pinned(&self) -> usize {
        self.alive().saturating_sub(self.held())
    }

    /// A tail or a page got so many bytes.
    pub(super) fn hold(&self, bytes: usize) {
        self.held.fetch_add(bytes, Relaxed);
    }

    /// A tail or a page let go of so many bytes.
    pub(super) fn release(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Relaxed);
    }
}

/// A chunk's memory. Owned by the `Bytes` that are made of it, so that it is
/// dropped with the last slice and not before.
pub(super) struct Counted<B: AsRef<[u8]>> {
    bytes: B,
    budget: Arc<Budget>,
}

impl<B: AsRef<[u8]>> Counted<B> {
    pub(super) fn new(bytes: B, budget: Arc<Budget>) -> Self {
        budget.alive.fetch_add(bytes.as_ref().len(), Relaxed);
        Self { bytes, budget }
    }
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for Counted<B> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

impl<B: AsRef<[u8]>> Drop for Counted<B> {
    fn drop(&mut self) {
        self.budget.alive.fetch_sub(self.bytes.as_ref().len(), Relaxed);
    }
}
