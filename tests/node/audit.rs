//! The audit log, from outside: who did what to whose, and what came of it.

use bytes::Bytes;
use serde_json::Value;
use simpul::proto::chat::v1::AddMemberRequest;
use simpul::proto::chat::v1::chat_response::Frame as Tell;
use simpul::proto::chat::v1::chat_service_client::ChatServiceClient;
use simpul::proto::chat::v1::join::From;
use simpul::proto::payment::v1::payment_service_client::PaymentServiceClient;
use simpul::proto::payment::v1::{GetPaymentRequest, ListPaymentsRequest, RefundPaymentRequest};
use simpul::proto::transaction::v1::GetBalanceRequest;
use simpul::proto::transaction::v1::transaction_service_client::TransactionServiceClient;
use tonic::Code;

use crate::raw::{self, call};
use crate::support::{Node, eventually, with_token};
use crate::talk::{Session, room};

/// One line as (method or frame, who, decision, code, reason, subject).
fn short(line: &str) -> [String; 6] {
    let line: Value = serde_json::from_str(line).expect("one object a line");
    let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let method = text("method").rsplit('/').next().unwrap_or_default().to_owned();
    let frame = text("frame");
    let what = if frame.is_empty() { method } else { frame };
    let who = text("principal").replace("user/", "").replace("@dev.simpul", "");
    let reason = text("why").split(':').next().unwrap_or_default().to_owned();
    [what, who, text("decision"), text("code"), reason, text("subject")]
}

/// Makes one last recorded call, and returns all lines before its own.
async fn lines(node: &Node) -> Vec<[String; 6]> {
    node.ok(&["room", "create", "the-last", "--as", "zoe"]);
    eventually("the last line", async || {
        let text = std::fs::read_to_string(node.dir().join("audit.log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().map(short).collect();
        let last = lines.iter().position(|line| line[5] == "room the-last")?;
        Some(lines.into_iter().take(last).collect())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payments_and_accounts_are_named_with_what_came_of_it() {
    let node = Node::start();
    let channel = node.channel().await;
    let [alice, eve] = ["alice", "eve"].map(|who| node.token(who, &[]));
    let auditor = node.token("ana", &["auditor"]);
    let pay = ["pay", "--as", "alice", "--to", "toko", "--amount", "IDR 50", "--output", "json"];
    let paid: Value =
        serde_json::from_str(&node.ok(&[&pay[..], &["--method", "sandbox_ok"]].concat()))
            .expect("one object");
    let id = paid["payment_id"].as_str().expect("an id").to_owned();

    let mut payments = PaymentServiceClient::new(channel.clone());
    let mut codes = Vec::new();
    for token in [&alice, &auditor, &eve] {
        let read = GetPaymentRequest { payment_id: id.clone() };
        codes.push(payments.get_payment(with_token(read, token)).await.map_err(|s| s.code()).err());
    }
    assert_eq!(codes, [None, None, Some(Code::NotFound)]);
    for token in [&alice, &eve] {
        let (payment_id, idempotency_key) = (id.clone(), "r".to_owned());
        let refund = RefundPaymentRequest { payment_id, idempotency_key, minor_units: 0 };
        payments.refund_payment(with_token(refund, token)).await.expect_err("neither may");
    }
    let mut transactions = TransactionServiceClient::new(channel);
    for (account, token) in [("toko", &auditor), ("", &auditor), ("", &alice), ("toko", &eve)] {
        let list = ListPaymentsRequest { account: account.into(), ..Default::default() };
        let _ = payments.list_payments(with_token(list, token)).await;
        let balance = GetBalanceRequest { account: account.into() };
        let _ = transactions.get_balance(with_token(balance, token)).await;
    }

    let payment = &*format!("payment {id} of user/alice@dev.simpul");
    let toko = "account user/toko@dev.simpul";
    // Nobody's reading of their own.
    let expected = [
        ["ProcessPayment", "alice", "allowed", "Ok", "", payment],
        ["GetPayment", "ana", "allowed", "Ok", "", payment],
        ["GetPayment", "eve", "denied", "NotFound", "NOT_FOUND", payment],
        ["RefundPayment", "alice", "denied", "PermissionDenied", "NOT_ALLOWED", payment],
        ["RefundPayment", "eve", "denied", "NotFound", "NOT_FOUND", payment],
        ["ListPayments", "ana", "allowed", "Ok", "", toko],
        ["GetBalance", "ana", "allowed", "Ok", "", toko],
        ["ListPayments", "eve", "denied", "NotFound", "NOT_FOUND", toko],
        ["GetBalance", "eve", "denied", "NotFound", "NOT_FOUND", toko],
    ];
    assert_eq!(lines(&node).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_and_members_are_named_on_streams_too() {
    let node = Node::start();
    let channel = node.channel().await;
    let [alice, eve] = ["alice", "eve"].map(|who| node.token(who, &[]));
    room(channel.clone(), &alice, "lobby", &["bob"]).await;
    let mut rooms = ChatServiceClient::new(channel.clone());
    let add = AddMemberRequest {
        room_id: "lobby".into(),
        principal: "eve".into(),
        ..AddMemberRequest::default()
    };
    rooms.add_member(with_token(add, &eve)).await.expect_err("a stranger");
    let mut session = Session::join(channel.clone(), &alice, "lobby", From::Latest(true)).await;
    session.send("lobby", "", "no id").await;
    assert!(matches!(session.next().await, Tell::Failed(_)));
    let mut stranger = Session::open(channel, &eve).await.expect("a session");
    stranger.ask_join("lobby", From::Latest(true)).await;
    assert!(matches!(stranger.next().await, Tell::Failed(_)));
    let mut client = raw::connect(&node).await;
    let delete = call("/simpul.chat.v1.ChatService/DeleteRoom", &alice).body(());
    let not_utf8 = Bytes::from_static(&[0, 0, 0, 0, 3, 0x0a, 1, 0xff]);
    let answer = raw::ask(&mut client, delete.expect("a request"), not_utf8).await;
    assert_eq!(answer.grpc, Some(3));

    let bob = "room lobby member user/bob@dev.simpul";
    let expected = [
        ["CreateRoom", "alice", "allowed", "Ok", "", "room lobby"],
        ["AddMember", "alice", "allowed", "Ok", "", bob],
        ["AddMember", "eve", "denied", "NotFound", "NOT_FOUND", &bob.replace("bob", "eve")],
        ["Chat", "alice", "allowed", "Ok", "", ""],
        ["join", "alice", "allowed", "Ok", "", "room lobby"],
        ["send", "alice", "failed", "InvalidArgument", "INVALID_ARGUMENT", "room lobby"],
        ["Chat", "eve", "allowed", "Ok", "", ""],
        ["join", "eve", "denied", "NotFound", "NOT_FOUND", "room lobby"],
        ["DeleteRoom", "alice", "failed", "InvalidArgument", "MALFORMED_MESSAGE", ""],
    ];
    assert_eq!(lines(&node).await, expected);
}
