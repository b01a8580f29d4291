//! SendMessage and GetMessages.
//!
//! GetMessages goes from page to page as the client takes them: the next page
//! is read when the one before has been handed on, no connection is held
//! between pages, and each page proves the caller's membership again.

use std::pin::Pin;
use std::sync::Arc;
use std::vec::IntoIter;

use futures_util::stream::{self, Stream};
use tonic::Status;

use super::{ChatApi, fields};
use crate::chat::{Content, Proposal, rules, wire};
use crate::clock;
use crate::principal::Principal;
use crate::proto::chat::v1 as pb;
use crate::refusal::{Reason, Refusal, Violations};
use crate::security::permit::Permit;
use crate::store::chat::{Entry, RoomId};

const DEFAULT_LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 10_000;

/// Bodies in one page, bytes: what a client that does not read holds in memory.
const PAGE_BYTES: usize = 256 * 1024;

/// The response of GetMessages.
pub(super) type Messages =
    Pin<Box<dyn Stream<Item = Result<pb::GetMessagesResponse, Status>> + Send>>;

impl ChatApi {
    pub(super) async fn send(
        &self,
        permit: &Permit,
        request: pb::SendMessageRequest,
    ) -> Result<pb::SendMessageResponse, Refusal> {
        let mut violations = Violations::new();
        let room = fields::room(&mut violations, &request.room_id);
        rules::check_message_id(&mut violations, &request.client_message_id);
        rules::check_body(&mut violations, &request.body, self.limits.max_body_bytes);
        violations.finish()?;
        let proposal = Proposal {
            room,
            sender: permit.principal().clone(),
            client_message_id: Arc::from(request.client_message_id),
            after: None,
            content: Content::Text { body: request.body, reply_to: request.reply_to },
        };
        let published = self.router.publish(proposal).await?;
        Ok(pb::SendMessageResponse {
            seq: published.seq,
            committed_at: Some(clock::timestamp(published.committed_at)),
            redactions: published.redactions,
        })
    }

    pub(super) async fn read(
        &self,
        permit: &Permit,
        request: pb::GetMessagesRequest,
    ) -> Result<Messages, Refusal> {
        let mut violations = Violations::new();
        let room = fields::room(&mut violations, &request.room_id);
        let limit =
            fields::count(&mut violations, "limit", request.limit, DEFAULT_LIMIT, MAX_LIMIT);
        violations.finish()?;
        let access = self.access(&room, permit.principal()).await?;
        let mut head = access.head;
        if request.after_seq > head {
            // The caller may have read more of it on another node.
            let stored = self.store.room(self.partition(&room), &room).await?;
            let stored = stored.filter(|stored| !stored.deleted);
            head = stored.map_or(head, |stored| stored.head.max(head));
        }
        if request.after_seq > head {
            return Err(Refusal::new(Reason::CursorAhead, "after_seq is ahead of the log"));
        }
        let reading = Reading {
            api: self.clone(),
            room,
            reader: permit.principal().clone(),
            after: request.after_seq,
            until: head.min(request.after_seq.saturating_add(limit.into())),
            page: Vec::new().into_iter(),
        };
        let messages = stream::try_unfold(reading, |mut reading| async move {
            match reading.next().await {
                Ok(Some(message)) => {
                    let response = pb::GetMessagesResponse { message: Some(message) };
                    Ok(Some((response, reading)))
                }
                Ok(None) => Ok(None),
                Err(refusal) => Err(Status::from(refusal)),
            }
        });
        Ok(Box::pin(messages))
    }
}

/// A range on its way to a client.
struct Reading {
    api: ChatApi,
    room: RoomId,
    reader: Principal,
    /// The seq of the last entry that was read.
    after: u64,
    /// The last seq of the range: what is appended meanwhile is not in it.
    until: u64,
    page: IntoIter<Entry>,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<pb::Message>, Refusal> {
        loop {
            if let Some(entry) = self.page.next() {
                return Ok(Some(wire::message(&entry)));
            }
            if self.after >= self.until {
                return Ok(None);
            }
            self.page = self.read().await?.into_iter();
        }
    }

    async fn read(&mut self) -> Result<Vec<Entry>, Refusal> {
        if self.api.view.access(&self.room, &self.reader).await?.is_none() {
            return Err(ended());
        }
        let left = u32::try_from(self.until - self.after).unwrap_or(u32::MAX);
        let limit = left.min(self.api.limits.page_entries.max(1));
        let partition = self.api.partition(&self.room);
        let page =
            self.api.store.entries(partition, &self.room, self.after, limit, PAGE_BYTES).await?;
        for entry in &page {
            // Never hand on a log with a hole: a reader could not tell.
            if entry.seq != self.after + 1 {
                return Err(gap());
            }
            self.after = entry.seq;
        }
        if !page.is_empty() {
            return Ok(page);
        }
        match self.api.store.room(partition, &self.room).await? {
            Some(room) if !room.deleted => Err(gap()),
            _ => Err(ended()),
        }
    }
}

fn ended() -> Refusal {
    Refusal::new(Reason::AccessEnded, "the membership ended")
}

fn gap() -> Refusal {
    tracing::error!("the store has a gap in a room's log");
    Refusal::new(Reason::Internal, "the store failed")
}
