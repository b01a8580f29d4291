//! Joining and leaving rooms.

use std::sync::Arc;

use super::input::Input;
use super::{Joined, Reader};
use crate::chat::owner::{OPEN_TRIES, Room, not_owner};
use crate::chat::{follower, rules, wire};
use crate::fault::{self, Plant};
use crate::proto::chat::v1 as pb;
use crate::proto::chat::v1::chat_response::Frame;
use crate::proto::chat::v1::join::From;
use crate::refusal::{Reason, Refusal, Violations};
use crate::store::chat::RoomId;

/// How many entries `last_n` may ask for.
const LAST_N: u32 = 10_000;

impl Input {
    /// Joins a room. A room that is joined already is joined anew: the cursor
    /// moves to where the frame says, and the answer is another Joined.
    pub(super) async fn join(&self, join: &pb::Join) -> Result<(), Refusal> {
        check(join)?;
        let id: RoomId = join.room_id.as_str().into();
        for _ in 0..OPEN_TRIES {
            let room = self.owner.open(&id).await?.ok_or_else(|| Refusal::not_found("room"))?;
            self.owner.check_fresh(&room)?;
            if let From::Cursor(cursor) = from(join)
                && cursor > room.head()
            {
                self.ask_store(&room, cursor).await?;
            }
            if self.enter(&room, from(join))? {
                return Ok(());
            }
        }
        Err(not_owner())
    }

    /// A client that comes from elsewhere may know more than this memory.
    async fn ask_store(&self, room: &Arc<Room>, cursor: u64) -> Result<(), Refusal> {
        let shared = self.owner.shared();
        let record = shared.store.room(room.partition(), room.id()).await?;
        follower::look(shared, room);
        if record.is_some_and(|record| !record.deleted && cursor <= record.head) {
            return Ok(());
        }
        // Nobody but a member learns that the room is there.
        match room.access(self.session.principal()) {
            Ok(Some(_)) => Err(Refusal::new(
                Reason::CursorAhead,
                "the cursor is ahead of the room's newest entry",
            )),
            _ => Err(Refusal::not_found("room")),
        }
    }

    /// Becomes a reader and says so. False when the room left memory.
    fn enter(&self, room: &Arc<Room>, from: From) -> Result<bool, Refusal> {
        let session = &self.session;
        let mut reading = session.reading();
        if session.closed.load(std::sync::atomic::Ordering::Acquire) {
            return Ok(true);
        }
        // Those whose membership ended may still stand here until the body is
        // polled again: they are not joined any more.
        reading.rooms.retain(|joined| !joined.reader.has_ended());
        let place = reading.rooms.iter().position(|joined| joined.room.id() == room.id());
        let max = self.owner.shared().config.max_joined_rooms;
        if place.is_none() && reading.rooms.len() >= max {
            let why = format!("a stream joins at most {max} rooms");
            return Err(Refusal::new(Reason::TooManyStreams, why));
        }
        let reader = Reader::new(session.clone(), room.id().clone());
        let mut cursor = 0;
        let entered = room.enter(&reader, |head, role| {
            cursor = match from {
                From::Cursor(cursor) => cursor
                    .saturating_add(fault::planted(Plant::CursorOff).into())
                    .min(head.max(cursor)),
                From::Latest(_) => head,
                From::Earliest(_) => 0,
                From::LastN(n) => head.saturating_sub(u64::from(n)),
            };
            session.push(Frame::Joined(pb::Joined {
                room_id: room.id().to_string(),
                head,
                cursor,
                role: wire::role(role).into(),
            }));
        });
        match entered {
            Err(_) => return Ok(false),
            Ok(false) => return Err(Refusal::not_found("room")),
            Ok(true) => {}
        }
        let joined = Joined { room: room.clone(), reader, cursor, lagging: false, goal: u64::MAX };
        match place.and_then(|index| reading.rooms.get_mut(index)) {
            Some(place) => {
                let before = std::mem::replace(place, joined);
                before.room.leave(&before.reader);
            }
            None => reading.rooms.push(joined),
        }
        Ok(true)
    }

    /// Leaves a room.
    pub(super) fn leave(&self, leave: &pb::Leave) -> Result<(), Refusal> {
        let mut reading = self.session.reading();
        let index = reading
            .rooms
            .iter()
            .position(|joined| **joined.room.id() == *leave.room_id)
            .ok_or_else(not_joined)?;
        let joined = reading.rooms.swap_remove(index);
        joined.room.leave(&joined.reader);
        Ok(())
    }

    /// The joined room of that id, and its partition.
    pub(super) fn joined(&self, room_id: &str) -> Result<(RoomId, u16), Refusal> {
        let reading = self.session.reading();
        reading
            .rooms
            .iter()
            .find(|joined| **joined.room.id() == *room_id && !joined.reader.has_ended())
            .map(|joined| (joined.room.id().clone(), joined.room.partition()))
            .ok_or_else(not_joined)
    }
}

fn not_joined() -> Refusal {
    Refusal::new(Reason::NotJoined, "the room was not joined on this stream")
}

fn from(join: &pb::Join) -> From {
    join.from.unwrap_or(From::Latest(true))
}

fn check(join: &pb::Join) -> Result<(), Refusal> {
    let mut violations = Violations::new();
    rules::check_room_id(&mut violations, &join.room_id);
    match from(join) {
        From::Latest(holds) => violations.check(holds, "latest", || "must be true".into()),
        From::Earliest(holds) => violations.check(holds, "earliest", || "must be true".into()),
        From::LastN(n) => violations
            .check((1..=LAST_N).contains(&n), "last_n", || format!("must be 1 to {LAST_N}")),
        From::Cursor(cursor) => {
            violations.check(cursor < u64::MAX, "cursor", || "is no seq".into());
        }
    }
    violations.finish()
}
