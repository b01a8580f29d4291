//! What is promised of the names of messages.

use super::*;

pub(crate) async fn keys_are_found_in_the_order_asked<S: ChatStore + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store: Chat = open().await;
    taken(&store).await;
    let texts = (2..=120).map(|seq| text("lobby", seq, &format!("m{seq}")));
    append(&store, 0, std::iter::once(create("lobby")).chain(texts).collect()).await;
    append(&store, 0, vec![create("other"), text("other", 2, "m5")]).await;
    assert!(store.keys(0, vec![]).await.unwrap().is_empty());
    // Backwards, every third unknown, more than any batch.
    let asked: Vec<u64> = (2..=120).rev().collect();
    let id = |seq: &u64| if seq.is_multiple_of(3) { format!("x{seq}") } else { format!("m{seq}") };
    let names = asked.iter().map(|seq| name("lobby", "alice", &id(seq))).collect();
    let found = store.keys(0, names).await.unwrap();
    assert_eq!(found.len(), asked.len());
    for (seq, record) in asked.iter().zip(found) {
        assert_eq!(record.map(|record| record.seq), (!seq.is_multiple_of(3)).then_some(*seq));
        if let Some(record) = record {
            assert_eq!(record.committed_at, 1_000 + i64::try_from(*seq).unwrap());
            assert_eq!((record.digest, record.redactions), ([7; 32], 2));
        }
    }
    let twice = name("lobby", "alice", "m5");
    let names =
        vec![twice.clone(), name("other", "alice", "m5"), name("lobby", "bob", "m5"), twice];
    let found = store.keys(0, names.clone()).await.unwrap();
    let found: Vec<_> = found.iter().map(|record| record.map(|record| record.seq)).collect();
    assert_eq!(found, [Some(5), Some(2), None, Some(5)]);
    assert_eq!(store.keys(1, names).await.unwrap(), [None; 4]);
}

pub(crate) async fn a_taken_key_keeps_its_part_out<S: ChatStore + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store: Chat = open().await;
    taken(&store).await;
    append(&store, 0, vec![create("lobby"), text("lobby", 2, "m")]).await;
    let again = vec![text("lobby", 3, "m")];
    let in_one = vec![text("lobby", 3, "n"), text("lobby", 4, "n")];
    for entries in [again, in_one] {
        let refused = store.append(vec![part(0, entries)]).await.unwrap();
        assert_eq!(refused, [Appended::KeyTaken]);
        assert_eq!(seqs(&store, 0, "lobby").await, [1, 2]);
        assert_eq!(head(&store, 0, "lobby").await, 2);
    }
    // Another sender's name, and entries without one, are apart.
    let mut bobs = text("lobby", 3, "m");
    bobs.entry.sender = who("bob");
    append(&store, 0, vec![bobs, text("lobby", 4, ""), text("lobby", 5, "")]).await;
    assert_eq!(head(&store, 0, "lobby").await, 5);
}

/// Whether the parts are one transaction or several, what is said of each part is
/// what is true of it.
pub(crate) async fn of_several_parts_one_with_a_taken_key_is_told_apart<S: ChatStore + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store: Chat = open().await;
    taken(&store).await;
    append(&store, 1, vec![create("b"), text("b", 2, "m")]).await;
    append(&store, 3, vec![create("d")]).await;
    for turn in 0..8 {
        let before = commit_nos(&store).await;
        let rooms = [format!("a{turn}"), "b".to_owned(), format!("c{turn}"), "d".to_owned()];
        let fenced = PartitionAppend { epoch: 9, ..part(3, vec![text("d", 2, "m")]) };
        let parts = vec![
            part(0, vec![create(&rooms[0])]),
            part(1, vec![text("b", 3, "m")]),
            part(2, vec![create(&rooms[2])]),
            fenced,
        ];
        let answers = store.append(parts).await.unwrap();
        assert_eq!(answers.len(), 4);
        assert_eq!(answers[1], Appended::KeyTaken);
        assert!(!answers[3].is_committed(), "{answers:?}");
        let after = commit_nos(&store).await;
        for (at, answer) in answers.into_iter().enumerate() {
            let number = before[at] + u64::from(answer.is_committed());
            assert_eq!(after[at], number, "part {at} of {answer:?}");
            let kept = head(&store, u16::try_from(at).unwrap(), &rooms[at]).await;
            let expected = match at {
                1 => 2,
                3 => 1,
                _ => u64::from(answer.is_committed()),
            };
            assert_eq!(kept, expected, "part {at} of {answer:?}");
            if let Appended::Committed { commit_no } = answer {
                assert_eq!(commit_no, number);
            }
        }
    }
}

pub(crate) async fn keys_are_forgotten_by_age<S: ChatStore + 'static>(
    open: impl AsyncFn() -> Arc<S>,
) {
    let store: Chat = open().await;
    taken(&store).await;
    let texts = (2..=9).map(|seq| text("lobby", seq, &format!("m{seq}")));
    append(&store, 0, std::iter::once(create("lobby")).chain(texts).collect()).await;
    assert_eq!(store.forget_keys(1_002, 10).await.unwrap(), 0);
    assert_eq!(store.forget_keys(1_006, 3).await.unwrap(), 3);
    assert_eq!(store.forget_keys(1_006, 3).await.unwrap(), 1);
    assert_eq!(store.forget_keys(1_006, 3).await.unwrap(), 0);
    let names = (2..=9).map(|seq| name("lobby", "alice", &format!("m{seq}"))).collect();
    let left = store.keys(0, names).await.unwrap();
    assert_eq!(left.iter().flatten().map(|r| r.seq).collect::<Vec<_>>(), [6, 7, 8, 9]);
    // The entries stay, and a forgotten name can be given again.
    assert_eq!(head(&store, 0, "lobby").await, 9);
    append(&store, 0, vec![text("lobby", 10, "m2")]).await;
    assert_eq!(seqs(&store, 0, "lobby").await.len(), 10);
}
