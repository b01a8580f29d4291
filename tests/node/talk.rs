//! A chat client for the tests: one stream, frames in, frames out.

use simpul::proto::chat::v1::chat_request::Frame as Ask;
use simpul::proto::chat::v1::chat_response::Frame as Tell;
use simpul::proto::chat::v1::chat_service_client::ChatServiceClient;
use simpul::proto::chat::v1::join::From;
use simpul::proto::chat::v1::{
    AddMemberRequest, ChatRequest, CreateRoomRequest, Join, Message, RoomRole, Send, Sent,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::support::{LONG, with_token};

/// One `Chat` stream.
#[derive(Debug)]
pub struct Session {
    frames: mpsc::Sender<ChatRequest>,
    pub incoming: Streaming<simpul::proto::chat::v1::ChatResponse>,
}

impl Session {
    /// Opens a stream.
    pub async fn open(channel: Channel, token: &str) -> Result<Session, Status> {
        Self::open_by(channel, token, |_| {}).await
    }

    /// Opens a stream within a trace.
    pub async fn open_traced(
        channel: Channel,
        token: &str,
        traceparent: &str,
    ) -> Result<Session, Status> {
        let place = traceparent.parse().expect("ASCII");
        Self::open_by(channel, token, |metadata| drop(metadata.insert("traceparent", place))).await
    }

    async fn open_by(
        channel: Channel,
        token: &str,
        change: impl FnOnce(&mut MetadataMap),
    ) -> Result<Session, Status> {
        let (frames, outgoing) = mpsc::channel(1024);
        let mut client = ChatServiceClient::new(channel);
        let mut request = with_token(ReceiverStream::new(outgoing), token);
        change(request.metadata_mut());
        let incoming = client.chat(request).await?.into_inner();
        Ok(Session { frames, incoming })
    }

    /// Opens a stream and joins a room; returns after Joined.
    pub async fn join(channel: Channel, token: &str, room: &str, from: From) -> Session {
        let mut session = Self::open(channel, token).await.expect("a session");
        session.ask_join(room, from).await;
        match session.next().await {
            Tell::Joined(joined) => assert_eq!(joined.room_id, room),
            other => panic!("expected Joined, got {other:?}"),
        }
        session
    }

    pub async fn ask(&self, frame: Ask) {
        self.frames.send(ChatRequest { frame: Some(frame) }).await.expect("the stream is open");
    }

    pub async fn ask_join(&self, room: &str, from: From) {
        self.ask(Ask::Join(Join { room_id: room.to_owned(), from: Some(from) })).await;
    }

    pub async fn send(&self, room: &str, id: &str, body: &str) {
        self.ask(Ask::Send(Send {
            room_id: room.to_owned(),
            client_message_id: id.to_owned(),
            body: body.to_owned(),
            ..Send::default()
        }))
        .await;
    }

    /// The next frame.
    pub async fn next(&mut self) -> Tell {
        let response = tokio::time::timeout(LONG, self.incoming.message())
            .await
            .expect("a frame in time")
            .expect("no error")
            .expect("the stream goes on");
        response.frame.expect("a frame")
    }

    /// The status with which the stream ends, whatever comes before.
    pub async fn end(&mut self) -> Result<(), Status> {
        loop {
            let next = tokio::time::timeout(LONG, self.incoming.message()).await;
            match next.expect("an end in time") {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(status) => return Err(status),
            }
        }
    }

    /// The next message, other frames passed over.
    pub async fn message(&mut self) -> Message {
        loop {
            if let Tell::Message(message) = self.next().await {
                return message;
            }
        }
    }

    /// The next acknowledgement, other frames passed over.
    pub async fn sent(&mut self) -> Sent {
        loop {
            match self.next().await {
                Tell::Sent(sent) => return sent,
                Tell::Failed(failed) => panic!("refused: {failed:?}"),
                _ => {}
            }
        }
    }
}

/// Creates a room as its owner and adds users as members.
pub async fn room(channel: Channel, owner: &str, room: &str, members: &[&str]) {
    let mut client = ChatServiceClient::new(channel);
    let create = CreateRoomRequest { room_id: room.to_owned(), title: String::new() };
    client.create_room(with_token(create, owner)).await.expect("a room");
    for member in members {
        let add = AddMemberRequest {
            room_id: room.to_owned(),
            principal: (*member).to_owned(),
            role: RoomRole::Member.into(),
        };
        client.add_member(with_token(add, owner)).await.expect("a member");
    }
}
