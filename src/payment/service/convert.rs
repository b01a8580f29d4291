//! A payment as the contract has it.

use crate::clock;
use crate::proto::payment::v1 as pb;
use crate::store::payment::PaymentRecord;

pub(super) fn payment(record: PaymentRecord) -> pb::Payment {
    let proven = record.proven;
    pb::Payment {
        payment_id: record.id.to_string(),
        // The stored numbers are the contract's.
        status: proven.status as i32,
        amount: Some(record.amount.to_proto()),
        payer: record.payer.to_string(),
        payee: record.payee.to_string(),
        capture: record.capture as i32,
        captured_minor_units: proven.captured,
        refunded_minor_units: proven.refunded,
        outcome_unknown: proven.unknown,
        failure: proven
            .failure
            .map(|failure| pb::PaymentFailure { code: failure.code, message: failure.message }),
        next_action: proven
            .next_action
            .map(|action| pb::NextAction { r#type: action.kind, url: action.url }),
        description: record.description,
        metadata: record.metadata.into_iter().collect(),
        room_id: record.room_id,
        provider: record.provider,
        created_at: Some(clock::timestamp(record.created_at)),
        updated_at: Some(clock::timestamp(record.updated_at)),
        version: record.version,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::payment::{CaptureMode, Status};

    #[test]
    fn stored_numbers_are_the_contracts() {
        for status in Status::ALL {
            let there = pb::PaymentStatus::try_from(*status as i32).expect("in the contract");
            let name = format!("PAYMENT_STATUS_{}", status.as_str());
            assert_eq!(there.as_str_name(), name);
        }
        for capture in CaptureMode::ALL {
            let there = pb::CaptureMode::try_from(*capture as i32).expect("in the contract");
            assert_eq!(there.as_str_name(), format!("CAPTURE_MODE_{}", capture.as_str()));
        }
    }
}
