//! The ledger area on SQLite: posting inside a writer's transaction, reading by
//! key, and the audit.
//!
//! Invariants, which [`audit`] checks: the two entries of a movement cancel out;
//! an account's positions are 1, 2, 3 … over all its currencies; a balance is
//! the fold of its entries; a transfer id is posted once.

pub(crate) mod audit;
mod post;
mod read;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use uuid::Uuid;

pub(crate) use post::{post, put_hold, release_hold};
pub(crate) use read::of_payment;

use super::SqliteStore;
use crate::store::StoreError;
use crate::store::ledger::{
    AccountName, AuditFindings, BalanceRecord, HistoryFilter, HistoryPage, LedgerEntry,
    LedgerStore, Transfer,
};

#[async_trait]
impl LedgerStore for SqliteStore {
    async fn post(&self, transfer: Transfer) -> Result<Vec<AccountName>, StoreError> {
        self.write("ledger.post", move |conn| Box::pin(async move { post(conn, &transfer).await }))
            .await
    }

    async fn history(
        &self,
        account: &AccountName,
        after: u64,
        filter: &HistoryFilter,
        limit: u32,
    ) -> Result<HistoryPage, StoreError> {
        self.read("ledger.history", read::history(self.readers(), account, after, filter, limit))
            .await
    }

    async fn history_head(&self, account: &AccountName) -> Result<u64, StoreError> {
        self.read("ledger.history_head", read::head(self.readers(), account)).await
    }

    async fn ledger_entry(&self, id: Uuid) -> Result<Option<LedgerEntry>, StoreError> {
        self.read("ledger.entry", read::entry(self.readers(), id)).await
    }

    async fn balances(&self, account: &AccountName) -> Result<Vec<BalanceRecord>, StoreError> {
        self.read("ledger.balances", read::balances(self.readers(), account)).await
    }

    async fn audit(&self) -> Result<AuditFindings, StoreError> {
        self.read("ledger.audit", audit::audit(self.readers())).await
    }
}
