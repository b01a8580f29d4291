//! What every engine's chat area promises. Each case begins with an empty store.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use simpul::principal::Principal;
use simpul::store::StoreError;
use simpul::store::chat::{
    Appended, Change, ChatStore, Entry, EntryKind, KeyName, NewEntry, NewKey, PartitionAppend,
    RoomId, RoomRole,
};

mod keys;
mod rooms;
pub(crate) use keys::*;
pub(crate) use rooms::*;

pub(crate) type Chat = Arc<dyn ChatStore>;

/// As many as a store here is made with.
pub(crate) const PARTITIONS: u16 = 4;

pub(crate) fn who(id: &str) -> Principal {
    format!("user/{id}@dev.simpul").parse().unwrap()
}

/// Takes every partition; the epoch is 1.
pub(crate) async fn taken(store: &Chat) {
    let states = store.take_partitions("n1", PARTITIONS).await.unwrap();
    assert!(states.iter().all(|state| state.epoch == 1));
}

fn entry(room: &str, seq: u64, kind: EntryKind, id: &str, body: &str) -> Entry {
    Entry {
        room: RoomId::from(room),
        seq,
        kind,
        sender: who("alice"),
        client_message_id: Arc::from(id),
        body: Bytes::copy_from_slice(body.as_bytes()),
        reply_to: 0,
        committed_at: i64::try_from(seq).unwrap_or(0) + 1_000,
    }
}

/// A text under the key `id`, or without one when that is empty.
pub(crate) fn text(room: &str, seq: u64, id: &str) -> NewEntry {
    let key = (!id.is_empty()).then_some(NewKey { digest: [7; 32], redactions: 2 });
    NewEntry { entry: entry(room, seq, EntryKind::Text, id, "halo"), key, change: None }
}

/// An entry that changes something; `alice` writes it.
pub(crate) fn changing(room: &str, seq: u64, change: Change) -> NewEntry {
    let kind = match &change {
        Change::SetMember { .. } => EntryKind::Membership,
        _ => EntryKind::Room,
    };
    NewEntry { entry: entry(room, seq, kind, "", ""), key: None, change: Some(change) }
}

pub(crate) fn create(room: &str) -> NewEntry {
    changing(room, 1, Change::CreateRoom { title: format!("the {room}") })
}

pub(crate) fn part(partition: u16, entries: Vec<NewEntry>) -> PartitionAppend {
    PartitionAppend { partition, epoch: 1, entries }
}

pub(crate) async fn append(store: &Chat, partition: u16, entries: Vec<NewEntry>) {
    let answers = store.append(vec![part(partition, entries)]).await.unwrap();
    assert!(matches!(answers[..], [Appended::Committed { .. }]));
}

pub(crate) async fn head(store: &Chat, partition: u16, room: &str) -> u64 {
    store.room(partition, room).await.unwrap().map_or(0, |room| room.head)
}

async fn seqs(store: &Chat, partition: u16, room: &str) -> Vec<u64> {
    let entries = store.entries(partition, room, 0, 10_000, usize::MAX).await.unwrap();
    entries.iter().map(|entry| entry.seq).collect()
}

pub(crate) async fn commit_nos(store: &Chat) -> Vec<u64> {
    let states = store.partition_states().await.unwrap();
    states.iter().map(|state| state.commit_no).collect()
}

fn name(room: &str, sender: &str, id: &str) -> KeyName {
    KeyName { room: room.into(), sender: who(sender), client_message_id: id.into() }
}

pub(crate) async fn partitions_are_taken_whole_and_counted<S: ChatStore + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store: Chat = open().await;
    assert!(store.partition_states().await.unwrap().is_empty());
    let refused = store.take_partitions("n1", 0).await.unwrap_err();
    assert!(matches!(refused, StoreError::Version(_)), "{refused}");
    let first = store.take_partitions("n1", PARTITIONS).await.unwrap();
    let numbers: Vec<_> = first.iter().map(|state| state.partition).collect();
    assert_eq!(numbers, [0, 1, 2, 3]);
    assert!(first.iter().all(|s| s.owner == "n1" && s.epoch == 1 && s.commit_no == 0));
    append(&store, 2, vec![create("lobby")]).await;
    for other in [PARTITIONS - 1, PARTITIONS + 1] {
        let refused = store.take_partitions("n2", other).await.unwrap_err();
        assert!(matches!(refused, StoreError::Version(_)), "{refused}");
    }
    let second = store.take_partitions("n2", PARTITIONS).await.unwrap();
    assert!(second.iter().all(|state| state.owner == "n2" && state.epoch == 2));
    assert_eq!(second, store.partition_states().await.unwrap());
    assert_eq!(commit_nos(&store).await, [0, 0, 1, 0]);
}

pub(crate) async fn what_was_appended_is_read_back<S: ChatStore + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store: Chat = open().await;
    taken(&store).await;
    let mut answer = text("lobby", 2, "m1");
    answer.entry.reply_to = 1;
    answer.entry.body = Bytes::from("halo \u{1f44b}\0é".to_owned());
    let mut payment = text("lobby", 3, "receipt:p:S");
    payment.entry.kind = EntryKind::Payment;
    payment.entry.body = Bytes::from_static(&[0, 255, 0, 1]);
    let new = vec![create("lobby"), answer, payment];
    append(&store, 0, new.clone()).await;
    let expected: Vec<_> = new.into_iter().map(|new| new.entry).collect();
    assert_eq!(store.entries(0, "lobby", 0, 10, usize::MAX).await.unwrap(), expected);
    let room = store.room(0, "lobby").await.unwrap().unwrap();
    assert_eq!((room.head, room.deleted, room.created_at), (3, false, 1_001));
    assert_eq!((room.title.as_str(), room.created_by), ("the lobby", who("alice")));
    // Another partition knows nothing of it.
    assert_eq!(store.room(1, "lobby").await.unwrap(), None);
    assert!(store.entries(1, "lobby", 0, 10, usize::MAX).await.unwrap().is_empty());
}

pub(crate) async fn a_seq_that_does_not_follow_is_refused_whole<S: ChatStore + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store: Chat = open().await;
    taken(&store).await;
    append(&store, 0, vec![create("lobby"), text("lobby", 2, "m2")]).await;
    append(&store, 1, vec![create("other")]).await;
    let before = commit_nos(&store).await;
    let wrong = [
        vec![text("lobby", 4, "x")],
        vec![text("lobby", 2, "x")],
        vec![text("lobby", 0, "x")],
        vec![text("lobby", u64::MAX, "x")],
        vec![text("lobby", 3, "x"), text("lobby", 5, "y")],
        vec![text("lobby", 3, "x"), text("lobby", 3, "y")],
        vec![text("nowhere", 1, "x")],
    ];
    for entries in wrong {
        let refused = store.append(vec![part(0, entries.clone())]).await.unwrap_err();
        assert!(matches!(refused, StoreError::Corrupt(_)), "{refused}: {entries:?}");
    }
    assert_eq!(commit_nos(&store).await, before);
    assert_eq!(seqs(&store, 0, "lobby").await, [1, 2]);
    assert_eq!((head(&store, 0, "lobby").await, head(&store, 1, "other").await), (2, 1));
    assert_eq!(seqs(&store, 1, "other").await, [1]);
    let keys = vec![name("lobby", "alice", "x"), name("lobby", "alice", "m2")];
    let found = store.keys(0, keys).await.unwrap();
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true]);
}

pub(crate) async fn a_room_begins_once_and_with_its_first_entry<S: ChatStore + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store: Chat = open().await;
    taken(&store).await;
    append(&store, 0, vec![create("lobby")]).await;
    let late = changing("late", 2, Change::CreateRoom { title: String::new() });
    for entries in [vec![create("lobby")], vec![late], vec![create("a"), create("a")]] {
        let refused = store.append(vec![part(0, entries)]).await.unwrap_err();
        assert!(matches!(refused, StoreError::Corrupt(_)), "{refused}");
    }
    let owner = store.member(0, "lobby", &who("alice")).await.unwrap().unwrap();
    assert_eq!((owner.role, owner.joined_at), (RoomRole::Owner, 1_001));
    assert_eq!(store.room(0, "a").await.unwrap(), None);
}

pub(crate) async fn a_fenced_part_is_not_kept_while_others_are<S: ChatStore + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store: Chat = open().await;
    taken(&store).await;
    append(&store, 0, vec![create("a")]).await;
    append(&store, 1, vec![create("b")]).await;
    let before = commit_nos(&store).await;
    for epoch in [0, 2, u64::MAX >> 1] {
        let fenced = PartitionAppend { epoch, ..part(0, vec![text("a", 2, "m")]) };
        assert_eq!(store.append(vec![fenced]).await.unwrap(), [Appended::Fenced]);
    }
    let absent = part(PARTITIONS, vec![create("c")]);
    assert_eq!(store.append(vec![absent]).await.unwrap(), [Appended::Fenced]);
    assert_eq!(commit_nos(&store).await, before);
    let old = PartitionAppend { epoch: 0, ..part(0, vec![text("a", 2, "m")]) };
    let parts = vec![old, part(1, vec![text("b", 2, "m")]), part(2, vec![])];
    let answers = store.append(parts).await.unwrap();
    let committed = Appended::Committed { commit_no: 2 };
    assert_eq!(answers, [Appended::Fenced, committed, Appended::Committed { commit_no: 1 }]);
    assert_eq!((head(&store, 0, "a").await, head(&store, 1, "b").await), (1, 2));
    assert_eq!(store.keys(0, vec![name("a", "alice", "m")]).await.unwrap(), [None]);
    store.take_partitions("n1", PARTITIONS).await.unwrap();
    let answers = store.append(vec![part(1, vec![text("b", 3, "n")])]).await.unwrap();
    assert_eq!(answers, [Appended::Fenced]);
}

pub(crate) async fn pages_are_bounded_by_entries_and_bytes<S: ChatStore + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store: Chat = open().await;
    taken(&store).await;
    let texts = (2..=40).map(|seq| {
        let mut text = text("lobby", seq, "");
        text.entry.body = Bytes::from(vec![b'x'; 100]);
        text
    });
    append(&store, 0, std::iter::once(create("lobby")).chain(texts).collect()).await;
    let page = async |after, limit, bytes| {
        let entries = store.entries(0, "lobby", after, limit, bytes).await.unwrap();
        entries.iter().map(|entry| entry.seq).collect::<Vec<_>>()
    };
    assert_eq!(page(0, 3, usize::MAX).await, [1, 2, 3]);
    assert_eq!(page(38, 3, usize::MAX).await, [39, 40]);
    assert_eq!(page(1, 10, 350).await, [2, 3, 4]);
    assert_eq!(page(1, 10, 300).await, [2, 3, 4]);
    assert_eq!(page(1, 10, 299).await, [2, 3]);
    // At least one, however large.
    assert_eq!(page(1, 10, 0).await, [2]);
    assert_eq!(page(1, 0, 1_000).await, [0u64; 0]);
    assert_eq!(page(40, 10, 1_000).await, [0u64; 0]);
    assert_eq!(page(u64::MAX, 10, 1_000).await, [0u64; 0]);
}

pub(crate) async fn a_large_append_is_kept_whole<S: ChatStore + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store: Chat = open().await;
    taken(&store).await;
    let mut parts = Vec::new();
    for partition in 0..PARTITIONS {
        let rooms = [format!("a{partition}"), format!("b{partition}")];
        let mut entries: Vec<_> = rooms.iter().map(|room| create(room)).collect();
        // The rooms take turns.
        for seq in 2..=97 {
            entries.extend(rooms.iter().map(|room| text(room, seq, &format!("m{seq}"))));
        }
        parts.push(part(partition, entries));
    }
    assert_eq!(store.append(parts).await.unwrap(), [Appended::Committed { commit_no: 1 }; 4]);
    for partition in 0..PARTITIONS {
        for room in [format!("a{partition}"), format!("b{partition}")] {
            assert_eq!(seqs(&store, partition, &room).await, (1..=97).collect::<Vec<_>>());
            let last = store.keys(partition, vec![name(&room, "alice", "m97")]).await.unwrap();
            assert_eq!(last.first().copied().flatten().unwrap().seq, 97);
        }
    }
    assert_eq!(commit_nos(&store).await, [1; 4]);
}

/// One caller a room, as owners are, all at once, while somebody reads.
pub(crate) async fn appends_from_many_callers_leave_no_gap<S: ChatStore + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store: Chat = open().await;
    const ROOMS: u16 = 12;
    const TEXTS: u64 = 30;
    taken(&store).await;
    let writers: Vec<_> = (0..ROOMS)
        .map(|index| {
            let store = store.clone();
            simpul::task::spawn("writer", async move {
                let (partition, room) = (index % PARTITIONS, format!("r{index}"));
                append(&store, partition, vec![create(&room)]).await;
                for seq in 2..=TEXTS {
                    append(&store, partition, vec![text(&room, seq, &format!("m{seq}"))]).await;
                    // What was acknowledged is there for everybody.
                    assert_eq!(head(&store, partition, &room).await, seq);
                }
            })
        })
        .collect();
    let reader = async {
        let mut after = 0;
        while after < TEXTS {
            for entry in store.entries(0, "r0", after, 7, usize::MAX).await.unwrap() {
                assert_eq!(entry.seq, after + 1);
                after = entry.seq;
            }
            tokio::task::yield_now().await;
        }
    };
    reader.await;
    for writer in writers {
        writer.await.unwrap();
    }
    for index in 0..ROOMS {
        let found = seqs(&store, index % PARTITIONS, &format!("r{index}")).await;
        assert_eq!(found, (1..=TEXTS).collect::<Vec<_>>());
    }
    let commits: u64 = commit_nos(&store).await.iter().sum();
    assert_eq!(commits, u64::from(ROOMS) * TEXTS);
}

/// And nothing else is: the next owner goes on where the last one was.
pub(crate) async fn what_was_acknowledged_is_there_when_opened_again<S: ChatStore + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store: Chat = open().await;
    taken(&store).await;
    append(&store, 0, vec![create("lobby"), text("lobby", 2, "m2")]).await;
    store.append(vec![part(0, vec![text("lobby", 4, "m4")])]).await.unwrap_err();
    drop(store);
    let store: Chat = open().await;
    assert_eq!(seqs(&store, 0, "lobby").await, [1, 2]);
    let states = store.take_partitions("n2", PARTITIONS).await.unwrap();
    assert!(states.iter().all(|state| state.epoch == 2));
    let names = vec![name("lobby", "alice", "m2"), name("lobby", "alice", "m4")];
    let found = store.keys(0, names).await.unwrap();
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false]);
    let next = PartitionAppend { epoch: 2, ..part(0, vec![text("lobby", 3, "m3")]) };
    assert!(store.append(vec![next]).await.unwrap()[0].is_committed());
}
