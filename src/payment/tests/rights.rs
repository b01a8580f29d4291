//! Who may see and do what, and what bad requests get.

use std::sync::Arc;

use super::kit::{Kit, as_roles, as_user, config, fields, reason, sandbox, wanted, who};
use crate::principal::{Role, Roles};
use crate::proto::money::v1::Money;
use crate::proto::payment::v1 as pb;
use crate::proto::payment::v1::payment_service_server::PaymentService;
use crate::security::accounts::Accounts;

/// The receipt is posted in the payer's name, which is the shared account's.
#[tokio::test]
async fn a_room_takes_receipts_of_accounts_that_are_members() {
    let dir = Arc::new(tempfile::tempdir().expect("a directory"));
    let provider = Arc::new(sandbox(dir.path()).await);
    let accounts = Accounts::new([(who("alice"), who("shop")), (who("eve"), who("alice"))]);
    let kit = Kit::sharing(dir, config(), provider, accounts).await;
    // Only alice is a member of the room.
    for name in ["alice", "eve"] {
        let wanted =
            pb::ProcessPaymentRequest { room_id: "lobby".to_owned(), ..wanted(name, "sandbox_ok") };
        let refused = kit.handler().process_payment(as_user(name, wanted)).await;
        assert_eq!(fields(&refused.expect_err("no member")), ["room_id"], "{name}");
    }
}

fn role(role: Role) -> Roles {
    Roles::NONE.with(role)
}

#[tokio::test]
async fn somebody_elses_payment_does_not_exist() {
    let kit = Kit::new().await;
    let payment_id = kit.pay(wanted("a", "sandbox_ok")).await.payment_id;
    let get = |name, roles| {
        let request = pb::GetPaymentRequest { payment_id: payment_id.clone() };
        let request = as_roles(name, roles, request);
        let handler = kit.handler();
        async move { handler.get_payment(request).await.map(|_| ()).map_err(|s| reason(&s)) }
    };
    assert_eq!(get("toko", role(Role::Customer)).await, Ok(()));
    assert_eq!(get("eve", role(Role::Customer)).await, Err("NOT_FOUND".to_owned()));
    assert_eq!(get("eve", role(Role::Merchant)).await, Err("NOT_FOUND".to_owned()));
    for reader in [Role::Support, Role::Auditor, Role::Operator] {
        assert_eq!(get("eve", role(reader)).await, Ok(()));
    }

    let refund = |name, roles| {
        let (payment_id, idempotency_key) = (payment_id.clone(), "r".to_owned());
        let request = pb::RefundPaymentRequest { payment_id, idempotency_key, minor_units: 1 };
        let request = as_roles(name, roles, request);
        let handler = kit.handler();
        async move { handler.refund_payment(request).await.map(|_| ()).map_err(|s| reason(&s)) }
    };
    assert_eq!(refund("eve", role(Role::Merchant)).await, Err("NOT_FOUND".to_owned()));
    assert_eq!(refund("alice", role(Role::Merchant)).await, Err("NOT_ALLOWED".to_owned()));
    assert_eq!(refund("eve", role(Role::Support)).await, Err("NOT_ALLOWED".to_owned()));
    assert_eq!(refund("eve", role(Role::Operator)).await, Ok(()));
    assert_eq!(refund("toko", role(Role::Merchant)).await, Ok(()));
}

#[tokio::test]
async fn every_violated_field_is_named_at_once() {
    let kit = Kit::new().await;
    let card = "4111 1111 1111 1111";
    let request = pb::ProcessPaymentRequest {
        idempotency_key: String::new(),
        payee: "alice".to_owned(),
        amount: Some(Money { currency: "XXX".to_owned(), minor_units: 0 }),
        payment_method: "pm_card_visa".to_owned(),
        capture: 7,
        description: format!("my card is {card}"),
        metadata: [("card".to_owned(), card.to_owned())].into(),
        room_id: "Not A Room".to_owned(),
    };
    let refused = kit.handler().process_payment(as_user("alice", request)).await;
    let refused = refused.expect_err("nothing is right");
    let mut named = fields(&refused);
    named.sort();
    let all = [
        "amount.currency",
        "amount.minor_units",
        "capture",
        "description",
        "idempotency_key",
        "metadata",
        "payee",
        "payment_method",
        "room_id",
    ];
    assert_eq!(named, all);
    assert!(!format!("{refused:?}").contains("1111"));

    let card_as_method = pb::ProcessPaymentRequest {
        payment_method: format!("sandbox_ok:{}", card.replace(' ', "")),
        ..wanted("a", "")
    };
    let refused = kit.handler().process_payment(as_user("alice", card_as_method)).await;
    assert_eq!(fields(&refused.expect_err("a card")), ["payment_method"]);
}

#[tokio::test]
async fn a_key_stands_for_one_body_of_one_account() {
    let kit = Kit::new().await;
    let first = kit.pay(wanted("a", "sandbox_ok")).await;
    let mut other = wanted("a", "sandbox_ok");
    other.description = "another".to_owned();
    let refused = kit.handler().process_payment(as_user("alice", other)).await;
    assert_eq!(reason(&refused.expect_err("another body")), "KEY_REUSED");
    let bob = kit.handler().process_payment(as_user("bob", wanted("a", "sandbox_ok"))).await;
    let bob = bob.expect("bob's own key").into_inner().payment.expect("is given");
    assert_ne!(bob.payment_id, first.payment_id);
}

#[tokio::test]
async fn listings_are_paged_newest_first_and_filtered() {
    let kit = Kit::new().await;
    let mut made = Vec::new();
    for n in 0..5 {
        let method = if n == 2 { "sandbox_declined" } else { "sandbox_ok" };
        made.push(kit.pay(wanted(&format!("k{n}"), method)).await.payment_id);
    }
    made.reverse();
    let list = |name, request| {
        let request = as_user(name, request);
        let handler = kit.handler();
        async move { handler.list_payments(request).await.map(tonic::Response::into_inner) }
    };
    for name in ["alice", "toko"] {
        let (mut seen, mut page_token) = (Vec::new(), String::new());
        loop {
            let request =
                pb::ListPaymentsRequest { page_size: 2, page_token, ..Default::default() };
            let page = list(name, request).await.expect("a page");
            seen.extend(page.payments.into_iter().map(|payment| payment.payment_id));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, made);
    }
    let failed = pb::ListPaymentsRequest {
        statuses: vec![pb::PaymentStatus::Failed as i32],
        ..Default::default()
    };
    assert_eq!(list("alice", failed).await.expect("a page").payments.len(), 1);
    let others = pb::ListPaymentsRequest { account: "alice".to_owned(), ..Default::default() };
    assert_eq!(reason(&list("eve", others).await.expect_err("not hers")), "NOT_FOUND");
    let bad = pb::ListPaymentsRequest {
        page_size: 501,
        statuses: vec![0],
        page_token: "?".to_owned(),
        ..Default::default()
    };
    let refused = list("alice", bad).await.expect_err("bad");
    assert_eq!(fields(&refused), ["page_size", "statuses", "page_token"]);
}
