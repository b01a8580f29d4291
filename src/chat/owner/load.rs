//! Rooms brought into memory. Only the owner's task does it.

use std::collections::HashMap;
use std::sync::Arc;

use super::batch::Known;
use super::{Room, Shared, not_owner, now};
use crate::chat::rules::RoomState;
use crate::refusal::Refusal;
use crate::store::StoreError;
use crate::store::chat::RoomId;

/// How many members one read brings.
const MEMBERS: u32 = 1000;

/// What the store has of a room.
#[derive(Debug)]
enum Loaded {
    /// As its entries made it.
    Live(RoomState),
    /// There is none.
    Missing,
    /// There was one.
    Deleted,
}

/// Reads a room with all its members. Several reads show one state, because
/// nobody but the caller appends to the room meanwhile.
async fn load(shared: &Shared, room: &RoomId) -> Result<Loaded, StoreError> {
    let partition = shared.partition(room);
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
        None => bring(shared, id).await?,
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
async fn bring(shared: &Shared, id: &RoomId) -> Result<Known, Refusal> {
    let loaded = load(shared, id).await?;
    // Looked for after the read: another future of this task may have put it.
    let present = shared.in_memory(id);
    let (state, absent) = match loaded {
        Loaded::Live(state) => (Some(state), None),
        Loaded::Missing => (None, Some(Known::Missing)),
        Loaded::Deleted => (None, Some(Known::Deleted)),
    };
    let room = match (present, state) {
        (Some(room), state) => {
            if room.is_suspended() {
                let readers = room.readers();
                room.resume(state);
                readers.iter().for_each(|reader| reader.wake());
            }
            room
        }
        (None, Some(state)) => {
            let partition = shared.partition(id);
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
