//! What goes out on a `Chat` stream, as bytes.
//!
//! gRPC puts five bytes before a message: 0 (not compressed) and the length.
//! An entry is encoded once, here, for all who read it.

use bytes::{BufMut, Bytes};
use prost::Message as _;
use tonic::Status;

use super::{job, receipts};
use crate::clock;
use crate::proto::chat::v1 as pb;
use crate::proto::chat::v1::chat_response::Frame;
use crate::refusal::Refusal;
use crate::store::chat::{Entry, EntryKind, RoomRole};

/// The gRPC prefix of a message.
const PREFIX: usize = 5;

/// The entry as readers see it. An event that does not decode is left out: the
/// entry then has its kind and no more.
pub fn message(entry: &Entry) -> pb::Message {
    let mut message = match entry.kind {
        EntryKind::Text => pb::Message {
            body: String::from_utf8_lossy(&entry.body).into_owned(),
            ..pb::Message::default()
        },
        _ => pb::Message::decode(entry.body.clone()).unwrap_or_default(),
    };
    message.room_id = entry.room.to_string();
    message.seq = entry.seq;
    message.sender = entry.sender.to_string();
    message.kind = kind(entry.kind).into();
    message.committed_at = Some(clock::timestamp(entry.committed_at));
    // The names under which a receipt was posted, or a call was sent to another
    // node, are the nodes' own.
    let name = &entry.client_message_id;
    if !receipts::is_key(name) && !job::is_call(name) {
        message.client_message_id = entry.client_message_id.to_string();
    }
    message.reply_to = entry.reply_to;
    message
}

/// The entry as a frame of a `Chat` stream.
pub fn frame(entry: &Entry) -> Bytes {
    let response = response(entry);
    let mut bytes = Vec::with_capacity(framed_len(&response));
    put(&mut bytes, &response);
    bytes.into()
}

/// The contract's role.
pub fn role(role: RoomRole) -> pb::RoomRole {
    match role {
        RoomRole::Owner => pb::RoomRole::Owner,
        RoomRole::Moderator => pb::RoomRole::Moderator,
        RoomRole::Member => pb::RoomRole::Member,
        RoomRole::Reader => pb::RoomRole::Reader,
    }
}

/// The entry in the stream's message.
pub(crate) fn response(entry: &Entry) -> pb::ChatResponse {
    pb::ChatResponse { frame: Some(Frame::Message(message(entry))) }
}

/// A refusal as the answer to a frame.
pub(crate) fn failed(room: &str, client_message_id: &str, refusal: Refusal) -> Frame {
    let status = Status::from(refusal);
    // The details of a status are an encoded google.rpc.Status.
    let details = tonic_types::pb::Status::decode(status.details())
        .map(|rich| rich.details)
        .unwrap_or_default();
    Frame::Failed(pb::Failed {
        room_id: room.into(),
        client_message_id: client_message_id.into(),
        code: status.code().into(),
        message: status.message().into(),
        details,
    })
}

/// How many bytes [`put`] writes.
pub(crate) fn framed_len(response: &pb::ChatResponse) -> usize {
    PREFIX + response.encoded_len()
}

/// Writes a message with its prefix.
pub(crate) fn put(into: &mut impl BufMut, response: &pb::ChatResponse) {
    into.put_u8(0);
    // Messages are bounded far below 4 GiB by the limits on what comes in.
    into.put_u32(u32::try_from(response.encoded_len()).unwrap_or(u32::MAX));
    response.encode_raw(into);
}

fn kind(kind: EntryKind) -> pb::MessageKind {
    match kind {
        EntryKind::Text => pb::MessageKind::Text,
        EntryKind::Membership => pb::MessageKind::Membership,
        EntryKind::Payment => pb::MessageKind::Payment,
        EntryKind::Room => pb::MessageKind::Room,
    }
}
