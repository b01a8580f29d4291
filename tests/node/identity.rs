//! Who is believed, from outside.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use simpul::proto::chat::v1::chat_request::Frame as Ask;
use simpul::proto::chat::v1::chat_response::Frame as Tell;
use simpul::proto::chat::v1::join::From;
use simpul::proto::chat::v1::{Ping, Reauthenticate};
use simpul::proto::identity::v1::identity_service_client::IdentityServiceClient;
use simpul::proto::identity::v1::{Proof, WhoAmIRequest, WhoAmIResponse};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use crate::support::{Node, with_token};
use crate::talk::{Session, room};

async fn who_am_i(channel: &Channel, token: &str) -> Result<WhoAmIResponse, Status> {
    let mut client = IdentityServiceClient::new(channel.clone());
    client.who_am_i(with_token(WhoAmIRequest {}, token)).await.map(tonic::Response::into_inner)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// The claims and header of a good token, to be spoiled one by one.
fn parts(token: &str) -> (Value, Value) {
    use base64::Engine;
    let decode = |part: &str| {
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).expect("base64");
        serde_json::from_slice(&bytes).expect("JSON")
    };
    let mut parts = token.split('.');
    let header = decode(parts.next().expect("a header"));
    (header, decode(parts.next().expect("claims")))
}

/// The token with other claims, signed by the node's own key.
fn resigned(node: &Node, token: &str, change: impl FnOnce(&mut Value)) -> String {
    let pem = std::fs::read(node.dir().join("dev/token-key.pem")).expect("the token key");
    let key = EncodingKey::from_ed_pem(&pem).expect("a key");
    let (header, mut claims) = parts(token);
    change(&mut claims);
    let kid = header["kid"].as_str().map(str::to_owned);
    let header = Header { kid, ..Header::new(Algorithm::EdDSA) };
    encode(&header, &claims, &key).expect("signed")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_the_node_is_believed_and_a_spoiled_one_is_not() {
    let node = Node::start();
    let channel = node.channel().await;
    let good = node.token("alice", &["auditor"]);
    let me = who_am_i(&channel, &good).await.expect("believed");
    assert_eq!(me.principal, "user/alice@dev.simpul");
    assert_eq!(me.proof(), Proof::Token);
    assert_eq!(me.node_id, node.info["node_id"]);

    let mut client = IdentityServiceClient::new(channel.clone());
    let refused = client.who_am_i(Request::new(WhoAmIRequest {})).await.expect_err("no proof");
    assert_eq!(refused.code(), Code::Unauthenticated);
    let info = refused.get_details_error_info().expect("a reason");
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("CREDENTIALS_MISSING", "simpul"));

    let pem = std::fs::read(node.dir().join("dev/token-key.pem")).expect("the token key");
    let key = EncodingKey::from_ed_pem(&pem).expect("a key");
    let (header, claims) = parts(&good);
    let sign = |change: &dyn Fn(&mut Value, &mut Header), key: &EncodingKey, algorithm| {
        let mut header =
            Header { kid: header["kid"].as_str().map(str::to_owned), ..Header::new(algorithm) };
        let mut claims = claims.clone();
        change(&mut claims, &mut header);
        encode(&header, &claims, key).expect("signed")
    };
    let eddsa = |change: &dyn Fn(&mut Value, &mut Header)| sign(change, &key, Algorithm::EdDSA);
    who_am_i(&channel, &eddsa(&|_, _| {})).await.expect("re-signed as it is");

    let stranger = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    let stranger = EncodingKey::from_ed_pem(stranger.serialize_pem().as_bytes()).expect("a key");
    let hmac = EncodingKey::from_secret(&pem);
    let none = {
        use base64::Engine;
        let encode = |value: &Value| {
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string())
        };
        format!("{}.{}.", encode(&json!({"alg": "none"})), encode(&claims))
    };
    let spoiled = [
        ("alg none", none),
        ("alg swapped", sign(&|_, _| {}, &hmac, Algorithm::HS256)),
        ("a stranger's", sign(&|_, _| {}, &stranger, Algorithm::EdDSA)),
        ("wrong kid", eddsa(&|_, header| header.kid = Some("other".to_owned()))),
        ("wrong issuer", eddsa(&|claims, _| claims["iss"] = json!("https://other"))),
        ("wrong audience", eddsa(&|claims, _| claims["aud"] = json!("other"))),
        ("expired", eddsa(&|claims, _| claims["exp"] = json!(now() - 1))),
        ("not yet valid", eddsa(&|claims, _| claims["nbf"] = json!(now() + 600))),
        ("no expiry", eddsa(&|claims, _| drop(claims.as_object_mut().map(|c| c.remove("exp"))))),
        ("no subject", eddsa(&|claims, _| drop(claims.as_object_mut().map(|c| c.remove("sub"))))),
        ("a node", eddsa(&|claims, _| claims["kind"] = json!("node"))),
        ("cut", good[..good.len() - 4].to_owned()),
        ("empty", String::new()),
    ];
    for (what, token) in spoiled {
        let refused = who_am_i(&channel, &token).await.expect_err(what);
        assert_eq!(refused.code(), Code::Unauthenticated, "{what}");
        assert!(token.is_empty() || !format!("{refused:?}").contains(&token), "{what}: shown");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_its_token_or_goes_on_with_a_fresh_one() {
    let node = Node::start();
    let long = node.token("alice", &[]);
    let short = || node.ok(&["token", "--as", "alice", "--ttl", "3s"]).trim().to_owned();
    let bob = node.token("bob", &[]);
    let channel = node.channel().await;
    room(channel.clone(), &long, "r", &[]).await;

    let mut ends = Session::join(channel.clone(), &short(), "r", From::Latest(true)).await;
    let mut goes_on = Session::join(channel.clone(), &short(), "r", From::Latest(true)).await;
    goes_on.ask(Ask::Reauthenticate(Reauthenticate { token: bob })).await;
    let Tell::Failed(failed) = goes_on.next().await else { panic!("bob took alice's stream") };
    assert_eq!(failed.code, Code::Unauthenticated as i32);
    goes_on.ask(Ask::Reauthenticate(Reauthenticate { token: long.clone() })).await;

    let begun = std::time::Instant::now();
    let status = ends.end().await.expect_err("it ends with a status");
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    tokio::time::sleep_until((begun + Duration::from_secs(5)).into()).await;
    goes_on.ask(Ask::Ping(Ping { nonce: 1 })).await;
    assert!(matches!(goes_on.next().await, Tell::Pong(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_proves_too_and_both_must_agree() {
    let node = Node::start();
    let (chain, key) = node.certificate("alice");
    let channel = node.channel_as(Some((&chain, &key))).await;
    let mut client = IdentityServiceClient::new(channel.clone());
    let me = client.who_am_i(Request::new(WhoAmIRequest {})).await.expect("proven").into_inner();
    assert_eq!((me.principal.as_str(), me.proof()), ("user/alice@dev.simpul", Proof::Certificate));

    let both = who_am_i(&channel, &node.token("alice", &[])).await.expect("they agree");
    assert_eq!(both.proof(), Proof::TokenAndCertificate);
    let refused = who_am_i(&channel, &node.token("bob", &[])).await.expect_err("they do not");
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lacks_the_role_is_denied_and_the_audit_log_has_it() {
    use simpul::proto::payment::v1::CapturePaymentRequest;
    use simpul::proto::payment::v1::payment_service_client::PaymentServiceClient;
    let node = Node::start();
    let channel = node.channel().await;
    let token = resigned(&node, &node.token("sue", &[]), |claims| {
        claims["roles"] = json!(["support"]);
    });
    let mut client = PaymentServiceClient::new(channel);
    let request = CapturePaymentRequest::default();
    let refused = client.capture_payment(with_token(request, token.trim())).await;
    let refused = refused.expect_err("support does not capture");
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(refused.get_details_error_info().expect("a reason").reason, "ROLE_MISSING");
    let line = crate::support::eventually("the audit line", async || {
        let audit = std::fs::read_to_string(node.dir().join("audit.log")).unwrap_or_default();
        audit.lines().find(|line| line.contains("CapturePayment")).map(str::to_owned)
    })
    .await;
    assert!(line.contains("user/sue@dev.simpul") && line.contains("denied"), "{line}");
    assert!(!line.contains(token.trim()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_log_says_whose_thing_it_was() {
    use simpul::proto::chat::v1::chat_service_client::ChatServiceClient;
    use simpul::proto::chat::v1::{AddMemberRequest, CreateRoomRequest};
    use simpul::proto::payment::v1::payment_service_client::PaymentServiceClient;
    use simpul::proto::payment::v1::{GetPaymentRequest, RefundPaymentRequest};
    use simpul::proto::transaction::v1::GetBalanceRequest;
    use simpul::proto::transaction::v1::transaction_service_client::TransactionServiceClient;

    let node = Node::start();
    let channel = node.channel().await;
    let (alice, auditor) = (node.token("alice", &[]), node.token("ana", &["auditor"]));
    let pay = ["pay", "--as", "alice", "--to", "toko", "--amount", "IDR 50", "--output", "json"];
    let paid: Value =
        serde_json::from_str(&node.ok(&[&pay[..], &["--method", "sandbox_ok"]].concat()))
            .expect("one object");
    let id = paid["payment_id"].as_str().expect("an id").to_owned();

    let mut payments = PaymentServiceClient::new(channel.clone());
    let read = GetPaymentRequest { payment_id: id.clone() };
    payments.get_payment(with_token(read, &auditor)).await.expect("auditors read");
    let refund = RefundPaymentRequest {
        payment_id: id.clone(),
        idempotency_key: "r".into(),
        minor_units: 0,
    };
    let refused = payments.refund_payment(with_token(refund, &alice)).await;
    assert_eq!(refused.expect_err("the payer does not refund").code(), Code::PermissionDenied);
    let mut transactions = TransactionServiceClient::new(channel.clone());
    let balance = GetBalanceRequest { account: "toko".into() };
    transactions.get_balance(with_token(balance, &auditor)).await.expect("auditors read");
    let mut rooms = ChatServiceClient::new(channel);
    let made = rooms.create_room(with_token(CreateRoomRequest::default(), &alice)).await;
    let made = made.expect("made").into_inner().room.expect("is given").room_id;
    let add = AddMemberRequest {
        room_id: made.clone(),
        principal: "bob".into(),
        ..AddMemberRequest::default()
    };
    rooms.add_member(with_token(add, &alice)).await.expect("added");

    let payment = format!("payment {id} of user/alice@dev.simpul");
    for (method, who, decision, subject) in [
        ("ProcessPayment", "alice", "allowed", payment.as_str()),
        ("GetPayment", "ana", "allowed", &payment),
        ("RefundPayment", "alice", "denied", &payment),
        ("GetBalance", "ana", "allowed", "balance of user/toko@dev.simpul"),
        ("CreateRoom", "alice", "allowed", &format!("room {made}")),
        ("AddMember", "alice", "allowed", &format!("bob in room {made}")),
    ] {
        let line = crate::support::eventually(method, async || {
            let audit = std::fs::read_to_string(node.dir().join("audit.log")).unwrap_or_default();
            audit.lines().find(|line| line.contains(method)).map(str::to_owned)
        });
        let line: Value = serde_json::from_str(&line.await).expect("one object a line");
        let found = ["principal", "decision", "subject"].map(|key| line[key].as_str());
        let who = format!("user/{who}@dev.simpul");
        assert_eq!(found, [Some(&*who), Some(decision), Some(subject)], "{method}");
    }
}
