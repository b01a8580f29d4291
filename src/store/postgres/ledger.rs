//! The ledger area on PostgreSQL: posting inside a transaction, reading by key,
//! and the audit.
//!
//! Invariants, which [`audit`] checks: the two entries of a movement cancel out;
//! an account's positions are 1, 2, 3 … over all its currencies; a balance is
//! the fold of its entries; a transfer id is posted once.

mod audit;
mod post;
mod read;

use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

pub(super) use post::{post, put_hold, release_hold};
pub(super) use read::of_payment;

use super::PgStore;
use crate::store::StoreError;
use crate::store::ledger::{
    AccountName, AuditFindings, BalanceRecord, HistoryFilter, HistoryPage, LedgerEntry,
    LedgerStore, Transfer,
};

#[async_trait]
impl LedgerStore for PgStore {
    async fn post(&self, transfer: Transfer) -> Result<Vec<AccountName>, StoreError> {
        let transfer = Arc::new(transfer);
        self.write("ledger.post", move |connection| {
            let transfer = transfer.clone();
            Box::pin(async move { post(connection, &transfer).await })
        })
        .await
    }

    async fn history(
        &self,
        account: &AccountName,
        after: u64,
        filter: &HistoryFilter,
        limit: u32,
    ) -> Result<HistoryPage, StoreError> {
        let asked = Arc::new((account.clone(), filter.clone()));
        self.read("ledger.history", move |connection| {
            let asked = asked.clone();
            Box::pin(
                async move { read::history(connection, &asked.0, after, &asked.1, limit).await },
            )
        })
        .await
    }

    async fn history_head(&self, account: &AccountName) -> Result<u64, StoreError> {
        let account = Arc::new(account.clone());
        self.read("ledger.history_head", move |connection| {
            let account = account.clone();
            Box::pin(async move { read::head(connection, &account).await })
        })
        .await
    }

    async fn ledger_entry(&self, id: Uuid) -> Result<Option<LedgerEntry>, StoreError> {
        self.read("ledger.entry", move |connection| Box::pin(read::entry(connection, id))).await
    }

    async fn balances(&self, account: &AccountName) -> Result<Vec<BalanceRecord>, StoreError> {
        let account = Arc::new(account.clone());
        self.read("ledger.balances", move |connection| {
            let account = account.clone();
            Box::pin(async move { read::balances(connection, &account).await })
        })
        .await
    }

    async fn audit(&self) -> Result<AuditFindings, StoreError> {
        audit::audit(self.pool()).await
    }
}
