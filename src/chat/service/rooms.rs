//! CreateRoom, GetRoom, UpdateRoom, DeleteRoom, ListRooms.

use super::page::{self, List};
use super::{ChatApi, convert, fields};
use crate::card;
use crate::chat::{Content, RoomAccess};
use crate::id;
use crate::proto::chat::v1 as pb;
use crate::refusal::{Refusal, Violations};
use crate::security::permit::Permit;
use crate::store::chat::{RoomId, RoomRole};

const PAGE: u32 = 50;
const MAX_PAGE: u32 = 500;

impl ChatApi {
    pub(super) async fn create(
        &self,
        permit: &Permit,
        request: pb::CreateRoomRequest,
    ) -> Result<pb::CreateRoomResponse, Refusal> {
        let mut violations = Violations::new();
        let room: RoomId = match request.room_id.as_str() {
            "" => id::fresh().to_string().into(),
            given => fields::room(&mut violations, given),
        };
        fields::title(&mut violations, &request.title);
        violations.finish()?;
        // As the owner keeps it.
        let title = card::redact(&request.title).0.into_owned();
        let content = Content::CreateRoom { title: request.title };
        let published = self.propose(permit, room.clone(), content).await?;
        // Not read back: others may have changed it since.
        let access = RoomAccess {
            role: RoomRole::Owner,
            head: published.seq,
            title,
            created_by: permit.principal().clone(),
            created_at: published.committed_at,
        };
        Ok(pb::CreateRoomResponse { room: Some(convert::room(&room, access)) })
    }

    pub(super) async fn get(
        &self,
        permit: &Permit,
        request: pb::GetRoomRequest,
    ) -> Result<pb::GetRoomResponse, Refusal> {
        let mut violations = Violations::new();
        let room = fields::room(&mut violations, &request.room_id);
        violations.finish()?;
        let access = self.access(&room, permit.principal()).await?;
        Ok(pb::GetRoomResponse { room: Some(convert::room(&room, access)) })
    }

    pub(super) async fn update(
        &self,
        permit: &Permit,
        request: pb::UpdateRoomRequest,
    ) -> Result<pb::UpdateRoomResponse, Refusal> {
        let mut violations = Violations::new();
        let room = fields::room(&mut violations, &request.room_id);
        fields::title(&mut violations, &request.title);
        violations.finish()?;
        let content = Content::SetTitle { title: request.title };
        self.propose(permit, room.clone(), content).await?;
        let access = self.access(&room, permit.principal()).await?;
        Ok(pb::UpdateRoomResponse { room: Some(convert::room(&room, access)) })
    }

    pub(super) async fn delete(
        &self,
        permit: &Permit,
        request: pb::DeleteRoomRequest,
    ) -> Result<pb::DeleteRoomResponse, Refusal> {
        let mut violations = Violations::new();
        let room = fields::room(&mut violations, &request.room_id);
        violations.finish()?;
        self.router.delete_room(room, permit.principal().clone()).await?;
        Ok(pb::DeleteRoomResponse {})
    }

    pub(super) async fn list(
        &self,
        permit: &Permit,
        request: pb::ListRoomsRequest,
    ) -> Result<pb::ListRoomsResponse, Refusal> {
        let mut violations = Violations::new();
        let size = fields::count(&mut violations, "page_size", request.page_size, PAGE, MAX_PAGE);
        let after = page::after(&mut violations, List::Rooms, &request.page_token);
        violations.finish()?;
        let mut rooms = self.store.rooms_of(permit.principal(), &after, size + 1).await?;
        let next_page_token = page::cut(&mut rooms, size, List::Rooms, |(room, _)| &room.room);
        let rooms = rooms.into_iter().map(convert::listed).collect();
        Ok(pb::ListRoomsResponse { rooms, next_page_token })
    }
}
