//! Rooms brought into memory for their first reader.
//!
//! In a task of its own for each room, which all who ask for it share: neither
//! the owner's task nor a caller that gives up holds it up.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::catch_up;
use super::cell::Followed;
use crate::chat::owner::{Loaded, Room, Shared, load, micros, not_owner, now, stopped};
use crate::refusal::Refusal;
use crate::store::chat::RoomId;
use crate::task;

/// The room, fresh enough to be read; `None` when there is none. NOT_OWNER when
/// the partition is ours by now: the owner's task is to be asked.
pub(crate) async fn open(
    shared: &Arc<Shared>,
    partition: u16,
    id: &RoomId,
) -> Result<Option<Arc<Room>>, Refusal> {
    let (waiter, opened) = oneshot::channel();
    {
        let mut cell = shared.follower.lock(partition);
        let reached = cell.reached();
        if shared.view.epoch(partition).is_some() {
            return Err(not_owner());
        }
        if let Some(followed) = cell.rooms.get_mut(id) {
            followed.unread = None;
            let room = &followed.room;
            if !room.is_suspended() && shared.follower.is_fresh(room, now()) {
                return Ok(Some(room.clone()));
            }
            followed.waiters.push(waiter);
            catch_up::start(shared, followed, reached, None);
        } else {
            let waiters = cell.opening.entry(id.clone()).or_default();
            waiters.push(waiter);
            if waiters.len() == 1 {
                task::spawn("room", read(shared.clone(), partition, id.clone()));
            }
        }
    }
    // Who was let go of without an answer asks again.
    opened.await.map_err(|_| if shared.stops() { stopped() } else { not_owner() })?
}

async fn read(shared: Arc<Shared>, partition: u16, id: RoomId) {
    let began = now();
    let seen = shared.follower.lock(partition).seen;
    let loaded = load(&shared, partition, &id).await;
    let mut follow = false;
    let (waiters, answer) = {
        let mut cell = shared.follower.lock(partition);
        let waiters = cell.opening.remove(&id).unwrap_or_default();
        let ours = shared.view.epoch(partition).is_some();
        let known = cell.rooms.get(&id).map(|followed| followed.room.clone());
        let answer = match (loaded, known) {
            _ if ours => Err(not_owner()),
            // It was ours for a moment, and is followed since.
            (_, Some(room)) => Ok(Some(room)),
            (Err(error), None) => Err(Refusal::from(error)),
            (Ok(Loaded::Missing | Loaded::Deleted), None) => Ok(None),
            (Ok(Loaded::Live(state)), None) => {
                let room = Room::new(state, partition, &shared.config, &shared.budget, now());
                let room = Arc::new(room);
                room.prove(micros(began));
                shared.rooms().insert(id.clone(), room.clone());
                cell.rooms.insert(id.clone(), Followed::new(room.clone(), seen));
                follow = true;
                Ok(Some(room))
            }
        };
        (waiters, answer)
    };
    if let Some(peers) = shared.peers.as_ref().filter(|_| follow) {
        peers.follow(partition, &id);
    }
    for waiter in waiters {
        let _ = waiter.send(answer.clone());
    }
}
