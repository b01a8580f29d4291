//! `simpul room create`, `get`, `list`, `update` and `delete`.

use clap::Args;
use serde_json::json;

use crate::cli::env::Env;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::render::{ROOM_HEAD, room_json, room_row};
use crate::cli::text::{pairs, plain, time};
use crate::proto::chat::v1 as pb;

/// Create a room; you become its owner
#[derive(Debug, Args)]
pub(super) struct Create {
    /// Its id; the node makes one when left out
    #[arg(value_name = "ROOM")]
    room_id: Option<String>,
    /// What people see
    #[arg(long, value_name = "TEXT", default_value = "")]
    title: String,
}

impl Create {
    pub(super) async fn run(self, env: &Env) -> Result<Exit, Failure> {
        let client = env.connect().await?;
        let request =
            pb::CreateRoomRequest { room_id: self.room_id.unwrap_or_default(), title: self.title };
        let answer = client.chat().create_room(client.unary(request)).await?.into_inner();
        let room = answer.room.unwrap_or_default();
        env.output.say(&room_json(&room), || format!("created {}", plain(&room.room_id)))?;
        Ok(Exit::Done)
    }
}

/// Show a room
#[derive(Debug, Args)]
pub(super) struct Get {
    /// The room
    #[arg(value_name = "ROOM")]
    room_id: String,
}

impl Get {
    pub(super) async fn run(self, env: &Env) -> Result<Exit, Failure> {
        let client = env.connect().await?;
        let request = pb::GetRoomRequest { room_id: self.room_id };
        let answer = client.chat().get_room(client.unary(request)).await?.into_inner();
        show(env, &answer.room.unwrap_or_default())
    }
}

/// List the rooms that you are a member of
#[derive(Debug, Args)]
pub(super) struct List {}

impl List {
    pub(super) async fn run(self, env: &Env) -> Result<Exit, Failure> {
        let client = env.connect().await?;
        let (mut rows, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = pb::ListRoomsRequest { page_size: 500, page_token };
            let page = client.chat().list_rooms(client.unary(request)).await?.into_inner();
            rows.extend(page.rooms.iter().map(|room| (room_json(room), room_row(room))));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        env.output.list(&ROOM_HEAD, &rows)?;
        Ok(Exit::Done)
    }
}

/// Change a room's title
#[derive(Debug, Args)]
pub(super) struct Update {
    /// The room
    #[arg(value_name = "ROOM")]
    room_id: String,
    /// The new title
    #[arg(long, value_name = "TEXT")]
    title: String,
}

impl Update {
    pub(super) async fn run(self, env: &Env) -> Result<Exit, Failure> {
        let client = env.connect().await?;
        let request = pb::UpdateRoomRequest { room_id: self.room_id, title: self.title };
        let answer = client.chat().update_room(client.unary(request)).await?.into_inner();
        show(env, &answer.room.unwrap_or_default())
    }
}

/// Delete a room with everything in it
#[derive(Debug, Args)]
pub(super) struct Delete {
    /// The room
    #[arg(value_name = "ROOM")]
    room_id: String,
}

impl Delete {
    pub(super) async fn run(self, env: &Env) -> Result<Exit, Failure> {
        let client = env.connect().await?;
        let request = pb::DeleteRoomRequest { room_id: self.room_id.clone() };
        client.chat().delete_room(client.unary(request)).await?;
        env.output.say(&json!({"room_id": self.room_id, "deleted": true}), || {
            format!("deleted {}", self.room_id)
        })?;
        Ok(Exit::Done)
    }
}

fn show(env: &Env, room: &pb::Room) -> Result<Exit, Failure> {
    env.output.say(&room_json(room), || {
        let [id, role, head, creator, title] =
            <[String; 5]>::try_from(room_row(room)).unwrap_or_default();
        pairs(&[
            ("room", id),
            ("title", title),
            ("role", role),
            ("head", head),
            ("created by", creator),
            ("created", time(room.created_at.as_ref())),
        ])
    })?;
    Ok(Exit::Done)
}
