//! What changes payments: claims, sending, outcomes, recovery.

use uuid::Uuid;

use super::{Due, Payments, name};
use crate::money::Money;
use crate::store::StoreError;
use crate::store::memory::ledger::Books;
use crate::store::payment::{
    Change, Claim, Claimed, Failure, Hold, KeyRecord, Leased, NewPayment, OperationKind,
    OperationRecord, OperationStatus, PaymentRecord, Proven, Row, Status, Task, Work,
};

const LEASE_OVER: StoreError = StoreError::Conflict("the lease is over");

impl Books {
    pub(super) fn claim(&mut self, claim: Claim) -> Result<Claimed, StoreError> {
        if let Some((known, _)) = self.payments.keys.get(&name(&claim.key)) {
            return Ok(Claimed::Known(known.clone()));
        }
        let (kind, minor_units, method, status) = match &claim.work {
            Work::Pay(new) => {
                self.payments.payments.insert(claim.payment_id, begin(&claim, new));
                let method = Some(new.method.clone());
                (OperationKind::Charge, new.amount.minor_units, method, OperationStatus::New)
            }
            Work::Operate { version, kind, minor_units, reservation } => {
                if !self.payments.touch(&claim, *version) {
                    return Ok(Claimed::Moved);
                }
                if let Some(transfer) = reservation {
                    self.post(transfer)?;
                }
                (*kind, *minor_units, None, OperationStatus::New)
            }
            Work::Withdraw { version, minor_units, failure } => {
                if !self.payments.withdraw(&claim, *version, failure) {
                    return Ok(Claimed::Moved);
                }
                (OperationKind::Cancel, *minor_units, None, OperationStatus::Done)
            }
        };
        let provider_key = claim.operation_id.simple().to_string();
        let charge = self.payments.charge(claim.payment_id);
        let charge_key = charge.map_or(&provider_key, |charge| &charge.provider_key).clone();
        let operation = OperationRecord {
            id: claim.operation_id,
            payment_id: claim.payment_id,
            kind,
            status,
            minor_units,
            provider_key,
            charge_key,
            method,
            failure: None,
            created_at: claim.now,
        };
        self.payments.operations.insert(claim.operation_id, operation);
        self.payments.updated.insert(claim.operation_id, claim.now);
        if status == OperationStatus::New {
            let of = (claim.payment_id, claim.operation_id);
            self.payments.enqueue(Task::Drive, of, claim.trace, claim.now);
        }
        let record = KeyRecord {
            request_hash: claim.request_hash,
            payment_id: claim.payment_id,
            operation_id: claim.operation_id,
        };
        self.payments.keys.insert(name(&claim.key), (record, claim.now));
        Ok(Claimed::New)
    }

    pub(super) fn record(&mut self, change: Change) -> Result<(), StoreError> {
        let (status, version) = (change.status, change.version);
        let payment = self.payments.payments.get_mut(&change.payment_id);
        let stands = |it: &&mut PaymentRecord| it.proven.status == status && it.version == version;
        let Some(payment) = payment.filter(stands) else {
            return Err(StoreError::Conflict("the payment has moved"));
        };
        payment.proven = change.proven;
        payment.version += 1;
        payment.updated_at = change.now;
        let Some(operation) = self.payments.operations.get_mut(&change.operation_id) else {
            return Err(StoreError::Conflict("the operation is gone"));
        };
        operation.status = change.operation;
        operation.failure = change.operation_failure.or(operation.failure.take());
        self.payments.updated.insert(change.operation_id, change.now);
        if change.erase_method {
            operation.method = None;
        }
        for transfer in &change.transfers {
            self.post(transfer)?;
        }
        match change.hold {
            Hold::Keep => {}
            Hold::Put { account, currency, minor_units } => {
                self.put_hold(change.payment_id, account, Money { currency, minor_units })?;
            }
            Hold::Release => self.release_hold(change.payment_id),
        }
        if change.receipt {
            let row = self.payments.outbox.get(&change.row);
            let trace = row.map(|row| row.trace.clone()).unwrap_or_default();
            let of = (change.payment_id, change.operation_id);
            self.payments.enqueue(Task::Receipt, of, trace, change.now);
        }
        self.payments.move_row(change.row, &change.owner, change.then)
    }
}

/// A payment as it begins.
fn begin(claim: &Claim, new: &NewPayment) -> PaymentRecord {
    PaymentRecord {
        id: claim.payment_id,
        payer: new.payer.clone(),
        payee: new.payee.clone(),
        amount: new.amount,
        capture: new.capture,
        proven: Proven {
            status: Status::Created,
            captured: 0,
            refunded: 0,
            unknown: false,
            failure: None,
            next_action: None,
        },
        // Found out when it is read.
        busy: false,
        unsent: false,
        description: new.description.clone(),
        metadata: new.metadata.clone(),
        room_id: new.room_id.clone(),
        provider: new.provider.clone(),
        created_at: claim.now,
        updated_at: claim.now,
        version: 1,
    }
}

impl Payments {
    /// Raises the version if the payment has not moved and nothing is under way.
    fn touch(&mut self, claim: &Claim, version: u64) -> bool {
        let busy = self.is_busy(claim.payment_id);
        let payment = self.payments.get_mut(&claim.payment_id);
        let Some(payment) = payment.filter(|it| it.version == version && !busy) else {
            return false;
        };
        payment.version += 1;
        payment.updated_at = claim.now;
        true
    }

    /// Ends a charge that was never sent, and its payment.
    fn withdraw(&mut self, claim: &Claim, version: u64, failure: &Failure) -> bool {
        let id = claim.payment_id;
        let unsent = |it: &&OperationRecord| it.status == OperationStatus::New;
        let charge = self.charge(id).filter(unsent).map(|charge| charge.id);
        let payment = self.payments.get_mut(&id).filter(|payment| payment.version == version);
        let (Some(charge), Some(payment)) = (charge, payment) else { return false };
        payment.proven.status = Status::Canceled;
        payment.proven.unknown = false;
        payment.proven.next_action = None;
        payment.version += 1;
        payment.updated_at = claim.now;
        if let Some(charge) = self.operations.get_mut(&charge) {
            self.updated.insert(charge.id, claim.now);
            charge.status = OperationStatus::Failed;
            charge.failure = Some(failure.clone());
            charge.method = None;
        }
        self.outbox.retain(|_, row| row.payment != id);
        true
    }

    fn enqueue(&mut self, task: Task, of: (Uuid, Uuid), trace: String, now: i64) {
        self.last_row += 1;
        let row = Due {
            task,
            payment: of.0,
            operation: of.1,
            next_at: now,
            attempts: 0,
            lease_owner: String::new(),
            lease_until: 0,
            hastened: false,
            trace,
            created_at: now,
        };
        self.outbox.insert(self.last_row, row);
    }

    pub(super) fn mark_submitting(&mut self, leased: &Leased, now: i64) -> Result<(), StoreError> {
        let row = self.outbox.get(&leased.row);
        if !row.is_some_and(|row| row.lease_owner == leased.owner && row.lease_until > now) {
            return Err(LEASE_OVER);
        }
        let operation = self.operations.get_mut(&leased.operation.id);
        let operation = operation.filter(|it| it.status.is_live()).ok_or(LEASE_OVER)?;
        operation.status = OperationStatus::Submitting;
        self.updated.insert(leased.operation.id, now);
        Ok(())
    }

    /// Refused when the lease has gone to somebody else.
    pub(super) fn move_row(&mut self, id: i64, owner: &str, then: Row) -> Result<(), StoreError> {
        let row = self.outbox.get_mut(&id).filter(|row| row.lease_owner == owner);
        let row = row.ok_or(LEASE_OVER)?;
        match then {
            Row::Remove => drop(self.outbox.remove(&id)),
            Row::Again { at, attempts } => {
                row.next_at = if row.hastened { 0 } else { at };
                row.attempts = attempts;
                row.hastened = false;
                row.lease_until = 0;
                row.lease_owner.clear();
            }
        }
        Ok(())
    }

    pub(super) fn recover(&mut self, now: i64, of: Option<&str>) -> u64 {
        let is_gone = |owner: &str| of.is_none_or(|of| of == owner);
        let outbox = &self.outbox;
        let sent_by_gone = |operation: &OperationRecord| {
            let mut rows = outbox.values().filter(|row| row.operation == operation.id);
            of.is_none() || rows.any(|row| is_gone(&row.lease_owner))
        };
        let mut unknown = 0;
        for operation in self.operations.values_mut() {
            if operation.status != OperationStatus::Submitting || !sent_by_gone(operation) {
                continue;
            }
            operation.status = OperationStatus::Unknown;
            self.updated.insert(operation.id, now);
            unknown += 1;
            if let Some(payment) = self.payments.get_mut(&operation.payment_id) {
                payment.proven.unknown = true;
                payment.version += 1;
                payment.updated_at = now;
            }
        }
        for row in self.outbox.values_mut() {
            if row.lease_until > 0 && is_gone(&row.lease_owner) {
                row.lease_owner.clear();
                (row.lease_until, row.next_at) = (0, now);
            }
        }
        unknown
    }
}
