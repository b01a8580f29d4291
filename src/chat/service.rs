//! The calls of `ChatService` but `Chat` itself, which the session serves.
//!
//! A call that changes something becomes a [`Proposal`] for the owner of the
//! room; the rules are decided there ([`super::rules`]), not here. Here the
//! fields are checked, every violated one at once, and the answers are put
//! together. What reads a room proves membership first: for others there is no
//! such room.

mod convert;
mod fields;
mod members;
mod messages;
mod page;
mod rooms;

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{Content, Proposal, Published, RoomAccess, RoomsView, Router, job};
use crate::id;
use crate::principal::Principal;
use crate::proto::chat::v1 as pb;
use crate::proto::chat::v1::chat_service_server::{ChatService, ChatServiceServer};
use crate::refusal::Refusal;
use crate::security::audit::AuditSubject;
use crate::security::permit::Permit;
use crate::store::ChatStore;
use crate::store::chat::{RoomId, partition_of};
use crate::traffic::deadline::Deadline;

/// What is too much.
#[derive(Debug, Clone, Copy)]
pub struct ApiLimits {
    /// The largest body, bytes.
    pub max_body_bytes: usize,
    /// The largest request message, bytes.
    pub max_message_bytes: usize,
    /// Entries that GetMessages reads from the store at once.
    pub page_entries: u32,
}

/// The unary calls and GetMessages. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ChatApi {
    router: Arc<dyn Router>,
    view: Arc<dyn RoomsView>,
    store: Arc<dyn ChatStore>,
    partitions: u16,
    limits: ApiLimits,
}

impl ChatApi {
    /// Over a router for what changes, a view for who may read, and the store
    /// for what is read.
    pub fn new(
        router: Arc<dyn Router>,
        view: Arc<dyn RoomsView>,
        store: Arc<dyn ChatStore>,
        partitions: u16,
        limits: ApiLimits,
    ) -> Self {
        Self { router, view, store, partitions, limits }
    }

    /// As tonic serves it.
    pub fn service(self) -> ChatServiceServer<Self> {
        let max = self.limits.max_message_bytes;
        ChatServiceServer::new(self).max_decoding_message_size(max)
    }

    /// What the caller has of the room; NOT_FOUND for who is no member.
    async fn access(&self, room: &RoomId, principal: &Principal) -> Result<RoomAccess, Refusal> {
        let access = self.view.access(room, principal).await?;
        access.ok_or_else(|| Refusal::not_found("room"))
    }

    async fn propose(
        &self,
        permit: &Permit,
        room: RoomId,
        content: Content,
    ) -> Result<Published, Refusal> {
        let sender = permit.principal().clone();
        let client_message_id = Arc::from("");
        self.router
            .publish(Proposal { room, sender, client_message_id, after: None, content })
            .await
    }

    fn partition(&self, room: &str) -> u16 {
        partition_of(room, self.partitions)
    }
}

/// Takes the permit, tells the audit log what it is about, then answers or
/// refuses.
macro_rules! answer {
    ($self:ident, $request:ident, $method:ident, $about:expr) => {{
        let permit = Permit::of(&$request)?;
        AuditSubject::note(&$request, $about);
        let deadline = Deadline::of($request.extensions()).map(|deadline| deadline.0);
        let answered = $self.$method(&permit, $request.into_inner());
        Ok(Response::new(job::by(deadline, answered).await?))
    }};
}

/// The room for the audit log; nothing for what is no room's id.
pub(super) fn room(id: &str) -> String {
    if id::is_short_name(id) { format!("room {id}") } else { String::new() }
}

/// The room and the member for the audit log, as far as the two are names.
fn member(permit: Option<&Permit>, principal: &str, id: &str) -> String {
    let room = room(id);
    let domain = permit.map(|permit| permit.principal().trust_domain());
    match domain.and_then(|domain| Principal::parse_in(principal, &domain).ok()) {
        Some(member) if !room.is_empty() => format!("{room} member {member}"),
        _ => room,
    }
}

#[tonic::async_trait]
impl ChatService for ChatApi {
    type GetMessagesStream = messages::Messages;

    async fn send_message(
        &self,
        request: Request<pb::SendMessageRequest>,
    ) -> Result<Response<pb::SendMessageResponse>, Status> {
        answer!(self, request, send, |asked| room(&asked.room_id))
    }

    async fn get_messages(
        &self,
        request: Request<pb::GetMessagesRequest>,
    ) -> Result<Response<Self::GetMessagesStream>, Status> {
        answer!(self, request, read, |asked| room(&asked.room_id))
    }

    async fn create_room(
        &self,
        request: Request<pb::CreateRoomRequest>,
    ) -> Result<Response<pb::CreateRoomResponse>, Status> {
        let subject = AuditSubject::of_request(&request);
        let answered: Result<Response<pb::CreateRoomResponse>, Status> =
            answer!(self, request, create, |asked| room(&asked.room_id));
        // Its id may be the node's choice.
        if let Some(made) = answered.as_ref().ok().and_then(|made| made.get_ref().room.as_ref()) {
            subject.set(&room(&made.room_id));
        }
        answered
    }

    async fn get_room(
        &self,
        request: Request<pb::GetRoomRequest>,
    ) -> Result<Response<pb::GetRoomResponse>, Status> {
        answer!(self, request, get, |asked| room(&asked.room_id))
    }

    async fn update_room(
        &self,
        request: Request<pb::UpdateRoomRequest>,
    ) -> Result<Response<pb::UpdateRoomResponse>, Status> {
        answer!(self, request, update, |asked| room(&asked.room_id))
    }

    async fn delete_room(
        &self,
        request: Request<pb::DeleteRoomRequest>,
    ) -> Result<Response<pb::DeleteRoomResponse>, Status> {
        answer!(self, request, delete, |asked| room(&asked.room_id))
    }

    async fn list_rooms(
        &self,
        request: Request<pb::ListRoomsRequest>,
    ) -> Result<Response<pb::ListRoomsResponse>, Status> {
        answer!(self, request, list, |_| String::new())
    }

    async fn list_members(
        &self,
        request: Request<pb::ListMembersRequest>,
    ) -> Result<Response<pb::ListMembersResponse>, Status> {
        answer!(self, request, members, |asked| room(&asked.room_id))
    }

    async fn add_member(
        &self,
        request: Request<pb::AddMemberRequest>,
    ) -> Result<Response<pb::AddMemberResponse>, Status> {
        let by = Permit::of(&request).ok();
        answer!(self, request, add, |asked| member(by.as_ref(), &asked.principal, &asked.room_id))
    }

    async fn remove_member(
        &self,
        request: Request<pb::RemoveMemberRequest>,
    ) -> Result<Response<pb::RemoveMemberResponse>, Status> {
        let by = Permit::of(&request).ok();
        answer!(self, request, remove, |asked| member(
            by.as_ref(),
            &asked.principal,
            &asked.room_id
        ))
    }

    async fn leave_room(
        &self,
        request: Request<pb::LeaveRoomRequest>,
    ) -> Result<Response<pb::LeaveRoomResponse>, Status> {
        answer!(self, request, leave, |asked| room(&asked.room_id))
    }

    async fn set_member_role(
        &self,
        request: Request<pb::SetMemberRoleRequest>,
    ) -> Result<Response<pb::SetMemberRoleResponse>, Status> {
        let by = Permit::of(&request).ok();
        answer!(self, request, set_role, |asked| member(
            by.as_ref(),
            &asked.principal,
            &asked.room_id
        ))
    }
}

#[cfg(test)]
mod tests;
