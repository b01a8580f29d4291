//! The store's records as the contract's messages.

use prost::Message as _;

use crate::chat::{RoomAccess, receipts, rules};
use crate::clock;
use crate::proto::chat::v1 as pb;
use crate::store::StoreError;
use crate::store::chat::{Entry, EntryKind, MemberRecord, RoomRecord, RoomRole};

/// The entry as readers get it.
pub(super) fn message(entry: &Entry) -> Result<pb::Message, StoreError> {
    let corrupt = |what: &str| StoreError::Corrupt(format!("chat: {what}"));
    let (body, event) = if entry.kind == EntryKind::Text {
        let body = std::str::from_utf8(&entry.body).map_err(|_| corrupt("a text not UTF-8"))?;
        (body.to_owned(), None)
    } else {
        let event = pb::Message::decode(entry.body.clone())
            .map_err(|_| corrupt("an event that does not decode"))?
            .event;
        (String::new(), event)
    };
    // The name under which a receipt was posted is the node's own.
    let named = !receipts::is_key(&entry.client_message_id);
    let client_message_id = if named { entry.client_message_id.to_string() } else { String::new() };
    Ok(pb::Message {
        room_id: entry.room.to_string(),
        seq: entry.seq,
        sender: entry.sender.to_string(),
        kind: i32::from(entry.kind as u8),
        body,
        committed_at: Some(clock::timestamp(entry.committed_at)),
        client_message_id,
        reply_to: entry.reply_to,
        event,
    })
}

pub(super) fn room(room: &str, access: RoomAccess) -> pb::Room {
    pb::Room {
        room_id: room.to_owned(),
        title: access.title,
        created_by: access.created_by.to_string(),
        created_at: Some(clock::timestamp(access.created_at)),
        head: access.head,
        role: rules::number(Some(access.role)),
    }
}

pub(super) fn listed((room, role): (RoomRecord, RoomRole)) -> pb::Room {
    pb::Room {
        room_id: room.room.to_string(),
        title: room.title,
        created_by: room.created_by.to_string(),
        created_at: Some(clock::timestamp(room.created_at)),
        head: room.head,
        role: rules::number(Some(role)),
    }
}

pub(super) fn member(record: &MemberRecord) -> pb::Member {
    pb::Member {
        principal: record.member.to_string(),
        role: rules::number(Some(record.role)),
        joined_at: Some(clock::timestamp(record.joined_at)),
    }
}
