//! One node alone and several together keep each other out, and only each other.

use super::*;

fn refusal(usage: Result<Usage, StoreError>) -> String {
    usage.map(|_| ()).expect_err("refused").to_string()
}

#[test]
fn a_lone_node_and_nodes_that_share_keep_each_other_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("simpul.db");
    let alone = Usage::alone(&path).expect("nobody else");
    assert!(refusal(Usage::alone(&path)).contains("in use by another node"));
    let told = refusal(Usage::shared(&path));
    assert!(told.contains("to itself") && told.contains("simpul.db.use"), "{told}");
    drop(alone);
    let (first, second) = (Usage::shared(&path), Usage::shared(&path));
    assert!(first.is_ok() && second.is_ok());
    assert!(refusal(Usage::alone(&path)).contains("cluster.shared_file = true"));
    drop((first, second));
    Usage::alone(&path).expect("all have gone");
}

#[tokio::test]
async fn a_nodes_lock_is_seen_by_others_and_ends_with_its_holder() {
    let dir = tempfile::tempdir().expect("a directory");
    let (one, two) = (NodeLocks::beside(dir.path()), NodeLocks::beside(dir.path()));
    let (one, two) = (one.expect("made"), two.expect("made"));
    assert!(!two.is_locked("n1").expect("looks"), "nobody ever had it");
    let lock = one.take("n1").await.expect("takes").expect("is free");
    one.keep("n1", lock);
    assert!(one.is_locked("n1").expect("looks") && two.is_locked("n1").expect("looks"));
    assert!(two.take("n1").await.expect("tries").is_none());
    drop(one);
    assert!(!two.is_locked("n1").expect("looks"));
    assert!(two.take("../n1").await.is_err(), "no way out of the directory");
}

#[tokio::test]
async fn a_turn_is_had_by_one_and_handed_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("simpul.db");
    let mut one = turn::Turn::of(&path).expect("made");
    let mut two = turn::Turn::of(&path).expect("made");
    let held = one.take().await.expect("the first turn");
    let mut waiting = Box::pin(two.take());
    assert!(futures_util::poll!(&mut waiting).is_pending());
    drop(held);
    let second = waiting.as_mut().await.expect("the second turn");
    drop(waiting);
    // A wait that is given up leaves nothing behind.
    let given_up = one.take();
    drop(futures_util::FutureExt::now_or_never(given_up));
    drop(second);
    drop(two.take().await.expect("again"));
}

#[test]
fn a_file_has_one_name_by_whatever_link_it_is_reached() {
    let dir = tempfile::tempdir().expect("a directory");
    let real = dir.path().canonicalize().expect("is there").join("simpul.db");
    let (link, nowhere) = (dir.path().join("link.db"), dir.path().join("nowhere.db"));
    assert_eq!(name::resolve(&dir.path().join("simpul.db")).ok(), Some(real.clone()), "not made");
    std::fs::write(&real, "").expect("made");
    std::os::unix::fs::symlink("simpul.db", &link).expect("linked");
    assert_eq!(name::resolve(&link).ok(), Some(real.clone()));
    std::os::unix::fs::symlink("missing.db", &nowhere).expect("linked");
    assert!(name::resolve(&nowhere).is_err(), "a link that leads nowhere");
    name::check(&real).expect("one name");
    std::fs::hard_link(&real, dir.path().join("hard.db")).expect("linked");
    let told = name::check(&real).expect_err("two names").to_string();
    assert!(told.contains("store.url") && told.contains("2 names"), "{told}");
}
