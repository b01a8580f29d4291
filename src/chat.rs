//! Conversations: rooms, the log of entries, sessions that read it.
//!
//! Whoever wants something appended makes a [`Proposal`] and hands it to a
//! [`Router`], which brings it to the owner of the room's partition. The owner
//! decides by the room's rules, appends with others in one commit, and answers
//! with [`Published`] once that is durable.

mod follower;
pub mod inspect;
mod job;
mod log;
pub mod metrics;
mod owner;
mod partitions;
pub mod peers;
pub mod receipts;
pub mod rules;
pub mod service;
mod session;
mod sessions;
pub mod start;
pub mod stream;
#[cfg(test)]
mod testing;
mod trace;
pub mod wire;

use std::sync::Arc;

use async_trait::async_trait;

use crate::principal::Principal;
use crate::proto::chat::v1 as pb;
use crate::refusal::Refusal;
use crate::store::chat::{RoomId, RoomRole};

pub use job::Job;
pub use metrics::ChatMetrics;
pub use peers::{Partitions, Peers};
pub use start::Chat;
pub use stream::ChatRoute;

/// What somebody wants appended to a room.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// The room.
    pub room: RoomId,
    /// Who wants it.
    pub sender: Principal,
    /// The sender's own name for it; empty where the contract has none.
    pub client_message_id: Arc<str>,
    /// The sender's own name for what must stand in the room before it.
    pub after: Option<Arc<str>>,
    /// What it is.
    pub content: Content,
}

/// What is proposed.
#[derive(Debug, Clone)]
pub enum Content {
    /// A message.
    Text {
        /// As the sender wrote it; the owner redacts it before anything else.
        body: String,
        /// The seq that it answers; 0 for none.
        reply_to: u64,
    },
    /// The room begins.
    CreateRoom {
        /// The title.
        title: String,
    },
    /// The room gets another title.
    SetTitle {
        /// The title.
        title: String,
    },
    /// Somebody becomes a member; refused for who is one with another role.
    AddMember {
        /// Who.
        member: Principal,
        /// As what.
        role: RoomRole,
    },
    /// Somebody is a member no more; `member` is the sender to leave.
    RemoveMember {
        /// Who.
        member: Principal,
    },
    /// A member gets another role.
    SetRole {
        /// Who.
        member: Principal,
        /// The role.
        role: RoomRole,
    },
    /// A payment's receipt; the sender is the payer.
    Receipt(pb::PaymentReceipt),
    /// The room ends. Nothing is appended: the seq of its outcome is 0.
    DeleteRoom,
}

/// A durable entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Its position; 0 when nothing needed to change (adding a member again).
    pub seq: u64,
    /// Microseconds since 1970.
    pub committed_at: i64,
    /// How many card numbers were redacted.
    pub redactions: u32,
}

/// Brings proposals to the owner of their room.
#[async_trait]
pub trait Router: Send + Sync + std::fmt::Debug {
    /// Returns when the entry is durable. Idempotent where the proposal has a
    /// client message id. Dropping the future leaves it open whether it is
    /// appended.
    async fn publish(&self, proposal: Proposal) -> Result<Published, Refusal>;

    /// Deletes a room, for an owner of it.
    async fn delete_room(&self, room: RoomId, sender: Principal) -> Result<(), Refusal>;
}

/// What a member has of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomAccess {
    /// What it may do.
    pub role: RoomRole,
    /// The newest entry's seq.
    pub head: u64,
    /// What people see.
    pub title: String,
    /// Who created the room.
    pub created_by: Principal,
    /// Microseconds since 1970.
    pub created_at: i64,
}

/// Answers who may read a room, as fresh as reading asks for (at most a second
/// old).
#[async_trait]
pub trait RoomsView: Send + Sync + std::fmt::Debug {
    /// What the principal has of the room; `None` for who is no member, and
    /// where there is no such room: the two look alike from outside.
    async fn access(
        &self,
        room: &RoomId,
        principal: &Principal,
    ) -> Result<Option<RoomAccess>, Refusal>;
}

/// Limits how many frames a principal sends on its streams.
pub trait FrameLimit: Send + Sync + std::fmt::Debug {
    /// Takes a place for one frame, or says when to go on: the frame is then
    /// refused and not executed.
    fn take(&self, principal: &Principal) -> Result<(), std::time::Duration>;
}
