//! The store's records as the contract's messages.

use crate::chat::{RoomAccess, wire};
use crate::clock;
use crate::proto::chat::v1 as pb;
use crate::store::chat::{MemberRecord, RoomRecord, RoomRole};

pub(super) fn room(room: &str, access: RoomAccess) -> pb::Room {
    pb::Room {
        room_id: room.to_owned(),
        title: access.title,
        created_by: access.created_by.to_string(),
        created_at: Some(clock::timestamp(access.created_at)),
        head: access.head,
        role: wire::role(access.role).into(),
    }
}

pub(super) fn listed((room, role): (RoomRecord, RoomRole)) -> pb::Room {
    pb::Room {
        room_id: room.room.to_string(),
        title: room.title,
        created_by: room.created_by.to_string(),
        created_at: Some(clock::timestamp(room.created_at)),
        head: room.head,
        role: wire::role(role).into(),
    }
}

pub(super) fn member(record: &MemberRecord) -> pb::Member {
    pb::Member {
        principal: record.member.to_string(),
        role: wire::role(record.role).into(),
        joined_at: Some(clock::timestamp(record.joined_at)),
    }
}
