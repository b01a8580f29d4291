//! A followed room brought up to what the store has.
//!
//! One task at a time for each room. What a link brings meanwhile waits in the
//! room's stash and is put behind what was read; the task goes on until the two
//! meet. Where the store fails it gives up: the room is unproved then, and is
//! looked at again with the next read of the partitions.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio::sync::oneshot;

use super::cell::{Cell, Followed, Stash};
use super::deliver::{Fate, end, forget, put, wake};
use crate::chat::log::Frames;
use crate::chat::owner::{Loaded, Room, Shared, load, micros, now};
use crate::principal::Principal;
use crate::proto::chat::v1 as pb;
use crate::proto::chat::v1::message::Event;
use crate::refusal::{Reason, Refusal};
use crate::store::StoreError;
use crate::store::chat::{Change, Entry, EntryKind, RoomId, RoomRole};
use crate::task;

/// How often a room is read before what waits for it is left to the next look.
const TRIES: u32 = 8;

/// Between two of them, when the store had nothing of what was told.
const PAUSE: Duration = Duration::from_millis(20);

/// How long a call waits for what it did to be seen here.
const SEEN: Duration = Duration::from_secs(1);

/// What the store had.
enum Stored {
    /// All of it is here.
    Here,
    /// The room is no more.
    Gone,
    /// The partition changed hands.
    NotFollowed,
}

/// A room's head as the store had it, by a read that began at `began`, after a
/// read that showed the partition's commit `seen`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) head: Option<u64>,
    pub(super) began: Duration,
    pub(super) seen: u64,
}

/// Starts the task, unless it runs. The head is given if it was just read.
/// Called with the cell's lock.
pub(super) fn start(
    shared: &Arc<Shared>,
    followed: &mut Followed,
    reached: u64,
    head: Option<Head>,
) {
    if followed.stash.is_none() {
        cell_of(shared, &followed.room).unlink(followed, reached);
        followed.stash = Some(Stash::default());
        task::spawn("room catches up", run(shared.clone(), followed.room.clone(), head));
    }
}

/// Has a followed room looked at that somebody knows more of.
pub(crate) fn look(shared: &Arc<Shared>, room: &Arc<Room>) {
    let mut cell = shared.follower.lock(room.partition());
    let reached = cell.reached();
    if let Some(followed) = cell.rooms.get_mut(room.id()).filter(|it| it.is(room)) {
        start(shared, followed, reached, None);
    }
}

/// Waits until a followed room has an entry that is committed; not for long.
pub(crate) async fn see(shared: &Arc<Shared>, partition: u16, room: &RoomId, seq: u64) {
    let (waiter, seen) = oneshot::channel();
    {
        let mut cell = shared.follower.lock(partition);
        let reached = cell.reached();
        let Some(followed) = cell.rooms.get_mut(room) else { return };
        if followed.room.head() >= seq {
            return;
        }
        followed.want = followed.want.max(seq);
        followed.waiters.push(waiter);
        start(shared, followed, reached, None);
    }
    let _ = tokio::time::timeout(SEEN, seen).await;
}

fn cell_of<'a>(shared: &'a Shared, room: &Room) -> &'a Cell {
    shared.follower.cell(room.partition())
}

async fn run(shared: Arc<Shared>, room: Arc<Room>, mut known: Option<Head>) {
    for attempt in 0..TRIES {
        if attempt > 1 {
            tokio::time::sleep(PAUSE).await;
        }
        let head = match known.take() {
            Some(head) => Ok(head),
            None => read_head(&shared, &room).await,
        };
        let stored = match head {
            Ok(head) => bring(&shared, &room, head.head).await.map(|stored| (stored, head)),
            Err(error) => Err(error),
        };
        match stored {
            Ok((Stored::Here, head)) => {
                if settle(&shared, &room, head) {
                    return;
                }
            }
            Ok((Stored::Gone, _)) => {
                let readers = room.readers();
                forget(&shared, &mut cell_of(&shared, &room).lock(), &room);
                return end(&shared, &room, &readers);
            }
            Ok((Stored::NotFollowed, _)) => return,
            Err(error) => {
                tracing::warn!(%error, "a room of another node could not be read");
                return give_up(&shared, &room, &Refusal::from(error));
            }
        }
    }
    let why = Refusal::new(Reason::NotOwner, "the room is behind what its owner told");
    give_up(&shared, &room, &why);
}

async fn read_head(shared: &Shared, room: &Room) -> Result<Head, StoreError> {
    let (began, seen) = (now(), cell_of(shared, room).lock().seen);
    let heads = shared.store.heads(room.partition(), vec![room.id().clone()]).await?;
    Ok(Head { head: heads.into_iter().next().flatten(), began, seen })
}

/// Brings the room up to a head of the store.
async fn bring(
    shared: &Arc<Shared>,
    room: &Arc<Room>,
    head: Option<u64>,
) -> Result<Stored, StoreError> {
    let Some(head) = head else { return Ok(Stored::Gone) };
    loop {
        let after = room.head();
        if !room.is_suspended() {
            if head <= after {
                return Ok(Stored::Here);
            }
            match append(shared, room, after, head - after).await? {
                Some(Stored::Here) => continue,
                Some(other) => return Ok(other),
                None => {}
            }
        }
        // It is far behind, or suspended, or has entries that this release does
        // not know.
        return match load(shared, room.partition(), room.id()).await? {
            Loaded::Live(state) => {
                let readers = room.readers();
                let resumed =
                    followed(shared, room, || room.resume(Some(state), Vec::new(), now()));
                readers.iter().for_each(|reader| reader.wake());
                Ok(if resumed.is_some() { Stored::Here } else { Stored::NotFollowed })
            }
            Loaded::Missing | Loaded::Deleted => Ok(Stored::Gone),
        };
    }
}

/// Appends what comes after a seq, with what it changed. `None` when that is
/// more than a page, or cannot be told.
async fn append(
    shared: &Arc<Shared>,
    room: &Arc<Room>,
    after: u64,
    count: u64,
) -> Result<Option<Stored>, StoreError> {
    let limit = u32::try_from(count).unwrap_or(u32::MAX);
    if limit > shared.config.page_entries {
        return Ok(None);
    }
    let bytes = shared.config.room_tail_bytes;
    let entries = shared.store.entries(room.partition(), room.id(), after, limit, bytes).await?;
    let mut frames = Frames::after(after, &shared.budget);
    let mut changes = Vec::new();
    for (entry, seq) in entries.iter().zip(after + 1..) {
        match change(entry) {
            Some(change) if entry.seq == seq => changes.extend(change),
            _ => return Ok(None),
        }
        frames.push(entry);
    }
    let chunks = frames.finish();
    if chunks.is_empty() {
        return Ok(None);
    }
    let readers = room.readers();
    let taken = followed(shared, room, || room.extend(chunks, &changes, now()));
    readers.iter().for_each(|reader| reader.wake());
    Ok(match taken {
        Some(true) => Some(Stored::Here),
        Some(false) => None,
        None => Some(Stored::NotFollowed),
    })
}

/// What an entry changed beside the log: nothing, something, or (`None`)
/// something that cannot be told.
fn change(entry: &Entry) -> Option<Option<Change>> {
    match entry.kind {
        EntryKind::Text | EntryKind::Payment => Some(None),
        EntryKind::Room | EntryKind::Membership => {
            let event = pb::Message::decode(entry.body.clone()).ok()?.event?;
            Some(Some(match event {
                Event::Room(change) => Change::SetTitle { title: change.title },
                Event::Membership(change) => {
                    let member: Principal = change.member.parse().ok()?;
                    let role = match change.after {
                        0 => None,
                        number => Some(RoomRole::from_number(number.into())?),
                    };
                    Change::SetMember { member, role }
                }
                _ => return None,
            }))
        }
    }
}

/// Does something to the room if it is still followed: `None` when it is not.
fn followed<R>(shared: &Shared, room: &Arc<Room>, act: impl FnOnce() -> R) -> Option<R> {
    let cell = shared.follower.lock(room.partition());
    cell.rooms.get(room.id()).filter(|followed| followed.is(room))?;
    Some(act())
}

/// Puts behind what was read what came meanwhile. True when nothing is missing.
fn settle(shared: &Arc<Shared>, room: &Arc<Room>, head: Head) -> bool {
    let (readers, mut gone, mut traced) = (room.readers(), false, Vec::new());
    let waiters = {
        let mut cell = shared.follower.lock(room.partition());
        let Some(followed) = cell.rooms.get_mut(room.id()).filter(|it| it.is(room)) else {
            return true;
        };
        let stash = followed.stash.take().unwrap_or_default();
        let mut lacking = stash.lacking;
        for mut delivery in stash.deliveries {
            let traces = std::mem::take(&mut delivery.traces);
            match put(shared, followed, delivery) {
                Fate::Taken => traced.extend(traces),
                Fate::Known => {}
                Fate::Lacking => lacking = true,
                Fate::Deleted => gone = true,
            }
        }
        if gone {
            forget(shared, &mut cell, room);
            Vec::new()
        } else if lacking || room.is_suspended() || room.head() < followed.want {
            followed.stash = Some(Stash::default());
            wake(room, &readers, &traced);
            return false;
        } else {
            room.prove(micros(head.began));
            followed.complete = followed.complete.max(head.seen);
            room.set_linked(followed.subscribed);
            std::mem::take(&mut followed.waiters)
        }
    };
    if gone {
        end(shared, room, &readers);
        return true;
    }
    wake(room, &readers, &traced);
    for waiter in waiters {
        let _ = waiter.send(Ok(Some(room.clone())));
    }
    shared.wake_halted();
    true
}

/// The room stays as it is, unproved, until it is looked at again.
fn give_up(shared: &Shared, room: &Arc<Room>, why: &Refusal) {
    let mut cell = shared.follower.lock(room.partition());
    let Some(followed) = cell.rooms.get_mut(room.id()).filter(|it| it.is(room)) else { return };
    followed.stash = None;
    followed.want = 0;
    followed.complete = 0;
    for waiter in std::mem::take(&mut followed.waiters) {
        let _ = waiter.send(Err(why.clone()));
    }
}
