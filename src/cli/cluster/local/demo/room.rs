//! The room of the conversation, made over the first node.

use std::path::PathBuf;
use std::time::Duration;

use tonic::Code;

use super::{NAMES, ROOM};
use crate::cli::cluster::local::child::Child;
use crate::cli::env::Env;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::target::Target;
use crate::client::patience::Patience;
use crate::proto::chat::v1::{AddMemberRequest, CreateRoomRequest, RoomRole};

/// The node of a child, as somebody.
pub(super) fn target(env: &Env, dir: PathBuf, who: &str) -> Result<Target, Failure> {
    let mut global = env.global.clone();
    global.data_dir = Some(dir);
    global.as_principal = Some(who.to_owned());
    (global.server, global.context, global.token, global.token_file) = (None, None, None, None);
    (global.cert, global.cert_key, global.on_behalf_of) = (None, None, None);
    Target::resolve(&global)
}

/// The first speaker makes the room; everybody is a member of it. The nodes may
/// still be sharing out what they own.
pub(super) async fn make_room(env: &Env, children: &[Child]) -> Result<(), Failure> {
    let mut patience = Patience::new(Duration::from_secs(30));
    loop {
        match try_room(env, children).await {
            Err(failure) if failure.exit() == Exit::Unavailable && patience.wait().await => {}
            made => return made,
        }
    }
}

/// Does what is left to do of it.
async fn try_room(env: &Env, children: &[Child]) -> Result<(), Failure> {
    let (Some(first), Some(owner)) = (children.first(), NAMES.first()) else { return Ok(()) };
    let client = target(env, first.dir().to_owned(), owner)?.connect().await?;
    let create = CreateRoomRequest { room_id: ROOM.to_owned(), title: String::new() };
    match client.chat().create_room(client.unary(create)).await {
        Ok(_) => {}
        Err(status) if status.code() == Code::AlreadyExists => {}
        Err(status) => return Err(status.into()),
    }
    for name in NAMES.iter().take(children.len()).skip(1) {
        let add = AddMemberRequest {
            room_id: ROOM.to_owned(),
            principal: (*name).to_owned(),
            role: RoomRole::Member.into(),
        };
        client.chat().add_member(client.unary(add)).await?;
    }
    Ok(())
}
