//! One message is one trace, whatever nodes it crosses.

use rustix::process::Signal;
use simpul::proto::chat::v1::SendMessageRequest;
use simpul::proto::chat::v1::chat_service_client::ChatServiceClient;
use simpul::proto::chat::v1::join::From;

use crate::cluster::Cluster;
use crate::collector::{Collector, PARENT, TRACE, chain, traced};
use crate::support::{LONG, eventually};
use crate::talk::{Session, room};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_the_sender_through_the_owner_and_the_commit_to_a_reader_on_a_third_node() {
    let (collector, url) = Collector::listen().await;
    let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "50")];
    let Some(mut cluster) = Cluster::start_with("one trace", 3, &env).await else { return };
    let alice = cluster.token("alice", &[]);
    room(cluster.nodes[0].channel().await, &alice, "lobby", &[]).await;
    let owner = cluster.owner_of("lobby").await;
    let (sender, reader) = ((owner + 1) % 3, (owner + 2) % 3);
    let channel = cluster.nodes[reader].channel().await;
    let mut session = Session::join(channel, &alice, "lobby", From::Latest(true)).await;
    // From now on the room is followed: what comes, comes over the link.
    let mut client = ChatServiceClient::new(cluster.nodes[sender].channel().await);
    let send = |id: &str| SendMessageRequest {
        room_id: "lobby".to_owned(),
        client_message_id: id.to_owned(),
        body: "halo".to_owned(),
        reply_to: 0,
    };
    client.send_message(crate::support::with_token(send("first"), &alice)).await.expect("sent");
    assert_eq!(session.message().await.client_message_id, "first");
    client.send_message(traced(send("traced"), &alice)).await.expect("sent");
    assert_eq!(session.message().await.client_message_id, "traced");

    let node = |at: usize| format!("n{at}");
    let call = ("simpul.chat.v1.ChatService/SendMessage", node(sender));
    let order = ("chat.order", node(owner));
    let commit = ("chat.commit", node(owner));
    let send = ("chat.send", node(sender));
    let (write, deliver) = (("chat.append", node(owner)), ("chat.deliver", node(reader)));
    let sent = [order, send, call];
    for first in [vec![write, commit], vec![deliver]] {
        let expected = [&first[..], &sent[..]].concat();
        eventually("every span of the way, each the next one's child", async || {
            let spans = collector.trace(TRACE);
            let name = expected.first()?.0;
            let way = spans
                .iter()
                .filter(|span| span.name == name)
                .find_map(|span| chain(&spans, span, PARENT))?;
            let way: Vec<_> =
                way.iter().map(|span| (span.name.as_str(), collector.sent_by(span))).collect();
            (way == expected).then_some(())
        })
        .await;
    }
    // Every node has sent what it had when it has ended: a second delivery would
    // be there by then.
    cluster.nodes.iter().for_each(|node| node.signal(Signal::TERM));
    for node in &mut cluster.nodes {
        assert_eq!(node.wait(LONG), Some(0));
    }
    let traced = collector.trace(TRACE);
    let delivered = traced.iter().filter(|span| span.name == "chat.deliver").count();
    assert_eq!(delivered, 1, "one delivery, to the one node that reads");
    cluster.end().await;
}
