//! What the services ask of each other, through the traits that they define:
//! none of them knows another.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::chat::{self, FrameLimit, RoomsView, Router};
use crate::cluster::link::Links;
use crate::operate::Followers;
use crate::payment::{Membership, Notifier, ReceiptData, ReceiptPoster};
use crate::principal::Principal;
use crate::proto::chat::v1 as pb;
use crate::refusal::Refusal;
use crate::store::chat::RoomId;
use crate::store::ledger::AccountName;
use crate::traffic::rate::FrameLimits;
use crate::transaction::Touched;

/// Payments post their receipts to rooms and ask who is in one.
#[derive(Debug)]
pub(super) struct Rooms {
    pub(super) router: Arc<dyn Router>,
    pub(super) view: Arc<dyn RoomsView>,
}

#[async_trait]
impl ReceiptPoster for Rooms {
    async fn post(
        &self,
        room_id: &str,
        payer: Principal,
        receipt: ReceiptData,
    ) -> Result<(), Refusal> {
        let receipt = pb::PaymentReceipt {
            payment_id: receipt.payment_id.to_string(),
            payer: receipt.payer.to_string(),
            payee: receipt.payee.to_string(),
            amount: Some(receipt.amount.to_proto()),
            status: receipt.status.as_str().to_owned(),
        };
        chat::receipts::post(self.router.as_ref(), room_id.into(), payer, receipt).await
    }
}

#[async_trait]
impl Membership for Rooms {
    async fn is_member(&self, room_id: &str, principal: &Principal) -> Result<bool, Refusal> {
        Ok(self.view.access(&room_id.into(), principal).await?.is_some())
    }
}

/// Postings wake the histories that follow their accounts, here and on other
/// nodes. Those who wait for a payment here were woken before.
#[derive(Debug)]
pub(super) struct Histories {
    pub(super) here: Touched,
    pub(super) elsewhere: Option<Arc<Links>>,
}

impl Notifier for Histories {
    fn touched(&self, accounts: &[AccountName], payment: Uuid) {
        for account in accounts {
            self.here.touched(account);
        }
        if let Some(links) = &self.elsewhere {
            let names: Vec<String> =
                accounts.iter().map(|account| account.as_str().to_owned()).collect();
            links.touched(&names, &[payment.as_bytes().to_vec()]);
        }
    }
}

/// Operators ask who follows a room.
#[derive(Debug)]
pub(super) struct Interest(pub(super) Arc<Links>);

impl Followers for Interest {
    fn followers(&self, room: &RoomId) -> Vec<String> {
        self.0.followers(room)
    }
}

/// Chat's frames count against their sender's share.
#[derive(Debug)]
pub(super) struct Frames(pub(super) FrameLimits);

impl FrameLimit for Frames {
    fn take(&self, principal: &Principal) -> Result<(), Duration> {
        self.0.take(principal)
    }
}
