//! A history as a stream: pages by key from a cursor, then live.
//!
//! The stream is pulled: a page is read when the one before it was sent, so a
//! reader that does not read costs a cursor and at most one page. While it waits
//! for something to happen it holds no connection of the store, only a
//! [`Subscription`]. It subscribed before it read, so what
//! is posted between a read and the wait wakes it; a slow poll covers what
//! another node posted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use tonic::Status;

use super::request::History;
use super::{Subscription, Touched};
use crate::clock;
use crate::drain::{Phase, Watch};
use crate::proto::transaction::v1 as pb;
use crate::refusal::{Reason, Refusal};
use crate::store::LedgerStore;
use crate::store::ledger::{AccountName, LedgerEntry};

/// Entries in one page.
const PAGE: u32 = 256;

/// How often a follower looks although nothing woke it.
const POLL: Duration = Duration::from_secs(5);

/// What a stream is made of.
pub(super) struct Reading {
    store: Arc<dyn LedgerStore>,
    drain: Watch,
    account: AccountName,
    ask: History,
    cursor: u64,
    /// Entries that may still be sent; `None` without a bound.
    left: Option<u32>,
    page: VecDeque<LedgerEntry>,
    /// With `follow`: what wakes it.
    wake: Option<Subscription>,
    at_head: bool,
    over: bool,
}

impl Reading {
    /// Refuses a cursor that is ahead of the history.
    pub(super) async fn begin(
        store: Arc<dyn LedgerStore>,
        drain: Watch,
        touched: &Touched,
        ask: History,
    ) -> Result<Self, Refusal> {
        let account = AccountName::of(&ask.account);
        let wake = ask.follow.then(|| touched.subscribe(account.clone()));
        let head = store.history_head(&account).await?;
        if ask.after > head {
            return Err(Refusal::new(
                Reason::CursorAhead,
                format!("after_position is ahead of the history, which ends at {head}"),
            ));
        }
        let (cursor, left) = (ask.after, ask.limit);
        let page = VecDeque::new();
        Ok(Self {
            store,
            drain,
            account,
            ask,
            cursor,
            left,
            page,
            wake,
            at_head: false,
            over: false,
        })
    }

    /// The stream of responses. It ends after an error.
    pub(super) fn stream(
        self,
    ) -> impl Stream<Item = Result<pb::GetTransactionHistoryResponse, Status>> + Send {
        stream::unfold(self, |mut reading| async move {
            if reading.over {
                return None;
            }
            let item = match reading.next().await {
                Ok(Some(entry)) => Ok(response(&entry)),
                Ok(None) => return None,
                Err(refusal) => {
                    reading.over = true;
                    Err(Status::from(refusal))
                }
            };
            Some((item, reading))
        })
    }

    /// The next entry; `None` at the end.
    async fn next(&mut self) -> Result<Option<LedgerEntry>, Refusal> {
        loop {
            if self.left == Some(0) {
                return Ok(None);
            }
            if let Some(entry) = self.page.pop_front() {
                self.left = self.left.map(|left| left.saturating_sub(1));
                return Ok(Some(entry));
            }
            if self.drain.phase() != Phase::Running {
                return Err(Refusal::new(
                    Reason::Draining,
                    format!("the node is stopping: go on after position {}", self.cursor),
                )
                .retry_after(Duration::from_secs(1)));
            }
            if self.at_head && !self.wait().await {
                return Ok(None);
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<(), Refusal> {
        let limit = self.left.map_or(PAGE, |left| left.min(PAGE));
        let page = self.store.history(&self.account, self.cursor, &self.ask.filter, limit).await?;
        self.cursor = page.scanned.max(self.cursor);
        self.at_head = page.at_head;
        self.page = page.entries.into();
        Ok(())
    }

    /// Waits until there may be more, or the node stops; false when nobody
    /// asked to follow.
    async fn wait(&mut self) -> bool {
        let Some(wake) = &mut self.wake else { return false };
        tokio::select! {
            () = self.drain.graceful() => {}
            () = wake.touched() => {}
            () = tokio::time::sleep(POLL) => {}
        }
        true
    }
}

fn response(entry: &LedgerEntry) -> pb::GetTransactionHistoryResponse {
    pb::GetTransactionHistoryResponse { transaction: Some(transaction(entry)) }
}

/// The contract's form of an entry.
pub(super) fn transaction(entry: &LedgerEntry) -> pb::Transaction {
    pb::Transaction {
        transaction_id: entry.id.to_string(),
        position: entry.position,
        account: entry.account.as_str().to_owned(),
        kind: entry.kind as i32,
        amount: Some(entry.amount.to_proto()),
        balance_after_minor_units: entry.balance_after,
        counterparty: entry.counterparty.as_str().to_owned(),
        payment_id: entry.payment_id.to_string(),
        transfer_id: entry.transfer_id.to_string(),
        posted_at: Some(clock::timestamp(entry.posted_at)),
    }
}
