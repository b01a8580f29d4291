//! The life of a message. Its text is not shown, only how long it is.

use std::sync::Arc;

use super::Parts;
use crate::chat::rules;
use crate::id;
use crate::principal::Principal;
use crate::proto::operate::v1 as pb;
use crate::proto::operate::v1::explain_message_request::Which;
use crate::refusal::{Refusal, Violations};
use crate::security::audit::AuditSubject;
use crate::security::permit::Permit;
use crate::store::chat::{Entry, EntryKind, KeyName, KeyRecord, MemberRecord, RoomId};
use crate::{clock, refusal};

/// Members that are shown.
const READERS: usize = 100;

/// Members among whom a message's sender is looked for.
const SENDERS: usize = 1_000;

/// One page of them.
const PAGE: u32 = 500;

/// A checked request.
struct Asked {
    room: RoomId,
    which: Named,
}

/// How a message is named.
enum Named {
    Seq(u64),
    Key(Arc<str>, Option<Principal>),
}

/// Any message, for those whom the contract lets ask.
pub(super) async fn explain(
    parts: &Parts,
    permit: &Permit,
    subject: &AuditSubject,
    request: pb::ExplainMessageRequest,
) -> Result<pb::ExplainMessageResponse, Refusal> {
    let Asked { room, which } = asked(permit, request)?;
    subject.set(&format!("room {room}"));
    let partition = parts.chat.partition(&room);
    let stands = parts.store.room(partition, &room).await?.filter(|room| !room.deleted);
    let head = stands.ok_or_else(|| Refusal::not_found("room"))?.head;
    let seq = match which {
        Named::Seq(seq) => seq,
        Named::Key(id, Some(sender)) => {
            let name = KeyName { room: room.clone(), sender, client_message_id: id };
            let found = parts.store.keys(partition, vec![name]).await?;
            found.into_iter().flatten().next().ok_or_else(|| Refusal::not_found("message"))?.seq
        }
        Named::Key(id, None) => by_key_of_members(parts, partition, &room, &id).await?,
    };
    subject.set(&format!("message {room} {seq}"));
    let found = parts.store.entries(partition, &room, seq.saturating_sub(1), 1, 1).await?;
    let entry = found.into_iter().next().filter(|entry| entry.seq == seq);
    let entry = entry.ok_or_else(|| Refusal::not_found("message"))?;
    let key = key_of(parts, partition, &entry).await?;
    let members = parts.store.members(partition, &room, "", READERS as u32 + 1).await?;
    let placement = placement(parts, partition, &room).await?;
    Ok(answer(parts, entry, key, head, members, placement))
}

fn asked(permit: &Permit, request: pb::ExplainMessageRequest) -> Result<Asked, Refusal> {
    let mut violations = Violations::new();
    let sound = id::is_short_name(&request.room_id);
    violations.check(sound, "room_id", || id::SHORT_NAME_RULE.to_owned());
    let domain = permit.principal().trust_domain();
    let sender = match request.sender.as_str() {
        "" => None,
        text => violations.take("sender", Principal::parse_in(text, &domain)),
    };
    let which = match request.which {
        Some(Which::Seq(seq)) => {
            violations.check(seq > 0, "seq", || "must be 1 or more".to_owned());
            Named::Seq(seq)
        }
        Some(Which::ClientMessageId(id)) => {
            rules::check_message_id(&mut violations, &id);
            Named::Key(id.into(), sender)
        }
        None => {
            violations.add("which", "either seq or client_message_id must be set");
            Named::Seq(0)
        }
    };
    violations.finish()?;
    Ok(Asked { room: request.room_id.into(), which })
}

/// The key of one of the room's members. A key table is looked up by sender, so
/// who has left must be named.
async fn by_key_of_members(
    parts: &Parts,
    partition: u16,
    room: &RoomId,
    id: &Arc<str>,
) -> Result<u64, Refusal> {
    let (mut after, mut looked) = (String::new(), 0);
    let mut found: Vec<u64> = Vec::new();
    while looked < SENDERS {
        let page = parts.store.members(partition, room, &after, PAGE).await?;
        let Some(last) = page.last() else { break };
        last.member.as_str().clone_into(&mut after);
        looked += page.len();
        let name = |member: MemberRecord| KeyName {
            room: room.clone(),
            sender: member.member,
            client_message_id: id.clone(),
        };
        let keys = parts.store.keys(partition, page.into_iter().map(name).collect()).await?;
        found.extend(keys.into_iter().flatten().map(|key| key.seq));
    }
    match found.as_slice() {
        [] => Err(Refusal::not_found("message")),
        [seq] => Ok(*seq),
        _ => {
            let mut violations = Violations::new();
            violations.add("sender", "must name one of the several members who used this id");
            violations.finish().map(|()| 0)
        }
    }
}

async fn key_of(
    parts: &Parts,
    partition: u16,
    entry: &Entry,
) -> Result<Option<KeyRecord>, Refusal> {
    if entry.client_message_id.is_empty() {
        return Ok(None);
    }
    let name = KeyName {
        room: entry.room.clone(),
        sender: entry.sender.clone(),
        client_message_id: entry.client_message_id.clone(),
    };
    let keys = parts.store.keys(partition, vec![name]).await?;
    // A key that was forgotten may have been used again.
    Ok(keys.into_iter().flatten().find(|key| key.seq == entry.seq))
}

async fn placement(
    parts: &Parts,
    partition: u16,
    room: &RoomId,
) -> Result<pb::Placement, refusal::Refusal> {
    let cluster = parts.cluster.cluster().await?;
    let row = cluster.partitions.into_iter().find(|row| row.partition == u32::from(partition));
    let row = row.unwrap_or_default();
    let here = parts.chat.room(room);
    let followers = parts.followers.as_ref().map(|links| links.followers(room));
    Ok(pb::Placement {
        partition: partition.into(),
        owner: row.owner,
        epoch: row.epoch,
        commit_no: row.commit_no,
        answered_by: parts.node_id.clone(),
        in_memory: here.is_some(),
        readers_here: here.map_or(0, |here| u32::try_from(here.readers).unwrap_or(u32::MAX)),
        followers: followers.unwrap_or_default(),
    })
}

fn answer(
    parts: &Parts,
    entry: Entry,
    key: Option<KeyRecord>,
    head: u64,
    members: Vec<MemberRecord>,
    placement: pb::Placement,
) -> pb::ExplainMessageResponse {
    let kept = i64::try_from(parts.message_ids_kept.as_micros()).unwrap_or(i64::MAX);
    let more_readers = members.len() > READERS;
    let text = entry.kind == EntryKind::Text;
    pb::ExplainMessageResponse {
        room_id: entry.room.to_string(),
        seq: entry.seq,
        kind: entry.kind.as_str().to_owned(),
        sender: entry.sender.to_string(),
        client_message_id: entry.client_message_id.to_string(),
        reply_to: entry.reply_to,
        body_bytes: if text { entry.body.len() as u64 } else { 0 },
        committed_at: Some(clock::timestamp(entry.committed_at)),
        key_kept_until: key.map(|key| clock::timestamp(key.committed_at.saturating_add(kept))),
        redactions: key.map_or(0, |key| key.redactions),
        room_head: head,
        readers: members.into_iter().take(READERS).map(reader).collect(),
        more_readers,
        placement: Some(placement),
    }
}

fn reader(record: MemberRecord) -> pb::Reader {
    pb::Reader {
        member: record.member.to_string(),
        role: record.role.as_str().to_owned(),
        joined_at: Some(clock::timestamp(record.joined_at)),
    }
}
