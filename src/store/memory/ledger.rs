//! The ledger area in memory. No race is simulated here: each call is one step,
//! whole or not at all.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use uuid::Uuid;

use super::MemoryStore;
use super::payment::Payments;
use crate::chance;
use crate::money::{Currency, Money};
use crate::store::StoreError;
use crate::store::ledger::{
    ALREADY_POSTED, AccountName, AuditFindings, BalanceRecord, HELD, HistoryFilter, HistoryPage,
    LACKS_BALANCE, LedgerEntry, LedgerStore, Movement, TransactionKind, Transfer,
};

/// Positions that one page looks at, whatever the filter lets through.
const SCAN: u64 = 2048;

/// Accounts and payments: what one transaction may change together.
#[derive(Debug, Clone, Default)]
pub(super) struct Books {
    /// The entries of each account, by position from 1 on.
    accounts: BTreeMap<AccountName, Vec<LedgerEntry>>,
    /// The ids of transfers that were posted.
    posted: BTreeSet<Uuid>,
    holds: BTreeMap<Uuid, Hold>,
    pub(super) payments: Payments,
}

/// What an authorized payment holds for its payee.
#[derive(Debug, Clone)]
struct Hold {
    account: AccountName,
    money: Money,
}

impl MemoryStore {
    /// A transaction on the books.
    pub(super) async fn book<T>(
        &self,
        change: impl FnOnce(&mut Books) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.write(|data| {
            // What fails half-way leaves nothing.
            let mut next = data.books.clone();
            let outcome = change(&mut next)?;
            data.books = next;
            Ok(outcome)
        })
        .await
    }
}

#[async_trait]
impl LedgerStore for MemoryStore {
    async fn post(&self, transfer: Transfer) -> Result<Vec<AccountName>, StoreError> {
        self.book(|books| books.post(&transfer)).await
    }

    async fn history(
        &self,
        account: &AccountName,
        after: u64,
        filter: &HistoryFilter,
        limit: u32,
    ) -> Result<HistoryPage, StoreError> {
        self.read(|data| page(data.books.entries(account), after, filter, limit)).await
    }

    async fn history_head(&self, account: &AccountName) -> Result<u64, StoreError> {
        self.read(|data| data.books.entries(account).len() as u64).await
    }

    async fn ledger_entry(&self, id: Uuid) -> Result<Option<LedgerEntry>, StoreError> {
        self.read(|data| {
            let mut all = data.books.accounts.values().flatten();
            all.find(|entry| entry.id == id).cloned()
        })
        .await
    }

    async fn balances(&self, account: &AccountName) -> Result<Vec<BalanceRecord>, StoreError> {
        self.read(|data| data.books.balances(account)).await
    }

    async fn audit(&self) -> Result<AuditFindings, StoreError> {
        self.read(|data| data.books.audit()).await
    }
}

fn page(entries: &[LedgerEntry], after: u64, filter: &HistoryFilter, limit: u32) -> HistoryPage {
    let head = entries.len() as u64;
    if after >= head {
        return HistoryPage { entries: Vec::new(), scanned: after, at_head: true };
    }
    let last = after.saturating_add(SCAN).min(head);
    let limit = usize::try_from(limit.max(1)).unwrap_or(usize::MAX);
    let wanted = |entry: &&LedgerEntry| {
        filter.from.is_none_or(|from| entry.posted_at >= from)
            && filter.before.is_none_or(|before| entry.posted_at < before)
            && (filter.kinds.is_empty() || filter.kinds.contains(&entry.kind))
    };
    let looked = entries.iter().filter(|entry| entry.position > after && entry.position <= last);
    let found: Vec<_> = looked.filter(wanted).take(limit).cloned().collect();
    let scanned = match found.last() {
        Some(entry) if found.len() >= limit => entry.position,
        _ => last,
    };
    HistoryPage { entries: found, scanned, at_head: scanned >= head }
}

impl Books {
    fn entries(&self, account: &AccountName) -> &[LedgerEntry] {
        self.accounts.get(account).map_or(&[], Vec::as_slice)
    }

    /// What a payment holds, and its entries by account and position.
    pub(super) fn of_payment(&self, payment: Uuid) -> (Option<i64>, Vec<LedgerEntry>) {
        let held = self.holds.get(&payment).map(|hold| hold.money.minor_units);
        let all = self.accounts.values().flatten();
        (held, all.filter(|entry| entry.payment_id == payment).cloned().collect())
    }

    /// The balance as its newest entry says; nothing when there is none.
    fn balance(&self, account: &AccountName, currency: Currency) -> Option<i64> {
        let mut newest = self.entries(account).iter().rev();
        newest.find(|entry| entry.amount.currency == currency).map(|entry| entry.balance_after)
    }

    fn balances(&self, account: &AccountName) -> Vec<BalanceRecord> {
        let mut held: BTreeMap<Currency, i64> =
            self.entries(account).iter().map(|entry| (entry.amount.currency, 0)).collect();
        for hold in self.holds.values().filter(|hold| hold.account == *account) {
            *held.entry(hold.money.currency).or_default() += hold.money.minor_units;
        }
        let record = |(currency, held)| {
            let minor_units = self.balance(account, currency).unwrap_or(0);
            BalanceRecord { posted: Money { currency, minor_units }, held }
        };
        held.into_iter().map(record).collect()
    }

    /// Posts a transfer; after an error the books must be thrown away.
    pub(super) fn post(&mut self, transfer: &Transfer) -> Result<Vec<AccountName>, StoreError> {
        let sound = |m: &Movement| m.minor_units > 0 && m.from != m.to;
        if transfer.movements.is_empty() || !transfer.movements.iter().all(sound) {
            return Err(StoreError::Fault("a transfer with an unsound movement".to_owned()));
        }
        if !self.posted.insert(transfer.id) {
            return Err(StoreError::Conflict(ALREADY_POSTED));
        }
        let mut touched = BTreeSet::new();
        for movement in &transfer.movements {
            let Movement { from, to, minor_units, kind, needs_balance } = movement;
            let left = self.enter(transfer, (from, to), *kind, -minor_units)?;
            if *needs_balance && left < 0 {
                return Err(StoreError::Conflict(LACKS_BALANCE));
            }
            self.enter(transfer, (to, from), *kind, *minor_units)?;
            touched.extend([from.clone(), to.clone()]);
        }
        Ok(touched.into_iter().collect())
    }

    /// One side of a movement; gives the balance after it.
    fn enter(
        &mut self,
        transfer: &Transfer,
        (account, counterparty): (&AccountName, &AccountName),
        kind: TransactionKind,
        minor_units: i64,
    ) -> Result<i64, StoreError> {
        let before = self.balance(account, transfer.currency).unwrap_or(0);
        let balance_after = before
            .checked_add(minor_units)
            .ok_or_else(|| StoreError::Fault("a balance would not fit".to_owned()))?;
        let entries = self.accounts.entry(account.clone()).or_default();
        entries.push(LedgerEntry {
            id: chance::uuid(),
            account: account.clone(),
            position: entries.len() as u64 + 1,
            kind,
            amount: Money { currency: transfer.currency, minor_units },
            balance_after,
            counterparty: counterparty.clone(),
            payment_id: transfer.payment_id,
            transfer_id: transfer.id,
            posted_at: transfer.posted_at,
        });
        Ok(balance_after)
    }

    pub(super) fn put_hold(
        &mut self,
        payment: Uuid,
        account: AccountName,
        money: Money,
    ) -> Result<(), StoreError> {
        match self.holds.insert(payment, Hold { account, money }) {
            None => Ok(()),
            Some(_) => Err(StoreError::Conflict(HELD)),
        }
    }

    pub(super) fn release_hold(&mut self, payment: Uuid) {
        self.holds.remove(&payment);
    }

    fn audit(&self) -> AuditFindings {
        let mut wrong = Vec::new();
        // Of each transfer; of each payment: fundings, payments, and what may
        // never be more than something else.
        let mut transfers: BTreeMap<(Uuid, Currency), i64> = BTreeMap::new();
        let mut once: BTreeMap<(Uuid, u8), BTreeSet<Uuid>> = BTreeMap::new();
        let mut sums: BTreeMap<(Uuid, u8), i64> = BTreeMap::new();
        for (name, entries) in &self.accounts {
            let mut folds: BTreeMap<Currency, i64> = BTreeMap::new();
            for (entry, position) in entries.iter().zip(1_u64..) {
                let Money { currency, minor_units } = entry.amount;
                let fold = folds.entry(currency).or_default();
                *fold = fold.saturating_add(minor_units);
                if (entry.position, entry.balance_after) != (position, *fold) {
                    wrong.push(format!("{} at {position}: not the fold", name.as_str()));
                }
                let sum = transfers.entry((entry.transfer_id, currency)).or_default();
                *sum = sum.saturating_add(minor_units);
                if minor_units > 0 {
                    let of = (entry.payment_id, entry.kind as u8);
                    once.entry(of).or_default().insert(entry.transfer_id);
                    let sum = sums.entry(of).or_default();
                    *sum = sum.saturating_add(minor_units);
                }
            }
        }
        let off = transfers.into_iter().filter(|(_, sum)| *sum != 0);
        wrong.extend(off.map(|((id, _), sum)| format!("transfer {id} is off by {sum}")));
        let limited = [TransactionKind::Funding as u8, TransactionKind::Payment as u8];
        let twice = once.iter().filter(|((_, kind), ids)| limited.contains(kind) && ids.len() > 1);
        wrong.extend(twice.map(|((payment, _), _)| format!("payment {payment} was posted twice")));
        for payment in sums.keys().map(|(payment, _)| *payment).collect::<BTreeSet<_>>() {
            let sum = |kind| sums.get(&(payment, kind as u8)).copied().unwrap_or(0);
            use TransactionKind::{
                Funding, Payback, Payment, Refund, RefundReleased, RefundReserved,
            };
            let spent = sum(Refund).saturating_add(sum(RefundReleased));
            if sum(Refund) > sum(Payment)
                || spent > sum(RefundReserved)
                || sum(Payback) > sum(Funding)
            {
                wrong.push(format!("payment {payment} gave back more than it had"));
            }
            if sum(Payment) > 0 && self.holds.contains_key(&payment) {
                wrong.push(format!("payment {payment} was posted and still holds"));
            }
        }
        wrong
    }
}
