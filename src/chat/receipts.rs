//! Posts a payment's receipt into a room, once per payment and status.

use std::sync::Arc;

use super::{Content, Proposal, Router};
use crate::principal::Principal;
use crate::proto::chat::v1 as pb;
use crate::refusal::Refusal;
use crate::store::chat::RoomId;

/// Posts the receipt in the payer's name. Returns when it is durable; posting
/// it again changes nothing, so whoever does not know may repeat it. NOT_FOUND
/// when the payer is no member of the room (any more): repeating will not help.
pub async fn post(
    router: &dyn Router,
    room: RoomId,
    payer: Principal,
    receipt: pb::PaymentReceipt,
) -> Result<(), Refusal> {
    let client_message_id = key(&receipt);
    let content = Content::Receipt(receipt);
    router
        .publish(Proposal { room, sender: payer, client_message_id, after: None, content })
        .await
        .map(drop)
}

/// The colons keep it apart from every name that a client can give, so nobody
/// can take a receipt's place.
fn key(receipt: &pb::PaymentReceipt) -> Arc<str> {
    format!("receipt:{}:{}", receipt.payment_id, receipt.status).into()
}

/// Whether the name is one that [`post`] gives: the entry is the node's, and
/// the contract shows no client message id for it.
pub fn is_key(client_message_id: &str) -> bool {
    client_message_id.starts_with("receipt:")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::is_client_key;

    #[test]
    fn the_key_names_payment_and_status_and_is_no_clients() {
        let receipt = |payment: &str, status: &str| pb::PaymentReceipt {
            payment_id: payment.to_owned(),
            status: status.to_owned(),
            ..Default::default()
        };
        let one = key(&receipt("p1", "SUCCEEDED"));
        assert_eq!(one, key(&receipt("p1", "SUCCEEDED")));
        assert_ne!(one, key(&receipt("p1", "REFUNDED")));
        assert_ne!(one, key(&receipt("p2", "SUCCEEDED")));
        assert!(is_key(&one));
        assert!(!is_client_key(&one));
    }
}
