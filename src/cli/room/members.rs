//! `simpul room members`, `add`, `remove`, `leave` and `role`.

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::cli::env::Env;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::render::{MEMBER_HEAD, member_json, member_row, room_role};
use crate::cli::text::plain;
use crate::proto::chat::v1 as pb;

/// What a member may do; each can do what the next can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RoomRole {
    /// Everything
    Owner,
    /// Adds and removes members, changes the title
    Moderator,
    /// Sends and reads
    Member,
    /// Reads
    Reader,
}

impl RoomRole {
    fn to_proto(self) -> i32 {
        let role = match self {
            RoomRole::Owner => pb::RoomRole::Owner,
            RoomRole::Moderator => pb::RoomRole::Moderator,
            RoomRole::Member => pb::RoomRole::Member,
            RoomRole::Reader => pb::RoomRole::Reader,
        };
        role.into()
    }
}

/// List a room's members
#[derive(Debug, Args)]
pub(super) struct Members {
    /// The room
    #[arg(value_name = "ROOM")]
    room_id: String,
}

impl Members {
    pub(super) async fn run(self, env: &Env) -> Result<Exit, Failure> {
        let client = env.connect().await?;
        let (mut rows, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = pb::ListMembersRequest {
                room_id: self.room_id.clone(),
                page_size: 500,
                page_token,
            };
            let page = client.chat().list_members(client.unary(request)).await?.into_inner();
            rows.extend(page.members.iter().map(|m| (member_json(m), member_row(m))));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        env.output.list(&MEMBER_HEAD, &rows)?;
        Ok(Exit::Done)
    }
}

/// Add a member
#[derive(Debug, Args)]
pub(super) struct Add {
    /// The room
    #[arg(value_name = "ROOM")]
    room_id: String,
    /// Whom: kind/id@trust-domain, kind and domain optional
    #[arg(value_name = "WHO")]
    principal: String,
    /// As what
    #[arg(value_enum, value_name = "ROOM_ROLE", default_value_t = RoomRole::Member)]
    room_role: RoomRole,
}

impl Add {
    pub(super) async fn run(self, env: &Env) -> Result<Exit, Failure> {
        let client = env.connect().await?;
        let request = pb::AddMemberRequest {
            room_id: self.room_id,
            principal: self.principal,
            role: self.room_role.to_proto(),
        };
        let answer = client.chat().add_member(client.unary(request)).await?.into_inner();
        show(env, &answer.member.unwrap_or_default())
    }
}

/// Change a member's role
#[derive(Debug, Args)]
pub(super) struct Role {
    /// The room
    #[arg(value_name = "ROOM")]
    room_id: String,
    /// Whose
    #[arg(value_name = "WHO")]
    principal: String,
    /// The new role
    #[arg(value_enum, value_name = "ROOM_ROLE")]
    room_role: RoomRole,
}

impl Role {
    pub(super) async fn run(self, env: &Env) -> Result<Exit, Failure> {
        let client = env.connect().await?;
        let request = pb::SetMemberRoleRequest {
            room_id: self.room_id,
            principal: self.principal,
            role: self.room_role.to_proto(),
        };
        let answer = client.chat().set_member_role(client.unary(request)).await?.into_inner();
        show(env, &answer.member.unwrap_or_default())
    }
}

/// Remove a member
#[derive(Debug, Args)]
pub(super) struct Remove {
    /// The room
    #[arg(value_name = "ROOM")]
    room_id: String,
    /// Whom
    #[arg(value_name = "WHO")]
    principal: String,
}

impl Remove {
    pub(super) async fn run(self, env: &Env) -> Result<Exit, Failure> {
        let client = env.connect().await?;
        let (room, who) = (self.room_id.clone(), self.principal.clone());
        let request = pb::RemoveMemberRequest { room_id: self.room_id, principal: self.principal };
        client.chat().remove_member(client.unary(request)).await?;
        env.output.say(&json!({"room_id": room, "principal": who, "removed": true}), || {
            format!("removed {who} from {room}")
        })?;
        Ok(Exit::Done)
    }
}

/// Leave a room
#[derive(Debug, Args)]
pub(super) struct Leave {
    /// The room
    #[arg(value_name = "ROOM")]
    room_id: String,
}

impl Leave {
    pub(super) async fn run(self, env: &Env) -> Result<Exit, Failure> {
        let client = env.connect().await?;
        let request = pb::LeaveRoomRequest { room_id: self.room_id.clone() };
        client.chat().leave_room(client.unary(request)).await?;
        env.output.say(&json!({"room_id": self.room_id, "left": true}), || {
            format!("left {}", self.room_id)
        })?;
        Ok(Exit::Done)
    }
}

fn show(env: &Env, member: &pb::Member) -> Result<Exit, Failure> {
    env.output.say(&member_json(member), || {
        format!("{} is {}", plain(&member.principal), room_role(member.role()))
    })?;
    Ok(Exit::Done)
}
