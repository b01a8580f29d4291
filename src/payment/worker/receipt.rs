//! Posting a receipt that fell due with the outcome: at least once from here,
//! exactly once in the room, which knows receipts by their payment.

use std::sync::Arc;
use std::time::Duration;

use super::micros;
use crate::backoff::full_jitter;
use crate::payment::{Core, ReceiptData};
use crate::refusal::{Reason, Refusal};
use crate::store::StoreError;
use crate::store::payment::{Leased, Row, Status};

pub(super) async fn post(core: &Arc<Core>, leased: Leased) -> Result<(), StoreError> {
    let payment = &leased.payment;
    let receipt = ReceiptData {
        payment_id: payment.id,
        payer: payment.payer.clone(),
        payee: payment.payee.clone(),
        amount: payment.amount,
        // What it tells of, whatever came since.
        status: Status::Succeeded,
    };
    let posted = core.parts.receipts.post(&payment.room_id, payment.payer.clone(), receipt).await;
    let then = match posted {
        Ok(()) => Row::Remove,
        Err(refusal) if is_final(&refusal) => {
            tracing::warn!(
                payment.id = %payment.id,
                reason = refusal.reason.as_str(),
                "the room does not take the receipt"
            );
            Row::Remove
        }
        Err(refusal) => {
            tracing::debug!(reason = refusal.reason.as_str(), "the receipt comes again");
            let attempts = leased.attempts.saturating_add(1);
            let (base, cap) = (Duration::from_millis(200), Duration::from_secs(60));
            let delay = base / 4 + full_jitter(base, cap, attempts, rand::random());
            Row::Again { at: core.now().saturating_add(micros(delay)), attempts }
        }
    };
    core.store().reschedule(&leased, then).await
}

/// Whether the room will never take it: it is gone, or the payer left it.
fn is_final(refusal: &Refusal) -> bool {
    matches!(
        refusal.reason,
        Reason::NotFound | Reason::NotAllowed | Reason::AccessEnded | Reason::InvalidArgument
    )
}
