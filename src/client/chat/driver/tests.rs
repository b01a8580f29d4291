use std::collections::VecDeque;

use async_trait::async_trait;
use tonic::Code;

use super::super::{Options, start};
use super::*;
use crate::client::dial::Address;
use crate::proto::chat::v1::chat_response::Frame as Tell;
use crate::proto::chat::v1::{Failed, Joined, Pong};

/// A node that has something to say all the time, and refuses the first Join for
/// a while.
struct Loud;

/// What one stream of it is up to.
struct Session {
    asked: mpsc::Receiver<ChatRequest>,
    telling: VecDeque<Tell>,
    joins: usize,
}

impl Session {
    fn hear(&mut self, ask: Ask) {
        let Ask::Join(join) = ask else { return };
        self.joins += 1;
        let room_id = join.room_id;
        self.telling.push_back(match self.joins {
            1 => {
                let code = Code::Unavailable.into();
                Tell::Failed(Failed { room_id, code, ..Failed::default() })
            }
            _ => Tell::Joined(Joined { room_id, ..Joined::default() }),
        });
    }

    async fn next(mut self) -> Option<(Result<ChatResponse, Status>, Self)> {
        // A stream off a socket lets others run now and then, too.
        tokio::task::consume_budget().await;
        while let Ok(ask) = self.asked.try_recv() {
            ask.frame.into_iter().for_each(|frame| self.hear(frame));
        }
        let chatter = Tell::Pong(Pong { nonce: 0 });
        let frame = self.telling.pop_front().unwrap_or(chatter);
        Some((Ok(ChatResponse { frame: Some(frame) }), self))
    }
}

#[async_trait]
impl Open for Loud {
    fn servers(&self) -> Result<Vec<Address>, OpenError> {
        Ok(vec!["loud:1".parse().expect("an address")])
    }

    async fn open(
        &self,
        _: &Address,
        asked: mpsc::Receiver<ChatRequest>,
    ) -> Result<Opened, OpenError> {
        let session = Session { asked, telling: VecDeque::new(), joins: 0 };
        let incoming = futures_util::stream::unfold(session, Session::next).boxed();
        Ok(Opened { incoming, tokens: futures_util::stream::pending().boxed() })
    }
}

/// Asking again for the room is a matter of time, and time passes for a chat
/// that never runs out of frames as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_always_has_something_holds_up_no_timer() {
    let (chat, mut events) = start(Arc::new(Loud), Options::default());
    chat.join("r", From::Latest).await.expect("it goes on");
    let joined = async {
        loop {
            match events.next().await.expect("it goes on") {
                Event::Joined { .. } => return,
                Event::Ended { why, .. } => panic!("{why:?}"),
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), joined).await.expect("the room is joined");
}
