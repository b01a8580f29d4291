//! What an append looks like room by room: pure, for every engine.

use std::collections::HashMap;

use super::{Change, NewEntry, RoomId};
use crate::store::StoreError;

/// What one part appends to one room.
pub(crate) struct Span<'a> {
    /// Its first entry.
    pub(crate) first: &'a NewEntry,
    /// The seq of its last one.
    pub(crate) last: u64,
}

/// The part's rooms, in the order of their first entries; within a room the
/// seqs have no gap, and only its first entry begins a room.
pub(crate) fn spans(entries: &[NewEntry]) -> Result<Vec<Span<'_>>, StoreError> {
    let mut spans: Vec<Span<'_>> = Vec::new();
    let mut places: HashMap<&RoomId, usize> = HashMap::new();
    for new in entries {
        let seq = new.entry.seq;
        let creates = matches!(new.change, Some(Change::CreateRoom { .. }));
        if creates && seq != 1 {
            return Err(corrupt("a room that does not begin with its first entry"));
        }
        match places.get(&new.entry.room).and_then(|place| spans.get_mut(*place)) {
            Some(span) if span.last.checked_add(1) == Some(seq) => span.last = seq,
            Some(_) => return Err(corrupt("an append with a gap")),
            None => {
                places.insert(&new.entry.room, spans.len());
                spans.push(Span { first: new, last: seq });
            }
        }
    }
    Ok(spans)
}

pub(crate) fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(format!("chat: {what}"))
}
