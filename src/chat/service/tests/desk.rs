//! An owner small enough for tests: rules and store, one proposal at a time, no
//! memory of rooms.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use tokio::sync::Mutex;

use crate::chat::rules::{self, Decision, Limits, RoomState};
use crate::chat::{Proposal, Published, RoomAccess, RoomsView, Router};
use crate::principal::Principal;
use crate::refusal::{Reason, Refusal};
use crate::store::ChatStore;
use crate::store::chat::{Entry, KeyName, NewEntry, NewKey, PartitionAppend, RoomId, partition_of};
use crate::store::sqlite::SqliteStore;

pub(super) const PARTITIONS: u16 = 4;

#[derive(Debug)]
pub(super) struct Desk {
    pub(super) store: SqliteStore,
    turn: Mutex<()>,
    now: AtomicI64,
}

impl Desk {
    pub(super) async fn over(store: SqliteStore) -> Self {
        store.take_partitions("n1", PARTITIONS).await.unwrap();
        Self { store, turn: Mutex::new(()), now: AtomicI64::new(1_000_000) }
    }

    async fn state(&self, room: &RoomId) -> Result<Option<RoomState>, Refusal> {
        let partition = partition_of(room, PARTITIONS);
        let Some(record) = self.store.room(partition, room).await? else { return Ok(None) };
        if record.deleted {
            return Ok(None);
        }
        let members = self.store.members(partition, room, "", u32::MAX).await?;
        let members: HashMap<_, _> = members.into_iter().map(|m| (m.member, m.role)).collect();
        Ok(Some(RoomState {
            room: room.clone(),
            title: record.title,
            created_by: record.created_by,
            created_at: record.created_at,
            head: record.head,
            members,
        }))
    }
}

#[async_trait]
impl Router for Desk {
    async fn publish(&self, proposal: Proposal) -> Result<Published, Refusal> {
        let _turn = self.turn.lock().await;
        let partition = partition_of(&proposal.room, PARTITIONS);
        let state = self.state(&proposal.room).await?;
        let decision =
            rules::decide(state.as_ref(), &proposal, &Limits { max_body_bytes: 16_384 })?;
        let Decision::Append { kind, body, reply_to, redactions, change, digest } = decision else {
            return Ok(Published { seq: 0, committed_at: 0, redactions: 0 });
        };
        let Proposal { room, sender, client_message_id, .. } = proposal;
        if !client_message_id.is_empty() {
            let name = KeyName {
                room: room.clone(),
                sender: sender.clone(),
                client_message_id: client_message_id.clone(),
            };
            if let Some(Some(known)) = self.store.keys(partition, vec![name]).await?.first() {
                return match known.digest == digest {
                    true => Ok(Published {
                        seq: known.seq,
                        committed_at: known.committed_at,
                        redactions: known.redactions,
                    }),
                    false => Err(Refusal::new(Reason::KeyReused, "another body")),
                };
            }
        }
        let seq = state.map_or(0, |state| state.head) + 1;
        let committed_at = self.now.fetch_add(1, Ordering::SeqCst);
        let key = (!client_message_id.is_empty()).then_some(NewKey { digest, redactions });
        let entry =
            Entry { room, seq, kind, sender, client_message_id, body, reply_to, committed_at };
        let entries = vec![NewEntry { entry, key, change }];
        self.store.append(vec![PartitionAppend { partition, epoch: 1, entries }]).await?;
        Ok(Published { seq, committed_at, redactions })
    }

    async fn delete_room(&self, room: RoomId, sender: Principal) -> Result<(), Refusal> {
        let _turn = self.turn.lock().await;
        rules::may_delete(self.state(&room).await?.as_ref(), &sender)?;
        self.store.delete_room(partition_of(&room, PARTITIONS), 1, &room).await?;
        Ok(())
    }
}

#[async_trait]
impl RoomsView for Desk {
    async fn access(
        &self,
        room: &RoomId,
        principal: &Principal,
    ) -> Result<Option<RoomAccess>, Refusal> {
        let state = self.state(room).await?;
        Ok(state.and_then(|state| {
            Some(RoomAccess {
                role: state.role(principal)?,
                head: state.head,
                title: state.title,
                created_by: state.created_by,
                created_at: state.created_at,
            })
        }))
    }
}
