//! Requests through both layers.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tonic::Code;
use tower::{Layer, Service, ServiceExt};

use super::*;
use crate::refusal::Reason;
use crate::security::audit::AuditSubject;
use crate::security::authorize::PermitBody;
use crate::security::connection::Connection;
use crate::security::development::TokenRequest;
use crate::security::permit::{EndsWithPermit, Permit};

const WHOAMI: &str = "/simpul.identity.v1.IdentityService/WhoAmI";
const PAY: &str = "/simpul.payment.v1.PaymentService/ProcessPayment";
const WATCH: &str = "/simpul.payment.v1.PaymentService/WatchPayment";
const HEALTH: &str = "/grpc.health.v1.Health/Check";

/// A body that never has anything to say.
#[derive(Debug, Default)]
struct Silent;

impl Body for Silent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

/// A service that shows the permit it got.
#[derive(Debug, Clone)]
struct Shows {
    ends_itself: bool,
}

impl Service<Request<()>> for Shows {
    type Response = Response<Silent>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Silent>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        AuditSubject::of(request.extensions()).set("payment 7 of user/bob@dev.simpul");
        let mut response = Response::new(Silent);
        if let Some(permit) = request.extensions().get::<Permit>() {
            response.extensions_mut().insert(permit.clone());
        }
        if self.ends_itself {
            response.extensions_mut().insert(EndsWithPermit);
        }
        ready(Ok(response))
    }
}

struct Node {
    data: tempfile::TempDir,
    security: Arc<Security>,
}

impl Node {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let data = tempfile::tempdir().expect("a folder");
        let mut config = config(data.path());
        change(&mut config);
        let security = load(&config).expect("all is well");
        Self { data, security }
    }

    fn token(&self, principal: &str, roles: &[Role], seconds: u64) -> String {
        let principal: Principal = principal.parse().expect("a principal");
        let request = TokenRequest {
            principal: &principal,
            roles,
            audience: "simpul",
            ttl: Duration::from_secs(seconds),
        };
        let token = development::sign_token(self.data.path(), &request).expect("signed");
        token.expose_secret().to_owned()
    }

    async fn send(&self, request: Request<()>, ends_itself: bool) -> Response<PermitBody<Silent>> {
        let service = self.security.authorize_layer().layer(Shows { ends_itself });
        let service = self.security.authenticate_layer().layer(service);
        let Ok(response) = service.oneshot(request).await;
        response
    }

    async fn call(&self, path: &str, headers: &[(&str, &str)]) -> Response<PermitBody<Silent>> {
        self.send(request(path, headers), false).await
    }

    fn audit(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.data.path().join("audit.log")).expect("there");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

fn request(path: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::post(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let remote = "192.0.2.7:5000".parse().expect("an address");
    let connection = Connection { remote, certificate: None, belief: None };
    request.extension(connection).body(()).expect("a request")
}

fn permit<B>(response: &Response<B>) -> Option<String> {
    let permit = response.extensions().get::<Permit>()?;
    Some(permit.principal().to_string())
}

fn code(headers: &http::HeaderMap) -> Code {
    headers.get("grpc-status").map_or(Code::Ok, |value| Code::from_bytes(value.as_bytes()))
}

fn outcome<B>(response: &Response<B>) -> (Code, Option<String>) {
    (code(response.headers()), permit(response))
}

#[tokio::test]
async fn a_token_opens_what_its_roles_allow() {
    let node = Node::new(|_| {});
    let bearer = format!("Bearer {}", node.token("user/alice@dev.simpul", &[Role::Customer], 60));
    let alice = Some("user/alice@dev.simpul".to_owned());
    let auth: &[_] = &[("authorization", &*bearer)];
    // Twice: verified, and known.
    for _ in 0..2 {
        assert_eq!(outcome(&node.call(PAY, auth).await), (Code::Ok, alice.clone()));
    }
    let powerless = format!("bearer {}", node.token("user/bob@dev.simpul", &[Role::Auditor], 60));
    let response = node.call(PAY, &[("authorization", &powerless)]).await;
    assert_eq!(outcome(&response), (Code::PermissionDenied, None));
    let none = node.call(WHOAMI, &[]).await;
    assert_eq!(outcome(&none), (Code::Unauthenticated, None));
    assert_eq!(outcome(&node.call(HEALTH, &[]).await), (Code::Ok, None));
    let unknown = node.call("/simpul.no.v1.Such/Method", auth).await;
    assert_eq!(outcome(&unknown), (Code::Unimplemented, None));
}

#[tokio::test]
async fn bad_proof_is_refused_even_where_none_is_needed() {
    let node = Node::new(|_| {});
    let good = format!("Bearer {}", node.token("user/alice@dev.simpul", &[Role::Customer], 60));
    let torn = &good[..good.len() - 4];
    let twice: &[_] = &[("authorization", &*good), ("authorization", &*good)];
    for (name, headers) in [
        ("two headers", twice),
        ("another scheme", &[("authorization", "Basic eDp5")]),
        ("no scheme", &[("authorization", &good[7..])]),
        ("empty", &[("authorization", "")]),
        ("torn", &[("authorization", torn)]),
    ] {
        for path in [WHOAMI, HEALTH] {
            let response = node.call(path, headers).await;
            assert_eq!(outcome(&response), (Code::Unauthenticated, None), "{name} {path}");
        }
    }
}

#[tokio::test]
async fn an_address_that_guesses_must_wait_but_known_tokens_go_on() {
    let node = Node::new(|config| config.traffic.failures_per_minute = 3);
    let good = format!("Bearer {}", node.token("user/alice@dev.simpul", &[Role::Customer], 60));
    assert_eq!(outcome(&node.call(WHOAMI, &[("authorization", &good)]).await).0, Code::Ok);
    let guess: &[_] = &[("authorization", "Bearer a.b.c")];
    for _ in 0..3 {
        assert_eq!(outcome(&node.call(WHOAMI, guess).await).0, Code::Unauthenticated);
    }
    assert_eq!(outcome(&node.call(WHOAMI, guess).await).0, Code::ResourceExhausted);
    assert_eq!(outcome(&node.call(WHOAMI, &[("authorization", &good)]).await).0, Code::Ok);
}

#[tokio::test]
async fn a_service_acts_for_users_and_both_are_in_the_audit_log() {
    let shop = "service/shop@dev.simpul";
    let node = Node::new(|config| config.auth.may_delegate = vec![shop.into()]);
    let bearer = format!("Bearer {}", node.token(shop, &[Role::Backend], 60));
    let for_bob: &[_] = &[("authorization", &*bearer), ("simpul-on-behalf-of", "bob")];
    let bob = Some("user/bob@dev.simpul".to_owned());
    assert_eq!(outcome(&node.call(PAY, for_bob).await), (Code::Ok, bob));
    node.call(PAY, &[]).await;
    node.call(WHOAMI, for_bob).await;
    node.call(HEALTH, &[]).await;
    node.security.audit().flush().await;
    let lines = node.audit();
    assert_eq!(lines.len(), 2, "neither reading one's own nor health: {lines:#?}");
    let expected = [
        ("decision", "allowed"),
        ("principal", "user/bob@dev.simpul"),
        ("acting_service", shop),
        ("address", "192.0.2.7"),
        ("method", PAY),
        ("subject", "payment 7 of user/bob@dev.simpul"),
    ];
    for (key, value) in expected {
        assert_eq!(lines[0][key], value, "{key}");
    }
    assert_eq!(lines[1]["decision"], "denied");
    assert!(lines[1]["why"].as_str().is_some_and(|why| why.starts_with("CREDENTIALS_MISSING")));
    let text = format!("{lines:?}");
    assert!(!text.contains(&bearer[7..]), "no token in the log");
}

async fn end(response: Response<PermitBody<Silent>>) -> Code {
    let collected = response.into_body().collect().await.expect("infallible");
    code(collected.trailers().expect("trailers"))
}

#[tokio::test]
async fn a_stream_ends_with_its_token_unless_it_is_proven_again() {
    let node = Node::new(|_| {});
    let roles = [Role::Customer];
    let alice = "user/alice@dev.simpul";
    let open = async || {
        let bearer = format!("Bearer {}", node.token(alice, &roles, 2));
        node.call(WATCH, &[("authorization", &bearer)]).await
    };
    let left = open().await;
    let extended = open().await;
    let permit = extended.extensions().get::<Permit>().cloned().expect("a permit");

    // Neither another's token nor one with fewer roles goes on.
    for (who, roles) in [("user/bob@dev.simpul", &roles[..]), (alice, &[Role::Merchant])] {
        let refused = permit.reauthenticate(&node.token(who, roles, 60));
        assert_eq!(refused.expect_err("refused").reason, Reason::ProofMismatch, "{who}");
    }
    assert!(permit.reauthenticate("a.b.c").is_err());
    permit.reauthenticate(&node.token(alice, &roles, 60)).expect("the same caller");

    let three = Duration::from_secs(3);
    let ended = tokio::time::timeout(three, end(left)).await;
    assert_eq!(ended.expect("within a second of its end"), Code::Unauthenticated);
    let mut extended = Box::pin(end(extended));
    let short = Duration::from_millis(1500);
    assert!(tokio::time::timeout(short, &mut extended).await.is_err(), "it goes on");
    permit.validity().revoke(crate::refusal::Refusal::new(Reason::AccessEnded, "over"));
    let ended = tokio::time::timeout(three, extended).await;
    assert_eq!(ended.expect("at once"), Code::PermissionDenied);
}

#[tokio::test]
async fn a_certificate_is_proof_until_it_ends() {
    let node = Node::new(|_| {});
    let ending = |milliseconds| {
        let certificate = PeerCertificate {
            principal: "user/carol@dev.simpul".parse().expect("a principal"),
            roles: [Role::Customer].into_iter().collect(),
            not_after: SystemTime::now() + Duration::from_millis(milliseconds),
            thumbprint: [1; 32],
        };
        let remote = "192.0.2.8:5000".parse().expect("an address");
        let mut request = request(WATCH, &[]);
        let certificate = Some(Arc::new(certificate));
        request.extensions_mut().insert(Connection { remote, certificate, belief: None });
        request
    };
    let response = node.send(ending(300), false).await;
    let carol = Some("user/carol@dev.simpul".to_owned());
    assert_eq!(outcome(&response), (Code::Ok, carol));
    let permit = response.extensions().get::<Permit>().cloned().expect("a permit");
    assert_eq!(permit.validity().ended().await.reason, Reason::CertificateExpired);
    assert_eq!(end(response).await, Code::Unauthenticated);
    let over = node.send(ending(0), false).await;
    assert_eq!(outcome(&over), (Code::Unauthenticated, None));
}

#[tokio::test]
async fn a_body_that_sees_to_its_end_is_not_cut() {
    let node = Node::new(|_| {});
    let bearer = format!("Bearer {}", node.token("user/a@dev.simpul", &[Role::Customer], 60));
    let response = node.send(request(WATCH, &[("authorization", &bearer)]), true).await;
    let permit = response.extensions().get::<Permit>().cloned().expect("a permit");
    permit.validity().revoke(crate::refusal::Refusal::new(Reason::AccessEnded, "over"));
    let wait = Duration::from_millis(50);
    assert!(tokio::time::timeout(wait, end(response)).await.is_err());
}

#[tokio::test]
async fn who_am_i_tells_what_was_proven() {
    use crate::proto::identity::v1::identity_service_server::IdentityService as _;
    use crate::proto::identity::v1::{Proof, WhoAmIRequest};

    let node = Node::new(|_| {});
    let bearer = format!("Bearer {}", node.token("user/alice@dev.simpul", &[Role::Customer], 60));
    let response = node.call(WHOAMI, &[("authorization", &bearer)]).await;
    let permit = response.extensions().get::<Permit>().cloned().expect("a permit");
    let service = identity::IdentityService::new("n1");
    let refused = service.who_am_i(tonic::Request::new(WhoAmIRequest {})).await;
    assert_eq!(refused.expect_err("no permit").code(), Code::Internal);
    let mut request = tonic::Request::new(WhoAmIRequest {});
    request.extensions_mut().insert(permit);
    let answer = service.who_am_i(request).await.expect("known").into_inner();
    assert_eq!(answer.principal, "user/alice@dev.simpul");
    assert_eq!((answer.proof(), &*answer.node_id), (Proof::Token, "n1"));
    assert_eq!(answer.roles, [i32::from(Role::Customer.to_proto())]);
}
