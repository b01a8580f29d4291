//! What was acknowledged is there after a restart, on the embedded store.

use std::sync::Arc;

use crate::chat::metrics::ChatMetrics;
use crate::chat::testing::{Client, config, permit, who};
use crate::chat::{Chat, Content, Proposal, Published};
use crate::drain;
use crate::proto::chat::v1::join::From;
use crate::readiness::Readiness;
use crate::refusal::Refusal;
use crate::store::sqlite::SqliteStore;

async fn start(path: &std::path::Path) -> Chat {
    let store = Arc::new(SqliteStore::open(path, 2).await.expect("a store"));
    let watch = drain::channel().1;
    let metrics = ChatMetrics::unregistered();
    let readiness = Readiness::new();
    Chat::start(store, &config(), 65536, "n1", metrics, watch, &readiness, None, None)
        .await
        .expect("the partitions are taken")
}

async fn propose(chat: &Chat, id: &str, content: Content) -> Result<Published, Refusal> {
    let client_message_id = id.into();
    let proposal =
        Proposal { room: "r".into(), sender: who("bob"), client_message_id, after: None, content };
    chat.router().publish(proposal).await
}

#[tokio::test]
async fn nothing_that_was_acknowledged_is_lost_or_doubled() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("simpul.db");
    let text = |n: u64| Content::Text { body: format!("{n:0300}"), reply_to: 0 };
    let chat = start(&path).await;
    let created = Content::CreateRoom { title: "t".into() };
    propose(&chat, "", created).await.expect("a room");
    let mut bob = Client::open(&chat, permit("bob"));
    bob.join("r", From::Earliest(true)).await;
    for n in 0..400 {
        bob.send("r", &format!("m{n}"), &format!("{n:0300}")).await;
        if n % 100 == 0 {
            bob.read(if n == 0 { 0 } else { n + 2 - 100 }, n + 2).await;
        }
    }
    bob.read(302, 401).await;
    drop((bob, chat));

    let chat = start(&path).await;
    for n in [0, 200, 399] {
        let again = propose(&chat, &format!("m{n}"), text(n)).await.expect("known");
        assert_eq!(again.seq, n + 2);
    }
    let mut bob = Client::open(&chat, permit("bob"));
    bob.join("r", From::Earliest(true)).await;
    for seq in 1..=401_u64 {
        let message = bob.message().await;
        assert_eq!(message.seq, seq);
        if seq > 1 {
            assert_eq!(message.body, format!("{:0300}", seq - 2));
        }
    }
    assert_eq!(propose(&chat, "new", text(1)).await.expect("durable").seq, 402);
    bob.read(401, 402).await;
}
