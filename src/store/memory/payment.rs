//! The payment area in memory: each call is one step, whole or not at all.

mod apply;
mod trail;

use std::collections::BTreeMap;

use async_trait::async_trait;
use uuid::Uuid;

use super::MemoryStore;
use crate::principal::Principal;
use crate::store::StoreError;
use crate::store::ledger::LACKS_BALANCE;
use crate::store::payment::backlog::LATE;
use crate::store::payment::{
    Backlog, Change, Claim, Claimed, Key, KeyRecord, Leased, Listing, Method, OperationKind,
    OperationRecord, OperationStatus, PaymentRecord, PaymentStore, Proven, Row, Status, Task,
};

/// How many keys are forgotten at once.
const KEYS: usize = 500;

/// The area's tables.
#[derive(Debug, Clone, Default)]
pub(super) struct Payments {
    payments: BTreeMap<Uuid, PaymentRecord>,
    /// With their method tokens.
    operations: BTreeMap<Uuid, OperationRecord>,
    /// When each operation changed last.
    updated: BTreeMap<Uuid, i64>,
    /// With the time of their claim.
    keys: BTreeMap<(Principal, Method, String), (KeyRecord, i64)>,
    outbox: BTreeMap<i64, Due>,
    last_row: i64,
}

/// A row of the outbox.
#[derive(Debug, Clone)]
struct Due {
    task: Task,
    payment: Uuid,
    operation: Uuid,
    next_at: i64,
    attempts: u32,
    lease_owner: String,
    lease_until: i64,
    /// It is due again as soon as its lease ends.
    hastened: bool,
    trace: String,
    created_at: i64,
}

fn name(key: &Key) -> (Principal, Method, String) {
    (key.account.clone(), key.method, key.key.clone())
}

#[async_trait]
impl PaymentStore for MemoryStore {
    async fn claim(&self, claim: Claim) -> Result<Claimed, StoreError> {
        match self.book(|books| books.claim(claim)).await {
            // It keeps nothing, so it could not be an answer of the transaction.
            Err(StoreError::Conflict(LACKS_BALANCE)) => Ok(Claimed::InsufficientBalance),
            claimed => claimed,
        }
    }

    async fn key(&self, key: &Key) -> Result<Option<KeyRecord>, StoreError> {
        let found = |payments: &Payments| payments.keys.get(&name(key)).map(|(it, _)| it.clone());
        self.read(|data| found(&data.books.payments)).await
    }

    async fn payment(&self, id: Uuid) -> Result<Option<PaymentRecord>, StoreError> {
        self.read(|data| data.books.payments.payment(id)).await
    }

    async fn operation(&self, id: Uuid) -> Result<Option<OperationRecord>, StoreError> {
        self.read(|data| data.books.payments.operations.get(&id).map(without_method)).await
    }

    async fn charge(&self, payment: Uuid) -> Result<Option<OperationRecord>, StoreError> {
        self.read(|data| data.books.payments.charge(payment).map(without_method)).await
    }

    async fn list(&self, listing: &Listing) -> Result<Vec<PaymentRecord>, StoreError> {
        self.read(|data| data.books.payments.list(listing)).await
    }

    async fn lease(
        &self,
        owner: &str,
        now: i64,
        until: i64,
        limit: u32,
    ) -> Result<Vec<Leased>, StoreError> {
        self.book(|books| Ok(books.payments.lease(owner, now, until, limit))).await
    }

    async fn mark_submitting(&self, leased: &Leased, now: i64) -> Result<(), StoreError> {
        self.book(|books| books.payments.mark_submitting(leased, now)).await
    }

    async fn record(&self, change: Change) -> Result<(), StoreError> {
        self.book(|books| books.record(change)).await
    }

    async fn reschedule(&self, leased: &Leased, then: Row) -> Result<(), StoreError> {
        self.book(|books| books.payments.move_row(leased.row, &leased.owner, then)).await
    }

    async fn hasten(&self, payment: Uuid, now: i64) -> Result<(), StoreError> {
        self.book(|books| {
            let rows = books.payments.outbox.values_mut();
            for row in rows.filter(|row| row.payment == payment && row.task == Task::Drive) {
                row.hastened = row.lease_until > now;
                if !row.hastened {
                    row.next_at = 0;
                }
            }
            Ok(())
        })
        .await
    }

    async fn next_due(&self) -> Result<Option<i64>, StoreError> {
        self.read(|data| data.books.payments.outbox.values().map(|row| row.next_at).min()).await
    }

    async fn recover(&self, now: i64, of: Option<&str>) -> Result<u64, StoreError> {
        self.book(|books| Ok(books.payments.recover(now, of))).await
    }

    async fn backlog(&self, now: i64) -> Result<Backlog, StoreError> {
        self.read(|data| {
            let Payments { payments, outbox, .. } = &data.books.payments;
            let answered = |row: &&Due| {
                let waits = payments.get(&row.payment).is_some_and(|payment| {
                    let Proven { status, unknown, .. } = payment.proven;
                    matches!(status, Status::RequiresAction | Status::Pending) && !unknown
                });
                waits && row.next_at > now.saturating_sub(LATE)
            };
            let own = outbox.values().filter(|row| !answered(row));
            let oldest = own.min_by_key(|row| row.created_at);
            Backlog {
                depth: outbox.len() as u64,
                oldest: oldest.map(|row| row.created_at),
                payment: oldest.map(|row| row.payment),
            }
        })
        .await
    }

    async fn forget_payment_keys(&self, before: i64) -> Result<u64, StoreError> {
        self.book(|books| {
            let Payments { keys, outbox, .. } = &mut books.payments;
            let busy = |payment: Uuid| outbox.values().any(|row| row.payment == payment);
            let old = keys.iter().filter(|(_, (key, at))| *at < before && !busy(key.payment_id));
            let old: Vec<_> = old.take(KEYS).map(|(name, _)| name.clone()).collect();
            for name in &old {
                keys.remove(name);
            }
            Ok(old.len() as u64)
        })
        .await
    }
}

fn without_method(operation: &OperationRecord) -> OperationRecord {
    OperationRecord { method: None, ..operation.clone() }
}

impl Payments {
    fn of(&self, payment: Uuid) -> impl Iterator<Item = &OperationRecord> {
        self.operations.values().filter(move |operation| operation.payment_id == payment)
    }

    fn charge(&self, payment: Uuid) -> Option<&OperationRecord> {
        self.of(payment).find(|operation| operation.kind == OperationKind::Charge)
    }

    /// Whether an operation of the payment is under way.
    fn is_busy(&self, payment: Uuid) -> bool {
        self.of(payment).any(|operation| operation.status.is_live())
    }

    fn payment(&self, id: Uuid) -> Option<PaymentRecord> {
        let unsent = |charge: &OperationRecord| charge.status == OperationStatus::New;
        self.payments.get(&id).map(|payment| PaymentRecord {
            busy: self.is_busy(id),
            unsent: self.charge(id).is_some_and(unsent),
            ..payment.clone()
        })
    }

    fn list(&self, listing: &Listing) -> Vec<PaymentRecord> {
        let Listing { account, statuses, before, limit } = listing;
        let wanted = |payment: &&PaymentRecord| {
            (payment.payer == *account || payment.payee == *account)
                && before.is_none_or(|before| payment.id < before)
                && (statuses.is_empty() || statuses.contains(&payment.proven.status))
        };
        let newest_first = self.payments.values().rev().filter(wanted);
        let page = newest_first.take(usize::try_from(*limit).unwrap_or(usize::MAX));
        page.filter_map(|payment| self.payment(payment.id)).collect()
    }

    fn lease(&mut self, owner: &str, now: i64, until: i64, limit: u32) -> Vec<Leased> {
        let due =
            self.outbox.iter().filter(|(_, row)| row.next_at <= now && row.lease_until <= now);
        let mut due: Vec<_> = due.map(|(id, row)| (row.next_at, *id)).collect();
        due.sort_unstable();
        due.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        for (_, id) in &due {
            if let Some(row) = self.outbox.get_mut(id) {
                owner.clone_into(&mut row.lease_owner);
                (row.lease_until, row.next_at, row.hastened) = (until, until, false);
            }
        }
        let leased = |(_, id): (i64, i64)| {
            let row = self.outbox.get(&id)?;
            Some(Leased {
                row: id,
                owner: owner.to_owned(),
                task: row.task,
                attempts: row.attempts,
                trace: row.trace.clone(),
                payment: self.payment(row.payment)?,
                operation: self.operations.get(&row.operation)?.clone(),
            })
        };
        due.into_iter().filter_map(leased).collect()
    }
}
