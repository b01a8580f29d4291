//! ListMembers, AddMember, RemoveMember, LeaveRoom, SetMemberRole.

use super::page::{self, List};
use super::{ChatApi, convert, fields};
use crate::chat::{Content, Published};
use crate::principal::Principal;
use crate::proto::chat::v1 as pb;
use crate::refusal::{Reason, Refusal, Violations};
use crate::security::permit::Permit;
use crate::store::chat::{MemberRecord, RoomId, RoomRole};

const PAGE: u32 = 50;
const MAX_PAGE: u32 = 500;

impl ChatApi {
    pub(super) async fn members(
        &self,
        permit: &Permit,
        request: pb::ListMembersRequest,
    ) -> Result<pb::ListMembersResponse, Refusal> {
        let mut violations = Violations::new();
        let room = fields::room(&mut violations, &request.room_id);
        let size = fields::count(&mut violations, "page_size", request.page_size, PAGE, MAX_PAGE);
        let after = page::after(&mut violations, List::Members, &request.page_token);
        violations.finish()?;
        self.access(&room, permit.principal()).await?;
        let partition = self.partition(&room);
        let mut members = self.store.members(partition, &room, &after, size + 1).await?;
        let next_page_token =
            page::cut(&mut members, size, List::Members, |member| member.member.as_str());
        let members = members.iter().map(convert::member).collect();
        Ok(pb::ListMembersResponse { members, next_page_token })
    }

    pub(super) async fn add(
        &self,
        permit: &Permit,
        request: pb::AddMemberRequest,
    ) -> Result<pb::AddMemberResponse, Refusal> {
        let mut violations = Violations::new();
        let room = fields::room(&mut violations, &request.room_id);
        let member = fields::principal(&mut violations, permit.principal(), &request.principal);
        let role = fields::role(&mut violations, request.role, Some(RoomRole::Member));
        violations.finish()?;
        let (member, role) = both(member, role)?;
        let content = Content::AddMember { member: member.clone(), role };
        let published = self.propose(permit, room.clone(), content).await?;
        let member = self.as_it_is(&room, member, role, published).await?;
        Ok(pb::AddMemberResponse { member: Some(convert::member(&member)) })
    }

    pub(super) async fn set_role(
        &self,
        permit: &Permit,
        request: pb::SetMemberRoleRequest,
    ) -> Result<pb::SetMemberRoleResponse, Refusal> {
        let mut violations = Violations::new();
        let room = fields::room(&mut violations, &request.room_id);
        let member = fields::principal(&mut violations, permit.principal(), &request.principal);
        let role = fields::role(&mut violations, request.role, None);
        violations.finish()?;
        let (member, role) = both(member, role)?;
        let content = Content::SetRole { member: member.clone(), role };
        let published = self.propose(permit, room.clone(), content).await?;
        let member = self.as_it_is(&room, member, role, published).await?;
        Ok(pb::SetMemberRoleResponse { member: Some(convert::member(&member)) })
    }

    pub(super) async fn remove(
        &self,
        permit: &Permit,
        request: pb::RemoveMemberRequest,
    ) -> Result<pb::RemoveMemberResponse, Refusal> {
        let mut violations = Violations::new();
        let room = fields::room(&mut violations, &request.room_id);
        let member = fields::principal(&mut violations, permit.principal(), &request.principal);
        violations.finish()?;
        let member = member.ok_or_else(unnoted)?;
        self.propose(permit, room, Content::RemoveMember { member }).await?;
        Ok(pb::RemoveMemberResponse {})
    }

    pub(super) async fn leave(
        &self,
        permit: &Permit,
        request: pb::LeaveRoomRequest,
    ) -> Result<pb::LeaveRoomResponse, Refusal> {
        let mut violations = Violations::new();
        let room = fields::room(&mut violations, &request.room_id);
        violations.finish()?;
        let member = permit.principal().clone();
        self.propose(permit, room, Content::RemoveMember { member }).await?;
        Ok(pb::LeaveRoomResponse {})
    }

    /// The member from the store, which knows since when it is one. What was
    /// asked for stands in for who was removed in between.
    async fn as_it_is(
        &self,
        room: &RoomId,
        member: Principal,
        role: RoomRole,
        published: Published,
    ) -> Result<MemberRecord, Refusal> {
        let found = self.store.member(self.partition(room), room, &member).await?;
        Ok(found.unwrap_or(MemberRecord { member, role, joined_at: published.committed_at }))
    }
}

fn both<A, B>(a: Option<A>, b: Option<B>) -> Result<(A, B), Refusal> {
    a.zip(b).ok_or_else(unnoted)
}

/// A field without a value that was not noted as violated cannot be; it is
/// refused all the same.
fn unnoted() -> Refusal {
    Refusal::new(Reason::Internal, "a field was not read")
}
