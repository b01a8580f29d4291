//! What must be the same when a client message id comes again, as SHA-256.
//!
//! The hash goes over a tuple of our own: a version, the kind, then each field
//! with its length before it, so that no two tuples read alike. It never goes
//! over protobuf bytes, which may be written in more than one way. A change of
//! the tuple needs a new version.

use aws_lc_rs::digest::{Context, SHA256};

use crate::principal::Principal;
use crate::proto::chat::v1 as pb;
use crate::store::chat::{EntryKind, RoomRole};

const VERSION: u8 = 1;

struct Tuple(Context);

impl Tuple {
    fn of(kind: EntryKind) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(&[VERSION, kind as u8]);
        Self(context)
    }

    fn text(mut self, field: &str) -> Self {
        self.0.update(&(field.len() as u64).to_be_bytes());
        self.0.update(field.as_bytes());
        self
    }

    fn number(mut self, field: i128) -> Self {
        self.0.update(&field.to_be_bytes());
        self
    }

    fn finish(self) -> [u8; 32] {
        let mut digest = [0; 32];
        digest.copy_from_slice(self.0.finish().as_ref());
        digest
    }
}

pub(super) fn text(body: &str, reply_to: u64) -> [u8; 32] {
    Tuple::of(EntryKind::Text).text(body).number(reply_to.into()).finish()
}

pub(super) fn room(title: &str) -> [u8; 32] {
    Tuple::of(EntryKind::Room).text(title).finish()
}

pub(super) fn membership(member: &Principal, after: Option<RoomRole>) -> [u8; 32] {
    // The numbers are the contract's and never change.
    let role = after.map_or(0, |role| i128::from(role as u8));
    Tuple::of(EntryKind::Membership).text(member.as_str()).number(role).finish()
}

/// Of what leaves no key behind: a name for it is never found again.
pub(super) fn deletion() -> [u8; 32] {
    Tuple::of(EntryKind::Room).text("").number(-1).finish()
}

pub(super) fn receipt(receipt: &pb::PaymentReceipt) -> [u8; 32] {
    let amount = receipt.amount.clone().unwrap_or_default();
    Tuple::of(EntryKind::Payment)
        .text(&receipt.payment_id)
        .text(&receipt.payer)
        .text(&receipt.payee)
        .text(&amount.currency)
        .number(amount.minor_units.into())
        .text(&receipt.status)
        .finish()
}
