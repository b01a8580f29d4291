//! A store in memory that can be made to fail, and clients that drive a
//! session's body by hand.

mod client;
mod mesh;
mod store;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::metrics::ChatMetrics;
use super::{Chat, Content, Proposal, Published};
use crate::config::schema;
use crate::drain;
use crate::principal::{Principal, Roles};
use crate::readiness::Readiness;
use crate::refusal::Refusal;
use crate::security::permit::{Caller, Permit, Proof, Validity};
use crate::store::chat::RoomRole;

pub(crate) use client::{Client, encoded};
pub(crate) use mesh::{Cluster, Weather};
pub(crate) use store::{Fault, MemoryStore};

/// A running service over a store in memory.
pub(crate) struct World {
    pub(crate) chat: Chat,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) drain: drain::Drain,
    pub(crate) readiness: Readiness,
}

pub(crate) fn config() -> schema::Chat {
    schema::Chat {
        partitions: 4,
        room_tail_bytes: 64 * 1024,
        total_tail_bytes: 1024 * 1024,
        idle_room: Duration::from_secs(300),
        page_entries: 64,
        max_joined_rooms: 3,
        max_body_bytes: 16384,
        client_message_id_kept: Duration::from_secs(86400),
    }
}

pub(crate) fn who(name: &str) -> Principal {
    format!("user/{name}@test").parse().expect("a principal")
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(config()).await
    }

    pub(crate) async fn with(config: schema::Chat) -> Self {
        let store = Arc::new(MemoryStore::default());
        let (drain, watch) = drain::channel();
        let readiness = Readiness::new();
        let metrics = ChatMetrics::unregistered();
        let started = Chat::start(
            store.clone(),
            &config,
            65536,
            "n1",
            metrics,
            watch,
            &readiness,
            None,
            None,
        );
        let chat = started.await.expect("the store takes partitions");
        Self { chat, store, drain, readiness }
    }

    /// A room of `alice`, with `bob` as a member.
    pub(crate) async fn room(&self, room: &str) {
        let created = Content::CreateRoom { title: "t".into() };
        self.propose(room, "alice", "", created).await.expect("a new room");
        let bob = Content::AddMember { member: who("bob"), role: RoomRole::Member };
        self.propose(room, "alice", "", bob).await.expect("bob");
    }

    pub(crate) async fn propose(
        &self,
        room: &str,
        sender: &str,
        id: &str,
        content: Content,
    ) -> Result<Published, Refusal> {
        let sender = who(sender);
        let client_message_id = id.into();
        let room = room.into();
        self.chat
            .router()
            .publish(Proposal { room, sender, client_message_id, after: None, content })
            .await
    }

    pub(crate) async fn text(
        &self,
        room: &str,
        id: &str,
        body: &str,
    ) -> Result<Published, Refusal> {
        self.propose(room, "alice", id, Content::Text { body: body.into(), reply_to: 0 }).await
    }

    /// Sends many messages of a size, all at once.
    pub(crate) async fn fill(&self, room: &str, from: usize, count: usize, size: usize) {
        let sends = (from..from + count).map(|n| {
            let body = format!("{n:0size$}");
            async move { self.text(room, &format!("m{n}"), &body).await.expect("durable") }
        });
        futures_util::future::join_all(sends).await;
    }

    pub(crate) fn client(&self, name: &str) -> Client {
        Client::open(&self.chat, permit(name))
    }
}

pub(crate) fn permit(name: &str) -> Permit {
    let caller = Caller {
        principal: who(name),
        roles: Roles::NONE,
        acting_service: None,
        proof: Proof::Token,
    };
    Permit::new(caller, Validity::until(SystemTime::now() + Duration::from_secs(3600), None))
}
