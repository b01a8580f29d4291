//! A client of one stream.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt as _;
use http::HeaderMap;
use http_body::{Body as _, Frame as BodyFrame};
use http_body_util::StreamBody;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::chat::Chat;
use crate::chat::session::SessionBody;
use crate::proto::chat::v1 as pb;
use crate::proto::chat::v1::chat_request::Frame as Ask;
use crate::proto::chat::v1::chat_response::Frame;
use crate::proto::chat::v1::join::From;
use crate::security::audit::AuditTrail;
use crate::security::permit::Permit;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Client {
    pub(crate) input: Option<mpsc::Sender<Bytes>>,
    body: Pin<Box<SessionBody>>,
    bytes: BytesMut,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Client {
    pub(crate) fn open(chat: &Chat, permit: Permit) -> Self {
        let (input, frames) = mpsc::channel(8);
        let frames =
            ReceiverStream::new(frames).map(|bytes| Ok::<_, Infallible>(BodyFrame::data(bytes)));
        let body = chat.streams().open(permit, AuditTrail::default(), StreamBody::new(frames));
        let (bytes, trailers) = (BytesMut::new(), None);
        Self { input: Some(input), body: Box::pin(body), bytes, trailers }
    }

    pub(crate) async fn raw(&self, bytes: Bytes) {
        self.input.as_ref().expect("open").send(bytes).await.expect("the node reads");
    }

    pub(crate) async fn ask(&self, frame: Option<Ask>) {
        self.raw(encoded(frame)).await;
    }

    pub(crate) async fn join(&mut self, room: &str, from: From) -> Frame {
        let room_id = room.into();
        self.ask(Some(Ask::Join(pb::Join { room_id, from: Some(from) }))).await;
        self.next().await.expect("an answer")
    }

    pub(crate) async fn send(&self, room: &str, id: &str, body: &str) {
        let (room_id, client_message_id, body) = (room.into(), id.into(), body.into());
        let send = pb::Send { room_id, client_message_id, body, ..Default::default() };
        self.ask(Some(Ask::Send(send))).await;
    }

    /// One DATA frame, as the connection would get it; `None` at the end.
    pub(crate) async fn data(&mut self) -> Option<Bytes> {
        let polled = poll_fn(|cx| self.body.as_mut().poll_frame(cx));
        let frame = tokio::time::timeout(PATIENCE, polled).await.expect("a frame in time")?;
        match frame.expect("bodies do not fail").into_data() {
            Ok(bytes) => Some(bytes),
            Err(frame) => {
                self.trailers = frame.into_trailers().ok();
                None
            }
        }
    }

    /// Whether the stream has nothing to say now.
    pub(crate) fn is_silent(&mut self) -> bool {
        let waker = std::task::Waker::noop();
        let polled = self.body.as_mut().poll_frame(&mut std::task::Context::from_waker(waker));
        self.bytes.is_empty() && polled.is_pending()
    }

    /// The next frame; `None` when the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decode() {
                return Some(frame);
            }
            let Some(data) = self.data().await else {
                assert!(self.bytes.is_empty(), "the stream ended inside a frame");
                return None;
            };
            assert!(data.len() <= 16 * 1024);
            self.bytes.extend_from_slice(&data);
        }
    }

    fn decode(&mut self) -> Option<Frame> {
        let length = self.bytes.get(1..5)?.try_into().ok().map(u32::from_be_bytes)? as usize;
        if self.bytes.len() < 5 + length {
            return None;
        }
        self.bytes.advance(5);
        let message = self.bytes.split_to(length);
        pb::ChatResponse::decode(message.freeze()).expect("a response").frame
    }

    /// The next message, whatever comes before it.
    pub(crate) async fn message(&mut self) -> pb::Message {
        loop {
            if let Frame::Message(message) = self.next().await.expect("a message") {
                return message;
            }
        }
    }

    /// Reads messages up to a seq and checks that none is missing or doubled.
    pub(crate) async fn read(&mut self, after: u64, to: u64) {
        for seq in after + 1..=to {
            assert_eq!(self.message().await.seq, seq);
        }
    }

    /// The next frame that is no message.
    pub(crate) async fn answer(&mut self) -> Frame {
        loop {
            match self.next().await.expect("an answer") {
                Frame::Message(_) => {}
                other => return other,
            }
        }
    }

    /// The code in the trailers.
    pub(crate) fn code(&self) -> i32 {
        let trailers = self.trailers.as_ref().expect("the stream has ended");
        trailers["grpc-status"].to_str().expect("text").parse().expect("a number")
    }
}

pub(crate) fn encoded(frame: Option<Ask>) -> Bytes {
    let message = pb::ChatRequest { frame }.encode_to_vec();
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(message.len()).expect("short").to_be_bytes());
    bytes.extend(message);
    bytes.into()
}
