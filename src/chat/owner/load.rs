//! Rooms brought into memory by the owner's task.

use std::collections::HashMap;
use std::sync::Arc;

use super::batch::Known;
use super::{Room, Shared, not_owner, now};
use crate::chat::log::{Chunk, Frames};
use crate::chat::rules::RoomState;
use crate::refusal::Refusal;
use crate::store::StoreError;
use crate::store::chat::RoomId;

/// How many members one read brings.
const MEMBERS: u32 = 1000;

/// What the store has of a room.
#[derive(Debug)]
pub(crate) enum Loaded {
    /// As its entries made it.
    Live(RoomState),
    /// There is none.
    Missing,
    /// There was one.
    Deleted,
}

/// Reads a room with all its members. Several reads show one state when nobody
/// but the caller appends to the room meanwhile. Otherwise its members may be
/// newer than its head: the changes up to them, applied again in order, make
/// the same members.
pub(crate) async fn load(
    shared: &Shared,
    partition: u16,
    room: &RoomId,
) -> Result<Loaded, StoreError> {
    let Some(record) = shared.store.room(partition, room).await? else {
        return Ok(Loaded::Missing);
    };
    if record.deleted {
        return Ok(Loaded::Deleted);
    }
    let mut members = HashMap::new();
    let mut after = String::new();
    loop {
        let page = shared.store.members(partition, room, &after, MEMBERS).await?;
        let full = page.len() >= MEMBERS as usize;
        if let Some(last) = page.last() {
            after = last.member.to_string();
        }
        members.extend(page.into_iter().map(|record| (record.member, record.role)));
        if !full {
            break;
        }
    }
    Ok(Loaded::Live(RoomState {
        room: record.room,
        title: record.title,
        created_by: record.created_by,
        created_at: record.created_at,
        head: record.head,
        members,
    }))
}

/// The room's partition, the epoch under which it is ours, and the room.
pub(super) async fn know(shared: &Shared, id: &RoomId) -> Result<(u16, u64, Known), Refusal> {
    let partition = shared.partition(id);
    let epoch = shared.view.epoch(partition).ok_or_else(not_owner)?;
    let known = match shared.in_memory(id).filter(|room| !room.is_suspended()) {
        Some(room) => Known::Room(room),
        None => bring(shared, partition, epoch, id).await?,
    };
    Ok((partition, epoch, known))
}

/// The room, brought into memory.
pub(super) async fn open(shared: &Shared, id: &RoomId) -> Result<Option<Arc<Room>>, Refusal> {
    match know(shared, id).await?.2 {
        Known::Room(room) => Ok(Some(room)),
        Known::Missing | Known::Deleted => Ok(None),
    }
}

/// Reads a room that is not in memory, or suspended there.
async fn bring(shared: &Shared, partition: u16, epoch: u64, id: &RoomId) -> Result<Known, Refusal> {
    let (state, absent) = match load(shared, partition, id).await? {
        Loaded::Live(state) => (Some(state), None),
        Loaded::Missing => (None, Some(Known::Missing)),
        Loaded::Deleted => (None, Some(Known::Deleted)),
    };
    let more = match (&state, shared.in_memory(id)) {
        (Some(state), Some(room)) => missing(shared, &room, state.head).await,
        _ => Vec::new(),
    };
    // What was read is right only if nobody else owned it meanwhile.
    let _cell = shared.follower.lock(partition);
    if shared.view.epoch(partition) != Some(epoch) {
        return Err(not_owner());
    }
    // Looked for after the read: another future of this task may have put it.
    let present = shared.in_memory(id);
    let room = match (present, state) {
        (Some(room), state) => {
            if room.is_suspended() {
                let readers = room.readers();
                room.resume(state, more, now());
                readers.iter().for_each(|reader| reader.wake());
            }
            room
        }
        (None, Some(state)) => {
            let room = Room::new(state, partition, &shared.config, &shared.budget, now());
            let room = Arc::new(room);
            shared.rooms().insert(id.clone(), room.clone());
            room
        }
        (None, None) => return Ok(absent.unwrap_or(Known::Missing)),
    };
    match absent {
        Some(absent) => {
            shared.rooms().remove(id);
            Ok(absent)
        }
        None => Ok(Known::Room(room)),
    }
}

/// The entries between a log in memory that is right but ended early, and the
/// head: so that its readers go on where they are. None when they are many.
async fn missing(shared: &Shared, room: &Room, head: u64) -> Vec<Chunk> {
    let after = room.head();
    let count = head.saturating_sub(after);
    let limit = u32::try_from(count).unwrap_or(u32::MAX);
    if shared.peers.is_none() || limit == 0 || limit > shared.config.page_entries {
        return Vec::new();
    }
    let bytes = shared.config.room_tail_bytes;
    match shared.store.entries(room.partition(), room.id(), after, limit, bytes).await {
        Ok(entries) if entries.len() as u64 == count => {
            let mut frames = Frames::after(after, &shared.budget);
            entries.iter().for_each(|entry| frames.push(entry));
            frames.finish()
        }
        // Readers behind the tail read them by themselves.
        Ok(_) | Err(_) => Vec::new(),
    }
}
