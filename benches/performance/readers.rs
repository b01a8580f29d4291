//! Subscribers on plain HTTP/2: they count and verify what they are given and
//! do little else, so that the client's core is not what is measured.

use bytes::{Buf, Bytes, BytesMut};
use h2::client::SendRequest;
use http::Request;
use prost::Message as _;
use simpul::proto::chat::v1::chat_request::Frame as Ask;
use simpul::proto::chat::v1::chat_response::Frame as Tell;
use simpul::proto::chat::v1::join::From;
use simpul::proto::chat::v1::{ChatRequest, ChatResponse, Join, Message, Send};

use crate::process::Target;

/// One `Chat` stream on a connection of its own.
pub struct Stream {
    outgoing: h2::SendStream<Bytes>,
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
        reply_to: 0,
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
        let mut stream = Stream { outgoing, incoming, buffer: BytesMut::new() };
        let mut joined = false;
        while !joined {
            stream.read(|frame| joined |= matches!(frame, Tell::Joined(_))).await;
        }
        stream
    }

    /// Writes frames that stand back to back.
    pub async fn write(&mut self, mut frames: Bytes) {
        while !frames.is_empty() {
            self.outgoing.reserve_capacity(frames.len());
            let capacity = std::future::poll_fn(|cx| self.outgoing.poll_capacity(cx)).await;
            let size = capacity.expect("open").expect("open").min(frames.len());
            self.outgoing.send_data(frames.split_to(size), false).expect("sent");
        }
    }

    /// Reads one DATA frame's worth and hands out every whole frame in it.
    pub async fn read(&mut self, mut each: impl FnMut(Tell)) {
        let data = self.incoming.data().await.expect("the stream goes on").expect("data");
        let _ = self.incoming.flow_control().release_capacity(data.len());
        self.buffer.extend_from_slice(&data);
        while self.buffer.len() >= 5 {
            let size =
                u32::from_be_bytes(self.buffer[1..5].try_into().expect("four bytes")) as usize;
            if self.buffer.len() < 5 + size {
                break;
            }
            self.buffer.advance(5);
            let response = ChatResponse::decode(self.buffer.split_to(size)).expect("a frame");
            each(response.frame.expect("a frame"));
        }
    }

    /// Reads on and hands out messages only.
    pub async fn messages(&mut self, mut each: impl FnMut(Message)) {
        self.read(|frame| {
            if let Tell::Message(message) = frame {
                each(message);
            }
        })
        .await;
    }
}
