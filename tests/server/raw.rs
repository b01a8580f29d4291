//! What is not a call reaches no handler and harms no other stream.

use http::{Method, Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;

use crate::harness::{
    Answer, CHECK, Client, HISTORY, Node, WHO_AM_I, call, collect, framed, next, request, soon,
};

/// A stream of the connection that must live through what the others do.
struct Witness(h2::RecvStream);

impl Witness {
    async fn begin(client: &Client) -> Self {
        let response = client.open(call(HISTORY), framed(&[])).await.expect("a stream");
        let mut body = response.into_body();
        next(&mut body).await.expect("the first message").expect("the first message");
        Self(body)
    }

    async fn lives(mut self, node: &Node) {
        node.poke.send_modify(|pokes| *pokes += 1);
        let message = next(&mut self.0).await.expect("the stream ended").expect("it broke");
        assert_eq!(message, framed(&[]));
    }
}

#[tokio::test]
async fn what_is_not_written_as_a_call_is_refused() {
    let node = Node::defaults().await;
    let client = node.connect().await;
    let witness = Witness::begin(&client).await;
    let before = node.handled();
    let with_method = |method: &[u8]| {
        let mut request = call(WHO_AM_I);
        *request.method_mut() = Method::from_bytes(method).expect("method");
        request
    };
    let refused = [
        with_method(b"GET"),
        with_method(b"post"),
        with_method(b"PUT"),
        call(&WHO_AM_I.to_lowercase()),
        call(&format!("/{WHO_AM_I}")),
        call(&WHO_AM_I.replace("/WhoAmI", "//WhoAmI")),
        call(&format!("{WHO_AM_I}/")),
        call(&format!("{WHO_AM_I}?x=1")),
        call(&format!("{WHO_AM_I}?")),
        call(&WHO_AM_I.replace("WhoAmI", "Who%41mI")),
        call("/"),
        call("/simpul.chat.v1.ChatService/SendMessage"),
    ];
    for request in refused {
        let what = format!("{} {}", request.method(), request.uri());
        let answer = client.ask(request).await;
        assert_eq!(answer.http, StatusCode::OK, "{what}");
        assert_eq!(answer.code(), Some(Code::Unimplemented), "{what}");
        assert_eq!(answer.reason().as_deref(), Some("UNKNOWN_METHOD"), "{what}");
    }
    assert_eq!(node.handled(), before, "nothing came to a handler");
    witness.lives(&node).await;
    assert_eq!(client.ask(call(WHO_AM_I)).await.code(), Some(Code::Ok));
}

#[tokio::test]
async fn headers_that_are_not_grpcs_are_refused() {
    let node = Node::defaults().await;
    let client = node.connect().await;
    let witness = Witness::begin(&client).await;
    let before = node.handled();
    let uri = format!("https://localhost{WHO_AM_I}");
    let with = |headers: &[(&str, &str)]| {
        let builder = Request::post(&uri);
        let builder = headers.iter().fold(builder, |it, (name, value)| it.header(*name, *value));
        builder.body(()).expect("request")
    };
    let wrong_types = [
        with(&[("te", "trailers")]),
        with(&[("te", "trailers"), ("content-type", "application/json")]),
        with(&[("te", "trailers"), ("content-type", "application/grpc-web")]),
        with(&[("te", "trailers"), ("content-type", "application/grpc+json")]),
        with(&[
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("content-type", "text/html"),
        ]),
    ];
    for request in wrong_types {
        let answer = client.ask(request).await;
        assert_eq!(answer.http, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let answer = client.ask(with(&[("content-type", "application/grpc")])).await;
    assert_eq!(answer.code(), Some(Code::InvalidArgument));
    assert_eq!(answer.reason().as_deref(), Some("MISSING_TE"));

    let large = request(WHO_AM_I).header("x-large", "x".repeat(20_000)).body(()).expect("request");
    assert_eq!(client.ask(large).await.reason().as_deref(), Some("HEADERS_TOO_LARGE"));
    let huge = request(WHO_AM_I).header("x-huge", "x".repeat(40_000)).body(()).expect("request");
    let answer = client.ask(huge).await;
    assert_eq!(answer.http, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);

    assert_eq!(node.handled(), before, "nothing came to a handler");
    witness.lives(&node).await;
    let proto = with(&[("te", "trailers"), ("content-type", "application/grpc+proto")]);
    assert_eq!(client.ask(proto).await.code(), Some(Code::Ok));
}

#[tokio::test]
async fn a_message_that_lies_or_is_cut_short_reaches_no_handler() {
    let node = Node::defaults().await;
    let client = node.connect().await;
    let witness = Witness::begin(&client).await;
    let before = node.handled();
    // Field 1 as a string that is cut short, and one message where two end.
    let cases: [(&str, Vec<u8>, Code, &str); 9] = [
        ("no message", vec![], Code::InvalidArgument, "MALFORMED_MESSAGE"),
        ("half a prefix", vec![0, 0, 0], Code::InvalidArgument, "MALFORMED_MESSAGE"),
        ("cut short", vec![0, 0, 0, 0, 9, 1], Code::InvalidArgument, "MALFORMED_MESSAGE"),
        ("length too short", vec![0, 0, 0, 0, 0, 7, 7], Code::InvalidArgument, "MALFORMED_MESSAGE"),
        ("4 GiB", vec![0, 255, 255, 255, 255, 1], Code::OutOfRange, "MESSAGE_TOO_LARGE"),
        ("not a field", framed(&[0x0f, 0xff]), Code::InvalidArgument, "MALFORMED_MESSAGE"),
        ("two messages", vec![0; 10], Code::InvalidArgument, "MALFORMED_MESSAGE"),
        ("one and a byte", vec![0; 6], Code::InvalidArgument, "MALFORMED_MESSAGE"),
        ("flag without encoding", vec![1, 0, 0, 0, 0], Code::Internal, "MALFORMED_MESSAGE"),
    ];
    for (what, data, code, reason) in cases {
        let answer = client.call(call(WHO_AM_I), data).await.expect("an answer");
        assert_eq!(answer.code(), Some(code), "{what}: {:?}", answer.status);
        assert_eq!(answer.reason().as_deref(), Some(reason), "{what}");
    }
    let large = client.call(call(WHO_AM_I), framed(&[0; 70_000])).await.expect("an answer");
    assert_eq!(large.reason().as_deref(), Some("MESSAGE_TOO_LARGE"));
    let gzip = request(WHO_AM_I).header("grpc-encoding", "gzip").body(()).expect("request");
    assert_eq!(client.ask(gzip).await.reason().as_deref(), Some("COMPRESSION_UNSUPPORTED"));

    // The surplus may come after the whole first message.
    let (response, mut body) = client.begin(call(WHO_AM_I)).await;
    body.send_data(framed(&[]).into(), false).expect("the first message");
    body.send_data(framed(&[]).into(), true).expect("the second message");
    let answer = collect(soon(response).await.expect("an answer")).await.expect("an answer");
    assert_eq!(answer.reason().as_deref(), Some("MALFORMED_MESSAGE"));

    assert_eq!(node.handled(), before, "nothing came to a handler");
    witness.lives(&node).await;
}

/// Writes a call by hand, to a `:path` that no client library would send, and
/// reads until it was answered.
async fn by_hand(node: &Node, path: &str) {
    let literal = |block: &mut Vec<u8>, name: &[u8], value: &str| {
        block.extend_from_slice(name);
        block.push(u8::try_from(value.len()).expect("a short value"));
        block.extend_from_slice(value.as_bytes());
    };
    // HPACK's static table: `:method: POST`, `:scheme: https`.
    let mut block = vec![0x83, 0x87];
    literal(&mut block, &[0x01], "localhost"); // :authority
    literal(&mut block, &[0x04], path); // :path
    literal(&mut block, &[0x0f, 0x10], "application/grpc"); // content-type
    literal(&mut block, b"\x00\x02te", "trailers");
    let length = u8::try_from(block.len()).expect("a short block");
    let mut tls = soon(node.tls()).await.expect("handshake");
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let headers = [&[0, 0, length, 1, 4, 0, 0, 0, 1], block.as_slice()].concat();
    let data = [&[0, 0, 5, 0, 1, 0, 0, 0, 1], [0; 5].as_slice()].concat();
    tls.write_all(&[preface, headers.as_slice(), &data].concat()).await.expect("written");
    loop {
        let mut head = [0; 9];
        soon(tls.read_exact(&mut head)).await.expect("a frame");
        let [a, b, c, kind, flags, _, _, _, stream] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        soon(tls.read_exact(&mut payload)).await.expect("its payload");
        // The end of stream 1, in HEADERS or DATA.
        if stream == 1 && kind <= 1 && flags & 1 == 1 {
            return;
        }
    }
}

/// HTTP/2 drops a fragment before the node sees the path: what is left is all
/// that counts, for every layer.
#[tokio::test]
async fn a_fragment_brings_nobody_past_the_exact_path() {
    let node = Node::defaults().await;
    for path in [
        format!("/nothing#{WHO_AM_I}"),
        format!("{WHO_AM_I}/#x"),
        format!("{WHO_AM_I}?x#y"),
        format!("/%23{WHO_AM_I}"),
        format!("{WHO_AM_I}%23x"),
    ] {
        by_hand(&node, &path).await;
        assert_eq!(node.handled(), 0, "{path}");
    }
    by_hand(&node, &format!("{WHO_AM_I}#x")).await;
    assert_eq!(node.handled(), 1, "it is the call without its fragment");
}

#[tokio::test]
async fn a_frame_cut_short_ends_its_connection_and_no_other() {
    let node = Node::defaults().await;
    let client = node.connect().await;
    let witness = Witness::begin(&client).await;
    let before = node.handled();
    let mut broken = soon(node.tls()).await.expect("handshake");
    broken.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("preface");
    broken.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.expect("settings");
    // HEADERS of 100 bytes, of which three come.
    broken.write_all(&[0, 0, 100, 1, 4, 0, 0, 0, 1, 0x82, 0x86, 0x84]).await.expect("headers");
    broken.shutdown().await.expect("closing");
    let mut rest = Vec::new();
    soon(broken.read_to_end(&mut rest)).await.ok();

    let mut garbage = soon(node.tls()).await.expect("handshake");
    garbage.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("garbage");
    soon(garbage.read_to_end(&mut rest)).await.ok();

    assert_eq!(node.handled(), before);
    witness.lives(&node).await;
    let again = node.connect().await;
    assert_eq!(again.ask(call(CHECK)).await.code(), Some(Code::Ok));
}

#[tokio::test]
async fn timeouts_are_read_strictly() {
    let node = Node::defaults().await;
    let client = node.connect().await;
    for bad in ["", "1", "1s", "-1S", "1.5S", "123456789S"] {
        let request = request(WHO_AM_I).header("grpc-timeout", bad).body(()).expect("request");
        let answer: Answer = client.ask(request).await;
        assert_eq!(answer.code(), Some(Code::InvalidArgument), "{bad:?}");
    }
    for over in ["0n", "0S", "00000000H", "1n"] {
        for path in [WHO_AM_I, HISTORY] {
            let request = request(path).header("grpc-timeout", over).body(()).expect("request");
            let answer = client.ask(request).await;
            assert_eq!(answer.code(), Some(Code::DeadlineExceeded), "{path} {over}");
            assert_eq!(answer.reason().as_deref(), Some("DEADLINE_EXCEEDED"), "{path} {over}");
        }
    }
    assert_eq!(node.handled(), 0, "nothing came to a handler");
    let longest = request(WHO_AM_I).header("grpc-timeout", "99999999H").body(()).expect("request");
    assert_eq!(client.ask(longest).await.code(), Some(Code::Ok));
    let stream = request(HISTORY).header("grpc-timeout", "99999999H").body(()).expect("request");
    let mut body = client.open(stream, framed(&[])).await.expect("a stream").into_body();
    assert!(next(&mut body).await.is_some_and(|message| message.is_ok()));
}
