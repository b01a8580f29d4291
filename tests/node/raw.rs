//! What no gRPC client would send, written against HTTP/2 itself.

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response, StatusCode};
use simpul::proto::identity::v1::WhoAmIRequest;
use simpul::proto::identity::v1::identity_service_client::IdentityServiceClient;

use crate::support::{LONG, Node, with_token};

pub const WHO_AM_I: &str = "/simpul.identity.v1.IdentityService/WhoAmI";

pub async fn connect(node: &Node) -> SendRequest<Bytes> {
    let stream = node.stream().await;
    let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    simpul::task::spawn("raw connection", async move {
        let _ = connection.await;
    });
    client.ready().await.expect("ready")
}

pub fn call(path: &str, token: &str) -> http::request::Builder {
    Request::builder()
        .method("POST")
        .uri(format!("https://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {token}"))
}

/// An empty message: flag and length are five zero bytes.
const EMPTY: Bytes = Bytes::from_static(&[0; 5]);

pub struct Answer {
    status: StatusCode,
    pub grpc: Option<i32>,
    body: usize,
}

pub async fn ask(client: &mut SendRequest<Bytes>, request: Request<()>, body: Bytes) -> Answer {
    let answer = async {
        let (response, mut stream) = client.send_request(request, false).expect("sent");
        let _ = stream.send_data(body, true); // It may have been answered already.
        let response: Response<h2::RecvStream> = response.await.expect("an answer");
        let (head, mut incoming) = response.into_parts();
        let mut size = 0;
        while let Some(data) = incoming.data().await {
            let data = data.expect("data");
            size += data.len();
            let _ = incoming.flow_control().release_capacity(data.len());
        }
        let trailers = incoming.trailers().await.ok().flatten();
        let code = |headers: &HeaderMap| {
            headers.get("grpc-status").and_then(|v| v.to_str().ok()?.parse().ok())
        };
        let grpc = trailers.as_ref().and_then(code).or_else(|| code(&head.headers));
        Answer { status: head.status, grpc, body: size }
    };
    tokio::time::timeout(LONG, answer).await.expect("in time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_a_call_reaches_no_handler_and_kills_no_other_stream() {
    let node = Node::start();
    let token = node.token("alice", &[]);
    let mut client = connect(&node).await;

    let good = ask(&mut client, call(WHO_AM_I, &token).body(()).expect("a request"), EMPTY).await;
    assert_eq!((good.status, good.grpc), (StatusCode::OK, Some(0)));
    assert!(good.body > 5);

    const UNIMPLEMENTED: Option<i32> = Some(12);
    let odd = [
        ("GET", call(WHO_AM_I, &token).method("GET"), 200, UNIMPLEMENTED),
        ("post", call(WHO_AM_I, &token).method("post"), 200, UNIMPLEMENTED),
        ("lower case", call(&WHO_AM_I.to_lowercase(), &token), 200, UNIMPLEMENTED),
        ("doubled slash", call(&format!("/{WHO_AM_I}"), &token), 200, UNIMPLEMENTED),
        ("trailing slash", call(&format!("{WHO_AM_I}/"), &token), 200, UNIMPLEMENTED),
        ("query", call(&format!("{WHO_AM_I}?x=1"), &token), 200, UNIMPLEMENTED),
        ("unknown", call("/simpul.identity.v1.IdentityService/Who", &token), 200, UNIMPLEMENTED),
    ];
    for (what, request, status, grpc) in odd {
        let answer = ask(&mut client, request.body(()).expect("a request"), EMPTY).await;
        assert_eq!((answer.status.as_u16(), answer.grpc, answer.body), (status, grpc, 0), "{what}");
    }

    let uri = format!("https://localhost{WHO_AM_I}");
    let bearer = format!("Bearer {token}");
    let bare = || Request::builder().method("POST").uri(&uri).header("authorization", &bearer);
    let typed = [
        ("no content type", bare().header("te", "trailers")),
        (
            "another content type",
            bare().header("te", "trailers").header("content-type", "text/html"),
        ),
        (
            "gRPC-Web",
            bare().header("te", "trailers").header("content-type", "application/grpc-web"),
        ),
    ];
    for (what, request) in typed {
        let answer = ask(&mut client, request.body(()).expect("a request"), EMPTY).await;
        assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{what}");
        assert_eq!(answer.body, 0, "{what}");
    }
    let request = bare().header("content-type", "application/grpc").body(()).expect("a request");
    assert_eq!(ask(&mut client, request, EMPTY).await.grpc, Some(3), "no te");

    let cut = Bytes::from_static(&[0, 0, 0, 0, 9, 1, 2]);
    let lies = Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff]);
    let garbage = Bytes::from_static(&[0, 0, 0, 0, 2, 0xff, 0xff]);
    let compressed = Bytes::from_static(&[1, 0, 0, 0, 0]);
    for (what, body) in
        [("cut", cut), ("lies", lies), ("garbage", garbage), ("compressed", compressed)]
    {
        let request = call(WHO_AM_I, &token).body(()).expect("a request");
        let answer = ask(&mut client, request, body).await;
        assert!(!matches!(answer.grpc, None | Some(0)), "{what}: {:?}", answer.grpc);
    }

    let two = call(WHO_AM_I, &token).header("authorization", format!("Bearer {token}"));
    let answer = ask(&mut client, two.body(()).expect("a request"), EMPTY).await;
    assert_eq!(answer.grpc, Some(16), "two authorization headers");

    let good = ask(&mut client, call(WHO_AM_I, &token).body(()).expect("a request"), EMPTY).await;
    assert_eq!(good.grpc, Some(0), "the connection lives on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_headers_are_refused_and_the_node_lives_on() {
    let node = Node::start();
    let token = node.token("alice", &[]);
    let mut client = connect(&node).await;
    let request = call(WHO_AM_I, &token).header("x-big", "x".repeat(60_000));
    let refused = match client.send_request(request.body(()).expect("a request"), true) {
        Err(_) => true,
        Ok((response, _)) => match tokio::time::timeout(LONG, response).await.expect("in time") {
            Err(_) => true,
            Ok(response) => response.status() != StatusCode::OK,
        },
    };
    assert!(refused);
    let mut identity = IdentityServiceClient::new(node.channel().await);
    identity.who_am_i(with_token(WhoAmIRequest {}, &token)).await.expect("it lives on");
}
