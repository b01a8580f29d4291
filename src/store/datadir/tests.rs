use std::os::unix::fs::PermissionsExt;

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it exists").permissions().mode() & 0o777
}

#[test]
fn the_id_is_kept_and_each_start_is_counted() {
    let parent = tempfile::tempdir().expect("a directory");
    let path = parent.path().join("a/b");
    let first = DataDir::open(&path, None).expect("made");
    let id = first.node_id().to_owned();
    assert!(id::is_short_name(&id) && id.starts_with("node-"), "{id}");
    assert_eq!((first.incarnation(), mode(&path), mode(&path.join("node-id"))), (1, 0o700, 0o600));
    drop(first);
    let second = DataDir::open(&path, None).expect("opened");
    assert_eq!((second.node_id(), second.incarnation()), (id.as_str(), 2));
    drop(second);
    let named = DataDir::open(&path, Some("kota")).expect("opened");
    assert_eq!((named.node_id(), named.incarnation()), ("kota", 3));
}

#[test]
fn two_nodes_never_share_it() {
    let dir = tempfile::tempdir().expect("a directory");
    assert!(!in_use(dir.path()).expect("looked"));
    let first = DataDir::open(dir.path(), None).expect("opened");
    assert!(in_use(dir.path()).expect("looked"));
    let error = DataDir::open(dir.path(), None).expect_err("locked");
    assert!(matches!(error, DataDirError::Locked(_)));
    let path = dir.path().canonicalize().expect("a path");
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    drop(first);
    assert!(!in_use(dir.path()).expect("looked"));
    assert_eq!(DataDir::open(dir.path(), None).expect("free again").incarnation(), 2);
}

#[test]
fn a_newer_or_damaged_one_is_refused_as_it_is() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("version"), "7\n").expect("written");
    let error = DataDir::open(dir.path(), None).expect_err("newer");
    assert!(matches!(error, DataDirError::Newer { found: 7, .. }), "{error}");
    assert!(!dir.path().join("node-id").exists() && !dir.path().join("incarnation").exists());

    fs::write(dir.path().join("version"), "1\n").expect("written");
    fs::write(dir.path().join("incarnation"), "many").expect("written");
    let error = DataDir::open(dir.path(), None).expect_err("damaged");
    assert!(matches!(error, DataDirError::Damaged { .. }), "{error}");
}

#[test]
fn node_json_is_there_while_the_node_serves() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = DataDir::open(dir.path(), Some("kota")).expect("opened");
    let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
    node.write_node_file(address(1), Some(address(3)), address(2), Some("/x/ca.pem".into()))
        .expect("written");
    let file = dir.path().join("node.json");
    let read: serde_json::Value =
        serde_json::from_slice(&fs::read(&file).expect("read")).expect("JSON");
    let expected = serde_json::json!({
        "pid": std::process::id(), "node_id": "kota", "incarnation": 1,
        "public": "127.0.0.1:1", "mesh": "127.0.0.1:3", "admin": "127.0.0.1:2", "ca_file": "/x/ca.pem",
    });
    assert_eq!(read, expected);
    drop(node);
    assert!(!file.exists());
}
