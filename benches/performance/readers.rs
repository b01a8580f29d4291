//! Chat streams on plain HTTP/2: they count and verify what they are given and
//! do little else, so that the clients' core is not what is measured.

use bytes::{Buf, Bytes, BytesMut};
use h2::client::SendRequest;
use http::Request;
use prost::Message as _;
use simpul::proto::chat::v1::chat_request::Frame as Ask;
use simpul::proto::chat::v1::join::From;
use simpul::proto::chat::v1::{ChatRequest, Join, Send};

use crate::process::Target;

/// gRPC's prefix of a message.
const PREFIX: usize = 5;

// Fields of the contract (proto/simpul/chat/v1/chat.proto).
const RESPONSE_JOINED: u64 = 1;
const RESPONSE_MESSAGE: u64 = 2;
const RESPONSE_FAILED: u64 = 5;
const MESSAGE_SEQ: u64 = 2;
const MESSAGE_BODY: u64 = 5;

/// One `Chat` stream on a connection of its own.
pub struct Stream {
    pub writer: Writer,
    pub reader: Reader,
}

/// What the client says.
pub struct Writer {
    outgoing: h2::SendStream<Bytes>,
}

/// What it is told.
pub struct Reader {
    incoming: h2::RecvStream,
    buffer: BytesMut,
}

fn framed(frame: Ask) -> Bytes {
    let request = ChatRequest { frame: Some(frame) };
    let mut bytes = BytesMut::with_capacity(5 + request.encoded_len());
    bytes.extend_from_slice(&[0]);
    bytes.extend_from_slice(&u32::try_from(request.encoded_len()).expect("small").to_be_bytes());
    request.encode(&mut bytes).expect("room");
    bytes.freeze()
}

/// A Send, ready for the wire.
pub fn send(room: &str, id: u64, body: &str) -> Bytes {
    framed(Ask::Send(Send {
        room_id: room.to_owned(),
        client_message_id: id.to_string(),
        body: body.to_owned(),
        ..Send::default()
    }))
}

impl Stream {
    pub async fn join(target: &Target, token: &str, room: &str) -> Stream {
        let stream = target.stream().await;
        let (client, connection) = h2::client::Builder::new()
            .initial_window_size(1 << 18)
            .initial_connection_window_size(1 << 20)
            .handshake(stream)
            .await
            .expect("HTTP/2");
        simpul::task::spawn("connection", async move {
            let _ = connection.await;
        });
        let mut client: SendRequest<Bytes> = client.ready().await.expect("ready");
        let request = Request::builder()
            .method("POST")
            .uri("https://localhost/simpul.chat.v1.ChatService/Chat")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {token}"))
            .body(())
            .expect("a request");
        let (response, mut outgoing) = client.send_request(request, false).expect("sent");
        let from = Some(From::Latest(true));
        let join = Ask::Join(Join { room_id: room.to_owned(), from });
        outgoing.send_data(framed(join), false).expect("sent");
        let incoming = response.await.expect("an answer").into_body();
        let mut reader = Reader { incoming, buffer: BytesMut::new() };
        let mut joined = false;
        while !joined {
            reader.read(|frame| joined |= field_of(frame, RESPONSE_JOINED).is_some()).await;
        }
        Stream { writer: Writer { outgoing }, reader }
    }
}

impl Writer {
    /// Writes frames that stand back to back.
    pub async fn write(&mut self, mut frames: Bytes) {
        while !frames.is_empty() {
            self.outgoing.reserve_capacity(frames.len());
            let capacity = std::future::poll_fn(|cx| self.outgoing.poll_capacity(cx)).await;
            let size = capacity.expect("open").expect("open").min(frames.len());
            self.outgoing.send_data(frames.split_to(size), false).expect("sent");
        }
    }
}

impl Reader {
    /// Reads what is there and hands out every whole frame in it, not yet
    /// decoded. Cancel safe: what was read stays.
    pub async fn read(&mut self, mut each: impl FnMut(&[u8])) {
        let data = self.incoming.data().await.expect("the stream goes on").expect("data");
        let _ = self.incoming.flow_control().release_capacity(data.len());
        self.buffer.extend_from_slice(&data);
        while self.buffer.len() >= PREFIX {
            let size = u32::from_be_bytes(self.buffer[1..PREFIX].try_into().expect("four bytes"));
            let end = PREFIX + size as usize;
            if self.buffer.len() < end {
                break;
            }
            let frame = &self.buffer[PREFIX..end];
            assert!(field_of(frame, RESPONSE_FAILED).is_none(), "the node refused a frame");
            each(frame);
            self.buffer.advance(end);
        }
    }

    /// Reads on and hands out the seq and the body of messages only.
    pub async fn messages(&mut self, mut each: impl FnMut(u64, &[u8])) {
        self.read(|frame| {
            if let Some((seq, body)) = message(frame) {
                each(seq, body);
            }
        })
        .await;
    }
}

/// The seq and the body of a `ChatResponse` that is a message. Walked by hand:
/// decoding would copy four strings for each delivery, which a NATS client does
/// not either.
fn message(frame: &[u8]) -> Option<(u64, &[u8])> {
    let (mut seq, mut body) = (0, None);
    for (field, value) in Fields(field_of(frame, RESPONSE_MESSAGE)?) {
        match (field, value) {
            (MESSAGE_SEQ, Value::Number(number)) => seq = number,
            (MESSAGE_BODY, Value::Bytes(bytes)) => body = Some(bytes),
            _ => {}
        }
    }
    Some((seq, body?))
}

fn field_of(message: &[u8], wanted: u64) -> Option<&[u8]> {
    Fields(message).find_map(|(field, value)| match value {
        Value::Bytes(bytes) if field == wanted => Some(bytes),
        _ => None,
    })
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of an encoded message: those of varints and of lengths, which are
/// all that the contract has.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let tag = varint(&mut self.0);
        let number = varint(&mut self.0);
        let value = match tag & 7 {
            0 => Value::Number(number),
            2 => {
                let (bytes, rest) = self.0.split_at(usize::try_from(number).expect("a length"));
                self.0 = rest;
                Value::Bytes(bytes)
            }
            other => panic!("wire type {other}"),
        };
        Some((tag >> 3, value))
    }
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..).step_by(7) {
        let (first, rest) = bytes.split_first().expect("a whole number");
        *bytes = rest;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            break;
        }
    }
    number
}
