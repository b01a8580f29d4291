//! A room's log in memory: the newest entries as they travel.
//!
//! # The invariant
//!
//! A room's log is one sequence of entries, seq 1, 2, 3 … without gaps. The
//! store has all of it. Memory has a contiguous suffix of it, the [`Tail`]:
//! from its start to the head nothing is missing, and what lies before the
//! start is in the store. A reader is a *cursor*: the last seq that it was
//! given. What it gets next is the entry after the cursor and nothing else, so
//! order, completeness and the absence of doubles hold for every reader by
//! construction, however slow it is, and no queue exists that could overflow.
//!
//! Entries are encoded once, as gRPC frames (5 bytes of prefix and a
//! `ChatResponse` that holds the message), back to back in [`Chunk`]s. A chunk
//! is frozen when it is made. A reader gets a slice of it: a reference into the
//! same memory that every other reader of these entries gets. A slice holds
//! whole frames only, at most one DATA frame of them (16 KiB), or one frame
//! that is larger than that, which the stream's body then sends in parts before
//! anything else.
//!
//! # Chunks
//!
//! A commit's entries of one room make new chunks; nothing is copied into those
//! that readers share. Lone messages make small chunks, and a reader that is
//! behind would get them one by one: when one asks for a small chunk that is
//! followed by others, the run becomes one chunk, if it at least doubles.
//! Whoever comes later shares that one; slices of the old ones stay valid. A
//! byte is so copied a few times at most, however many readers there are.
//!
//! # Memory
//!
//! Every chunk counts in the node's [`Budget`] from its making until its *last*
//! slice is gone: what HTTP/2 has taken and not sent still counts after the
//! tail let go of it. Chunks are as small as a DATA frame, so that a stalled
//! reader pins little: at most what its stream's send buffer holds, and a chunk
//! at each end. A tail is cut from its front when it is over the room's bytes;
//! over the node's budget the least used rooms are cut down first.
//!
//! # Readers behind the tail
//!
//! They are fed from [`Pages`]: ranges of the log, read from the store once and
//! shared by all who need them, aligned so that readers who fell behind at
//! different times meet in the same ones. A page ends before the tail's start.
//! One that is asked for within one page of the tail pins the tail's start for
//! a moment: by the time it is read the tail would otherwise have moved on, and
//! under a steady load the reader would never get inside.
//!
//! # Who may touch what
//!
//! The owner's task alone appends, cuts and drops; it does so after the commit
//! and under the room's lock. Readers take slices under the same lock, held for
//! the time of a search. Loaders add pages. This module does no IO, reads no
//! clock and starts nothing: all that is passed in.

mod budget;
mod chunk;
mod pages;
mod tail;
#[cfg(test)]
mod tests;

pub(crate) use budget::Budget;
pub(crate) use chunk::{Chunk, Frames};
pub(crate) use pages::{Feed, Pages};
pub(crate) use tail::{Slice, Tail};

/// What one slice holds at most, unless a single entry is larger: the default
/// size of an HTTP/2 DATA frame.
pub(crate) const DATA_FRAME: usize = 16 * 1024;
