//! The message that each sender appended last to a room.
//!
//! Most messages that name one before them name this one, which is durable: the
//! store need not be asked. What was once committed stays so, whoever owns the
//! room later, so nothing in here is ever wrong; what is missing is looked up.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};

use crate::chat::Job;
use crate::principal::Principal;
use crate::store::chat::{KeyName, RoomId};

/// Senders in rooms that are remembered; with more it begins anew.
const KEPT: usize = 16 * 1024;

/// The last names.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<HashMap<(RoomId, Principal), Arc<str>>>);

impl Recent {
    /// Whether it is the last one of its sender in its room.
    pub(super) fn is_last(&self, name: &KeyName) -> bool {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = (name.room.clone(), name.sender.clone());
        last.get(&of).is_some_and(|last| *last == name.client_message_id)
    }

    /// A message of a stream is durable.
    pub(super) fn stands(&self, job: &Job) {
        let proposal = &job.proposal;
        if proposal.client_message_id.is_empty() {
            return;
        }
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() >= KEPT {
            last.clear();
        }
        let of = (proposal.room.clone(), proposal.sender.clone());
        last.insert(of, proposal.client_message_id.clone());
    }
}
