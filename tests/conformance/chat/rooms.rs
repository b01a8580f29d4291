//! What is promised of deletion, members and lists.

use super::*;

fn set(member: &str, role: Option<RoomRole>) -> Change {
    Change::SetMember { member: who(member), role }
}

pub(crate) async fn a_deleted_room_leaves_its_id_alone<S: ChatStore + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store: Chat = open().await;
    taken(&store).await;
    let entries = vec![
        create("lobby"),
        text("lobby", 2, "m"),
        changing("lobby", 3, set("bob", Some(RoomRole::Member))),
        create("lobby2"),
        text("lobby2", 2, "m"),
    ];
    append(&store, 0, entries).await;
    let room = RoomId::from("lobby");
    assert!(store.delete_room(0, 1, &room).await.unwrap().is_committed());
    let record = store.room(0, "lobby").await.unwrap().unwrap();
    assert!(record.deleted);
    assert_eq!(record.title, "");
    // It is nobody's at once; what it leaves is erased a slice at a time.
    assert!(store.rooms_of(&who("bob"), "", 10).await.unwrap().is_empty());
    assert_eq!(store.erase_deleted(2).await.unwrap(), 2);
    let mut slices = 1;
    while store.erase_deleted(2).await.unwrap() > 0 {
        slices += 1;
    }
    assert!(slices > 2, "{slices} slices for more than four rows");
    assert!(store.entries(0, "lobby", 0, 10, usize::MAX).await.unwrap().is_empty());
    assert!(store.members(0, "lobby", "", 10).await.unwrap().is_empty());
    let key = |room: &str| KeyName {
        room: room.into(),
        sender: who("alice"),
        client_message_id: "m".into(),
    };
    let found = store.keys(0, vec![key("lobby"), key("lobby2")]).await.unwrap();
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true]);
    assert!(store.rooms_of(&who("bob"), "", 10).await.unwrap().is_empty());
    let left = store.rooms_of(&who("alice"), "", 10).await.unwrap();
    assert_eq!(left.iter().map(|(room, _)| &*room.room).collect::<Vec<_>>(), ["lobby2"]);
    // Neither created again nor written to.
    for entries in [vec![create("lobby")], vec![text("lobby", 1, "")], vec![text("lobby", 4, "")]] {
        let refused = store.append(vec![part(0, entries)]).await.unwrap_err();
        assert!(matches!(refused, StoreError::Corrupt(_)), "{refused}");
    }
    // Again, and one that never was: nothing changes.
    for room in [room, RoomId::from("nowhere")] {
        assert!(store.delete_room(0, 1, &room).await.unwrap().is_committed());
    }
    assert_eq!(store.room(0, "nowhere").await.unwrap(), None);
    assert_eq!(store.room(0, "lobby").await.unwrap(), Some(record));
}

pub(crate) async fn deletion_is_fenced<S: ChatStore + 'static>(open: impl AsyncFn() -> Arc<S>) {
    let store: Chat = open().await;
    taken(&store).await;
    append(&store, 0, vec![create("lobby"), text("lobby", 2, "m")]).await;
    let room = RoomId::from("lobby");
    for (partition, epoch) in [(0, 0), (0, 2), (PARTITIONS, 1)] {
        let answer = store.delete_room(partition, epoch, &room).await.unwrap();
        assert_eq!(answer, Appended::Fenced);
    }
    assert_eq!(head(&store, 0, "lobby").await, 2);
    assert_eq!(store.members(0, "lobby", "", 10).await.unwrap().len(), 1);
    assert_eq!(commit_nos(&store).await, [1, 0, 0, 0]);
    store.delete_room(0, 1, &room).await.unwrap();
    assert_eq!(commit_nos(&store).await, [2, 0, 0, 0]);
}

pub(crate) async fn members_come_and_go_and_change<S: ChatStore + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store: Chat = open().await;
    taken(&store).await;
    append(&store, 0, vec![create("lobby")]).await;
    let bob = async || store.member(0, "lobby", &who("bob")).await.unwrap();
    assert_eq!(bob().await, None);
    append(&store, 0, vec![changing("lobby", 2, set("bob", Some(RoomRole::Reader)))]).await;
    let record = bob().await.unwrap();
    assert_eq!((record.role, record.joined_at), (RoomRole::Reader, 1_002));
    // Another role leaves the time.
    append(&store, 0, vec![changing("lobby", 3, set("bob", Some(RoomRole::Moderator)))]).await;
    let record = bob().await.unwrap();
    assert_eq!((record.role, record.joined_at), (RoomRole::Moderator, 1_002));
    append(&store, 0, vec![changing("lobby", 4, set("bob", None))]).await;
    assert_eq!(bob().await, None);
    // In one append, in order: the last word counts, and joining anew is new.
    let entries = vec![
        changing("lobby", 5, set("bob", Some(RoomRole::Owner))),
        changing("lobby", 6, set("bob", None)),
        changing("lobby", 7, set("bob", Some(RoomRole::Member))),
    ];
    append(&store, 0, entries).await;
    let record = bob().await.unwrap();
    assert_eq!((record.role, record.joined_at), (RoomRole::Member, 1_007));
    assert_eq!(store.member(1, "lobby", &who("bob")).await.unwrap(), None);
}

pub(crate) async fn members_come_in_pages<S: ChatStore + 'static>(open: impl AsyncFn() -> Arc<S>) {
    let store: Chat = open().await;
    taken(&store).await;
    let add = |seq: u64| changing("lobby", seq, set(&format!("m{seq:02}"), Some(RoomRole::Member)));
    append(&store, 0, std::iter::once(create("lobby")).chain((2..=20).map(add)).collect()).await;
    let mut all = Vec::new();
    let mut after = String::new();
    loop {
        let page = store.members(0, "lobby", &after, 6).await.unwrap();
        assert!(page.len() <= 6);
        let Some(last) = page.last() else { break };
        after = last.member.to_string();
        all.extend(page.into_iter().map(|record| record.member.id().to_owned()));
    }
    let mut expected: Vec<_> = (2..=20).map(|seq| format!("m{seq:02}")).collect();
    expected.insert(0, "alice".to_owned());
    assert_eq!(all, expected);
    assert!(store.members(0, "lobby", "", 0).await.unwrap().is_empty());
}

pub(crate) async fn rooms_of_a_member_come_in_pages<S: ChatStore + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store: Chat = open().await;
    taken(&store).await;
    let names: Vec<_> = (0..10).map(|index| format!("room{index}")).collect();
    for (index, room) in names.iter().enumerate() {
        let partition = u16::try_from(index).unwrap() % PARTITIONS;
        let role = if index == 3 { RoomRole::Reader } else { RoomRole::Member };
        let mut entries = vec![create(room)];
        if index != 5 {
            entries.push(changing(room, 2, set("bob", Some(role))));
        }
        append(&store, partition, entries).await;
    }
    let mut all = Vec::new();
    let mut after = String::new();
    loop {
        let page = store.rooms_of(&who("bob"), &after, 4).await.unwrap();
        assert!(page.len() <= 4);
        let Some((last, _)) = page.last() else { break };
        after = last.room.to_string();
        all.extend(page);
    }
    let found: Vec<_> = all.iter().map(|(room, _)| room.room.to_string()).collect();
    let expected: Vec<_> = names.iter().filter(|name| *name != "room5").cloned().collect();
    assert_eq!(found, expected);
    for (room, role) in all {
        let reader = &*room.room == "room3";
        assert_eq!(role, if reader { RoomRole::Reader } else { RoomRole::Member });
        assert_eq!((room.head, room.deleted), (2, false));
        assert_eq!(room.title, format!("the {}", room.room));
    }
    assert!(store.rooms_of(&who("carol"), "", 4).await.unwrap().is_empty());
}

pub(crate) async fn titles_change<S: ChatStore + 'static>(open: impl AsyncFn() -> Arc<S>) {
    let store: Chat = open().await;
    taken(&store).await;
    append(&store, 0, vec![create("lobby"), create("other")]).await;
    let title = |title: &str| Change::SetTitle { title: title.to_owned() };
    append(&store, 0, vec![changing("lobby", 2, title("a")), changing("lobby", 3, title("b"))])
        .await;
    let room = store.room(0, "lobby").await.unwrap().unwrap();
    assert_eq!((room.title.as_str(), room.head, room.created_at), ("b", 3, 1_001));
    assert_eq!(store.room(0, "other").await.unwrap().unwrap().title, "the other");
    // Any text is a title.
    append(&store, 0, vec![changing("lobby", 4, title("\0 é \u{1f44b}"))]).await;
    assert_eq!(store.room(0, "lobby").await.unwrap().unwrap().title, "\0 é \u{1f44b}");
}

pub(crate) async fn heads_come_in_the_order_asked<S: ChatStore + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store: Chat = open().await;
    taken(&store).await;
    append(&store, 0, vec![create("a"), create("b"), text("b", 2, ""), create("gone")]).await;
    append(&store, 1, vec![create("c")]).await;
    store.delete_room(0, 1, &"gone".into()).await.unwrap();
    let asked = ["b", "nowhere", "a", "c", "gone", "b"].map(Into::into).to_vec();
    let heads = store.heads(0, asked).await.unwrap();
    assert_eq!(heads, [Some(2), None, Some(1), None, None, Some(2)]);
    assert_eq!(store.heads(0, vec![]).await.unwrap(), []);
}
