//! The rules of a room: who may do what, and what a proposal becomes.
//!
//! Pure: the owner of a room's partition calls [`decide`] with the state that
//! all entries before have made, appends what it says, and then brings the
//! state on with [`RoomState::apply`]. So two proposals can never both pass on
//! the same view (the last two owners leaving at once, say).
//!
//! Card numbers are redacted here, before anything is hashed or stored.

mod digest;

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message as _;

use super::{Content, Proposal, wire};
use crate::principal::Principal;
use crate::proto::chat::v1 as pb;
use crate::proto::chat::v1::message::Event;
use crate::refusal::{Reason, Refusal, Violations};
use crate::store::chat::{Change, EntryKind, RoomId, RoomRole};
use crate::{card, id};

/// The longest title, bytes.
pub const MAX_TITLE_BYTES: usize = 256;

/// A room as its entries have made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomState {
    /// The room.
    pub room: RoomId,
    /// What people see.
    pub title: String,
    /// Who created it.
    pub created_by: Principal,
    /// Microseconds since 1970.
    pub created_at: i64,
    /// The newest entry's seq; whoever appends raises it.
    pub head: u64,
    /// Every member with its role.
    pub members: HashMap<Principal, RoomRole>,
}

impl RoomState {
    /// What an entry changes beside the log. The head stays: entries without a
    /// change raise it too.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::CreateRoom { title } => {
                self.title.clone_from(title);
                self.members.insert(self.created_by.clone(), RoomRole::Owner);
            }
            Change::SetTitle { title } => self.title.clone_from(title),
            Change::SetMember { member, role: Some(role) } => {
                self.members.insert(member.clone(), *role);
            }
            Change::SetMember { member, role: None } => {
                self.members.remove(member);
            }
        }
    }

    /// The member's role.
    pub fn role(&self, member: &Principal) -> Option<RoomRole> {
        self.members.get(member).copied()
    }

    fn is_last_owner(&self, member: &Principal) -> bool {
        self.role(member) == Some(RoomRole::Owner)
            && self.members.values().filter(|role| **role == RoomRole::Owner).count() == 1
    }
}

/// What is too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest body, bytes.
    pub max_body_bytes: usize,
}

/// What a proposal becomes.
#[derive(Debug, Clone)]
pub enum Decision {
    /// It is so already; nothing is appended.
    Nothing,
    /// An entry.
    Append {
        /// What it is.
        kind: EntryKind,
        /// As the store keeps it.
        body: Bytes,
        /// The seq that it answers; 0 for none.
        reply_to: u64,
        /// How many card numbers were redacted.
        redactions: u32,
        /// What changes with it.
        change: Option<Change>,
        /// What must be the same when the client message id comes again.
        digest: [u8; 32],
    },
}

/// Decides by the room's state; `None` when there is no such room. A room that
/// was deleted is not there for anybody, but its id is [`taken`].
pub fn decide(
    room: Option<&RoomState>,
    proposal: &Proposal,
    limits: &Limits,
) -> Result<Decision, Refusal> {
    let sender = &proposal.sender;
    if let Content::CreateRoom { title } = &proposal.content {
        return if room.is_some() { Err(taken()) } else { create(title) };
    }
    let (room, role) = room
        .and_then(|room| Some((room, room.role(sender)?)))
        .ok_or_else(|| Refusal::not_found("room"))?;
    match &proposal.content {
        Content::CreateRoom { .. } => Err(taken()),
        Content::Text { body, reply_to } => text(room, role, body, *reply_to, limits),
        Content::SetTitle { title } => set_title(room, role, title),
        Content::AddMember { member, role: new } => add(room, role, member, *new),
        Content::RemoveMember { member } if member == sender => leave(room, role, member),
        Content::RemoveMember { member } => remove(room, role, member),
        Content::SetRole { member, role: new } => set_role(room, role, member, *new),
        Content::Receipt(receipt) => self::receipt(sender, receipt),
        // Deletions are no entries: [`may_delete`] decides them.
        Content::DeleteRoom => Err(not_allowed("a room is not deleted by an entry")),
    }
}

/// Whether the member may delete its room; `None` when there is no such room.
pub fn may_delete(room: Option<&RoomState>, sender: &Principal) -> Result<(), Refusal> {
    match room.and_then(|room| room.role(sender)) {
        None => Err(Refusal::not_found("room")),
        Some(RoomRole::Owner) => Ok(()),
        Some(_) => Err(not_allowed("only owners delete a room")),
    }
}

/// The refusal of a room id that is or was in use.
pub fn taken() -> Refusal {
    Refusal::new(Reason::AlreadyExists, "the room id is taken")
}

fn not_allowed(rule: &str) -> Refusal {
    Refusal::new(Reason::NotAllowed, rule)
}

fn create(title: &str) -> Result<Decision, Refusal> {
    check_title(title)?;
    let (title, redactions) = card::redact(title);
    let change = Change::CreateRoom { title: title.clone().into_owned() };
    Ok(room_entry(&title, redactions, change))
}

fn set_title(room: &RoomState, role: RoomRole, title: &str) -> Result<Decision, Refusal> {
    if role > RoomRole::Moderator {
        return Err(not_allowed("only owners and moderators change the title"));
    }
    check_title(title)?;
    let (title, redactions) = card::redact(title);
    if room.title == title {
        return Ok(Decision::Nothing);
    }
    let change = Change::SetTitle { title: title.clone().into_owned() };
    Ok(room_entry(&title, redactions, change))
}

fn check_title(title: &str) -> Result<(), Refusal> {
    let mut violations = Violations::new();
    violations.check(title.len() <= MAX_TITLE_BYTES, "title", || {
        format!("must have at most {MAX_TITLE_BYTES} bytes; it has {}", title.len())
    });
    violations.finish()
}

fn room_entry(title: &str, redactions: u32, change: Change) -> Decision {
    let event = Event::Room(pb::RoomChange { title: title.to_owned() });
    Decision::Append {
        kind: EntryKind::Room,
        body: encode(event),
        reply_to: 0,
        redactions,
        digest: digest::room(title),
        change: Some(change),
    }
}

fn text(
    room: &RoomState,
    role: RoomRole,
    body: &str,
    reply_to: u64,
    limits: &Limits,
) -> Result<Decision, Refusal> {
    if role > RoomRole::Member {
        return Err(not_allowed("readers do not send"));
    }
    let mut violations = Violations::new();
    check_body(&mut violations, body, limits.max_body_bytes);
    violations.check(reply_to <= room.head, "reply_to", || {
        "must be the seq of an entry of the room, or 0".to_owned()
    });
    violations.finish()?;
    let (body, redactions) = card::redact(body);
    Ok(Decision::Append {
        kind: EntryKind::Text,
        digest: digest::text(&body, reply_to),
        body: Bytes::from(body.into_owned()),
        reply_to,
        redactions,
        change: None,
    })
}

/// What a proposal's digest is, whether or not it may be appended now.
pub fn digest_of(content: &Content) -> [u8; 32] {
    match content {
        Content::Text { body, reply_to } => digest::text(&card::redact(body).0, *reply_to),
        Content::CreateRoom { title } | Content::SetTitle { title } => {
            digest::room(&card::redact(title).0)
        }
        Content::AddMember { member, role } | Content::SetRole { member, role } => {
            digest::membership(member, Some(*role))
        }
        Content::RemoveMember { member } => digest::membership(member, None),
        Content::Receipt(receipt) => digest::receipt(receipt),
        Content::DeleteRoom => digest::deletion(),
    }
}

/// Notes what is no room's id. Ids are kept, logged and shown as they are: a
/// card number must not become one.
pub fn check_room_id(violations: &mut Violations, text: &str) {
    violations.check(id::is_short_name(text), "room_id", || id::SHORT_NAME_RULE.to_owned());
    violations.check(!card::contains(text), "room_id", || card::RULE.to_owned());
}

/// Notes what is no client message id.
pub fn check_message_id(violations: &mut Violations, text: &str) {
    let field = "client_message_id";
    violations.check(id::is_client_key(text), field, || id::CLIENT_KEY_RULE.to_owned());
    violations.check(!card::contains(text), field, || card::RULE.to_owned());
}

/// Notes the name of a message before it that is no name; none is well.
pub fn check_after(violations: &mut Violations, text: &str) {
    let holds = text.is_empty() || id::is_client_key(text);
    violations.check(holds, "after", || id::CLIENT_KEY_RULE.to_owned());
}

/// Notes a body that is empty or too long.
pub fn check_body(violations: &mut Violations, body: &str, max: usize) {
    violations.check((1..=max).contains(&body.len()), "body", || {
        format!("must have 1 to {max} bytes of UTF-8; it has {}", body.len())
    });
}

fn add(
    room: &RoomState,
    by: RoomRole,
    member: &Principal,
    role: RoomRole,
) -> Result<Decision, Refusal> {
    if by > RoomRole::Moderator {
        return Err(not_allowed("only owners and moderators add members"));
    }
    if role <= RoomRole::Moderator && by != RoomRole::Owner {
        return Err(not_allowed("only owners add owners and moderators"));
    }
    match room.role(member) {
        None => Ok(membership(member, None, Some(role))),
        Some(same) if same == role => Ok(Decision::Nothing),
        Some(_) => Err(Refusal::new(
            Reason::AlreadyExists,
            "it is a member with another role; SetMemberRole changes it",
        )),
    }
}

fn leave(room: &RoomState, role: RoomRole, member: &Principal) -> Result<Decision, Refusal> {
    if room.is_last_owner(member) {
        return Err(last_owner());
    }
    Ok(membership(member, Some(role), None))
}

fn remove(room: &RoomState, by: RoomRole, member: &Principal) -> Result<Decision, Refusal> {
    if by > RoomRole::Moderator {
        return Err(not_allowed("only owners and moderators remove members"));
    }
    let role = room.role(member).ok_or_else(|| Refusal::not_found("member"))?;
    if role <= RoomRole::Moderator && by != RoomRole::Owner {
        return Err(not_allowed("only owners remove owners and moderators"));
    }
    // Whoever removes an owner is another one, so one stays.
    Ok(membership(member, Some(role), None))
}

fn set_role(
    room: &RoomState,
    by: RoomRole,
    member: &Principal,
    role: RoomRole,
) -> Result<Decision, Refusal> {
    if by != RoomRole::Owner {
        return Err(not_allowed("only owners change roles"));
    }
    let before = room.role(member).ok_or_else(|| Refusal::not_found("member"))?;
    if before == role {
        return Ok(Decision::Nothing);
    }
    if room.is_last_owner(member) {
        return Err(last_owner());
    }
    Ok(membership(member, Some(before), Some(role)))
}

fn last_owner() -> Refusal {
    Refusal::new(Reason::LastOwner, "a room keeps at least one owner")
}

fn membership(member: &Principal, before: Option<RoomRole>, after: Option<RoomRole>) -> Decision {
    let event = Event::Membership(pb::MembershipChange {
        member: member.as_str().to_owned(),
        before: role_or_none(before).into(),
        after: role_or_none(after).into(),
    });
    Decision::Append {
        kind: EntryKind::Membership,
        body: encode(event),
        reply_to: 0,
        redactions: 0,
        digest: digest::membership(member, after),
        change: Some(Change::SetMember { member: member.clone(), role: after }),
    }
}

fn receipt(payer: &Principal, receipt: &pb::PaymentReceipt) -> Result<Decision, Refusal> {
    let mut violations = Violations::new();
    let some = || "must not be empty".to_owned();
    violations.check(!receipt.payment_id.is_empty(), "payment_id", some);
    violations.check(!receipt.status.is_empty(), "status", some);
    violations.check(receipt.payer == payer.as_str(), "payer", || {
        "must be the one who posts the receipt".to_owned()
    });
    violations.finish()?;
    Ok(Decision::Append {
        kind: EntryKind::Payment,
        body: encode(Event::Payment(receipt.clone())),
        reply_to: 0,
        redactions: 0,
        change: None,
        digest: digest::receipt(receipt),
    })
}

fn encode(event: Event) -> Bytes {
    pb::Message { event: Some(event), ..Default::default() }.encode_to_vec().into()
}

/// The contract's role; unspecified for none.
fn role_or_none(role: Option<RoomRole>) -> pb::RoomRole {
    role.map_or(pb::RoomRole::Unspecified, wire::role)
}

#[cfg(test)]
mod tests;
