//! Frames as bytes.
//!
//! What one commit appended is encoded once, whoever follows it: a room's
//! append is a small head and the very bytes of the log. A message of a link is
//! put together of such parts; large ones are never copied.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use crate::chat::peers::{Delivery, RoomDelivery, Run};
use crate::principal::Principal;
use crate::proto::chat::v1 as chat;
use crate::proto::cluster::v1 as pb;
use crate::store::chat::{Change, RoomRole};

/// `LinkRequest.frames` and `LinkResponse.frames`.
const FRAMES: u32 = 1;
/// `ResponseFrame.append`.
const APPEND: u32 = 4;
/// `Append.rooms`.
const ROOMS: u32 = 4;
/// `RoomAppend.frames`.
const ENTRIES: u32 = 4;

/// Parts from this size on are handed over as they are, smaller ones are
/// copied together.
const LARGE: usize = 2048;

/// One frame, as it stands in a message, or a part of one.
#[derive(Debug, Clone, Default)]
pub(super) struct Encoded {
    parts: Vec<Bytes>,
    len: usize,
}

impl Encoded {
    /// Bytes.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn push(&mut self, part: Bytes) {
        self.len += part.len();
        self.parts.push(part);
    }

    fn extend(&mut self, other: &Encoded) {
        self.len += other.len;
        self.parts.extend_from_slice(&other.parts);
    }

    /// A frame of a `LinkRequest`.
    pub(super) fn request(frame: pb::request_frame::Frame) -> Self {
        Self::frame(&pb::RequestFrame { frame: Some(frame) })
    }

    /// A frame of a `LinkResponse`.
    pub(super) fn response(frame: pb::response_frame::Frame) -> Self {
        Self::frame(&pb::ResponseFrame { frame: Some(frame) })
    }

    fn frame(frame: &impl prost::Message) -> Self {
        let len = frame.encoded_len();
        let mut bytes = BytesMut::with_capacity(len + 8);
        begin(FRAMES, len, &mut bytes);
        frame.encode_raw(&mut bytes);
        let mut encoded = Self::default();
        encoded.push(bytes.freeze());
        encoded
    }

    /// An Append of rooms that [`room`] encoded.
    pub(super) fn append<'a>(
        delivery: &Delivery,
        rooms: impl Iterator<Item = &'a Encoded> + Clone,
    ) -> Self {
        let head = pb::Append {
            partition: delivery.partition.into(),
            epoch: delivery.epoch,
            commit_no: delivery.commit_no,
            rooms: Vec::new(),
        };
        let content = head.encoded_len() + rooms.clone().map(Encoded::len).sum::<usize>();
        let frame = key_len(APPEND) + encoded_len_varint(content as u64) + content;
        let mut bytes = BytesMut::with_capacity(head.encoded_len() + 24);
        begin(FRAMES, frame, &mut bytes);
        begin(APPEND, content, &mut bytes);
        head.encode_raw(&mut bytes);
        let mut encoded = Self::default();
        encoded.push(bytes.freeze());
        rooms.for_each(|room| encoded.extend(room));
        encoded
    }
}

/// The key and length of a field.
fn begin(field: u32, len: usize, into: &mut BytesMut) {
    encode_key(field, WireType::LengthDelimited, into);
    encode_varint(len as u64, into);
}

/// A room's part of an Append; one for each run.
pub(super) fn room(delivery: &RoomDelivery) -> Encoded {
    let mut encoded = Encoded::default();
    let mut runs = delivery.runs.iter().peekable();
    // What is not in runs goes with the last of them.
    loop {
        let run = runs.next();
        let last = runs.peek().is_none();
        encoded.extend(&room_append(delivery, run, last));
        if last {
            return encoded;
        }
    }
}

fn room_append(delivery: &RoomDelivery, run: Option<&Run>, last: bool) -> Encoded {
    let mut append = pb::RoomAppend {
        room_id: delivery.room.to_string(),
        first_seq: run.map_or(0, |run| run.first),
        ends: run.map(|run| run.ends.clone()).unwrap_or_default(),
        ..pb::RoomAppend::default()
    };
    if last {
        append.deleted = delivery.deleted;
        append.changes = delivery.changes.iter().map(change).collect();
        let trace = |(seq, traceparent): &(u64, String)| pb::EntryTrace {
            seq: *seq,
            traceparent: traceparent.clone(),
        };
        append.traces = delivery.traces.iter().map(trace).collect();
    }
    let entries = run.map(|run| run.bytes.clone()).filter(|bytes| !bytes.is_empty());
    let head = append.encoded_len();
    let tail = entries.as_ref().map_or(0, |entries| {
        key_len(ENTRIES) + encoded_len_varint(entries.len() as u64) + entries.len()
    });
    let mut bytes = BytesMut::with_capacity(head + 24);
    begin(ROOMS, head + tail, &mut bytes);
    append.encode_raw(&mut bytes);
    let mut encoded = Encoded::default();
    if let Some(entries) = &entries {
        begin(ENTRIES, entries.len(), &mut bytes);
    }
    encoded.push(bytes.freeze());
    entries.into_iter().for_each(|entries| encoded.push(entries));
    encoded
}

fn change(change: &Change) -> pb::StateChange {
    use pb::state_change::Change as Wire;
    let change = match change {
        // Nobody follows a room before it is there: whoever does reads it.
        Change::CreateRoom { .. } => None,
        Change::SetTitle { title } => Some(Wire::Title(title.clone())),
        Change::SetMember { member, role } => Some(Wire::Member(pb::MemberChange {
            member: member.to_string(),
            role: role.map_or(chat::RoomRole::Unspecified, crate::chat::wire::role).into(),
        })),
    };
    pb::StateChange { change }
}

/// What an owner sent. `None` when it is not what an owner sends.
pub(super) fn delivery(append: pb::Append) -> Option<Delivery> {
    let mut rooms: Vec<RoomDelivery> = Vec::with_capacity(append.rooms.len());
    for part in append.rooms {
        let begun = rooms.last_mut().filter(|room| *room.room == *part.room_id);
        let mut delivery = RoomDelivery {
            room: part.room_id.as_str().into(),
            runs: Vec::new(),
            changes: Vec::new(),
            traces: part.traces.into_iter().map(|trace| (trace.seq, trace.traceparent)).collect(),
            deleted: part.deleted,
        };
        if !part.frames.is_empty() || !part.ends.is_empty() {
            let ascending = part.ends.is_sorted_by(|a, b| a < b);
            let end = part.ends.last().and_then(|end| usize::try_from(*end).ok());
            if !ascending || part.first_seq == 0 || end != Some(part.frames.len()) {
                return None;
            }
            delivery.runs.push(Run { first: part.first_seq, ends: part.ends, bytes: part.frames });
        }
        match part.changes.into_iter().map(known).collect::<Option<Vec<_>>>() {
            Some(changes) => delivery.changes = changes,
            // Something of a newer release: without runs the room is read from
            // the store, which knows.
            None => delivery.runs.clear(),
        }
        match begun {
            None => rooms.push(delivery),
            Some(room) if delivery.runs.is_empty() => room.runs.clear(),
            Some(room) => {
                room.runs.append(&mut delivery.runs);
                room.changes.append(&mut delivery.changes);
                room.traces.append(&mut delivery.traces);
                room.deleted |= delivery.deleted;
            }
        }
    }
    let partition = u16::try_from(append.partition).ok()?;
    Some(Delivery { partition, epoch: append.epoch, commit_no: append.commit_no, rooms })
}

fn known(change: pb::StateChange) -> Option<Change> {
    use pb::state_change::Change as Wire;
    Some(match change.change? {
        Wire::Title(title) => Change::SetTitle { title },
        Wire::Member(member) => {
            let role = match chat::RoomRole::try_from(member.role).ok()? {
                chat::RoomRole::Unspecified => None,
                role => Some(RoomRole::from_number(i64::from(i32::from(role)))?),
            };
            Change::SetMember { member: member.member.parse::<Principal>().ok()?, role }
        }
    })
}

/// A whole gRPC message of these frames, as DATA: small parts copied together,
/// large ones as they are.
pub(super) fn message(frames: &[Encoded], out: &mut std::collections::VecDeque<Bytes>) {
    let len: usize = frames.iter().map(Encoded::len).sum();
    let mut small = BytesMut::with_capacity(len.min(LARGE * 4) + 5);
    small.put_u8(0);
    // The batch is bounded far below 4 GiB.
    small.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
    for part in frames.iter().flat_map(|frame| &frame.parts) {
        if part.len() < LARGE {
            small.extend_from_slice(part);
        } else {
            if !small.is_empty() {
                out.push_back(small.split().freeze());
            }
            out.push_back(part.clone());
        }
    }
    if !small.is_empty() {
        out.push_back(small.freeze());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    fn run(first: u64, size: usize) -> Run {
        let half = u32::try_from(size / 2).expect("small");
        let ends = vec![half, u32::try_from(size).expect("small")];
        Run { first, ends, bytes: vec![7; size].into() }
    }

    fn room_of(id: &str, runs: Vec<Run>) -> RoomDelivery {
        let member = "user/bob@corp.test".parse().expect("a principal");
        RoomDelivery {
            room: id.into(),
            runs,
            changes: vec![
                Change::SetTitle { title: "T".into() },
                Change::SetMember { member, role: Some(RoomRole::Reader) },
            ],
            traces: vec![(2, "00-1-2-01".into())],
            deleted: false,
        }
    }

    fn sent(frames: &[Encoded]) -> pb::LinkResponse {
        let mut out = VecDeque::new();
        message(frames, &mut out);
        let whole: Vec<u8> = out.iter().flat_map(|part| part.to_vec()).collect();
        let (prefix, message) = whole.split_at(5);
        assert_eq!(prefix[0], 0);
        assert_eq!(u32::from_be_bytes(prefix[1..].try_into().expect("four")), message.len() as u32);
        pb::LinkResponse::decode(Bytes::copy_from_slice(message)).expect("a message")
    }

    #[test]
    fn an_append_arrives_as_it_was_and_large_bytes_are_not_copied() {
        let rooms = vec![
            room_of("r1", vec![run(1, 100), run(9, 10_000)]),
            RoomDelivery { deleted: true, changes: vec![], ..room_of("r2", vec![]) },
        ];
        let whole = Delivery { partition: 3, epoch: 4, commit_no: 5, rooms };
        let encoded: Vec<_> = whole.rooms.iter().map(room).collect();
        let frame = Encoded::append(&whole, encoded.iter());
        let ping = Encoded::response(pb::response_frame::Frame::Pong(pb::Pong::default()));
        let mut out = VecDeque::new();
        message(&[ping.clone(), frame.clone()], &mut out);
        let large = &whole.rooms[0].runs[1].bytes;
        assert!(out.iter().any(|part| part.as_ptr() == large.as_ptr()), "copied");

        let frames = sent(&[ping, frame]).frames;
        assert_eq!(frames.len(), 2);
        let Some(pb::response_frame::Frame::Append(append)) = frames[1].frame.clone() else {
            panic!("no append: {frames:?}");
        };
        assert_eq!(format!("{:?}", delivery(append)), format!("{:?}", Some(whole)));
    }

    #[test]
    fn an_unknown_change_makes_the_room_be_read_and_nonsense_is_nothing() {
        let part = pb::RoomAppend {
            room_id: "r".into(),
            first_seq: 1,
            ends: vec![2],
            frames: Bytes::from_static(b"ab"),
            changes: vec![pb::StateChange { change: None }],
            ..pb::RoomAppend::default()
        };
        let append = |part| pb::Append { partition: 1, epoch: 1, commit_no: 1, rooms: vec![part] };
        let read = delivery(append(part.clone())).expect("understood");
        assert!(read.rooms[0].runs.is_empty());
        let fine = pb::RoomAppend { changes: vec![], ..part };
        assert!(delivery(append(fine.clone())).is_some());
        for spoilt in [
            pb::RoomAppend { ends: vec![1], ..fine.clone() },
            pb::RoomAppend { ends: vec![2, 2], ..fine.clone() },
            pb::RoomAppend { ends: vec![], ..fine.clone() },
            pb::RoomAppend { first_seq: 0, ..fine },
        ] {
            assert!(delivery(append(spoilt)).is_none());
        }
    }
}
