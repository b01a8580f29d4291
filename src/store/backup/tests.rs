use std::fs;
use std::os::unix::fs::PermissionsExt;

use uuid::Uuid;

use super::*;
use crate::store::LedgerStore;
use crate::store::datadir::DataDir;
use crate::store::ledger::{AccountName, Movement, TransactionKind, Transfer};
use crate::store::sqlite::SqliteStore;

fn toko() -> AccountName {
    AccountName::from_stored("user/toko@a".to_owned())
}

async fn post(store: &SqliteStore, number: u128) {
    let movement = Movement {
        from: AccountName::provider_clearing("sandbox"),
        to: toko(),
        minor_units: 5,
        kind: TransactionKind::Funding,
        needs_balance: false,
    };
    let transfer = Transfer {
        id: Uuid::from_u128(number),
        payment_id: Uuid::from_u128(number),
        currency: "IDR".parse().expect("a currency"),
        movements: vec![movement],
        posted_at: 1,
    };
    store.post(transfer).await.expect("posted");
}

struct Node {
    temp: tempfile::TempDir,
    dir: DataDir,
    store: SqliteStore,
}

async fn node() -> Node {
    let temp = tempfile::tempdir().expect("a directory");
    let dir = DataDir::open(&temp.path().join("data"), None).expect("opened");
    let store = SqliteStore::open(&dir.path().join(location::FILE), 2).await.expect("opened");
    for number in 1..=20 {
        post(&store, number).await;
    }
    Node { temp, dir, store }
}

#[tokio::test]
async fn a_running_nodes_backup_is_restored_whole_and_sound() {
    let Node { temp, dir, store } = node().await;
    let books = SqliteStore::open(&dir.path().join(SANDBOX), 1).await.expect("opened");
    let writer = store.clone();
    let writing = crate::task::spawn("writing", async move {
        for number in 21..=120 {
            post(&writer, number).await;
        }
    });
    let to = temp.path().join("backup");
    let report = backup(dir.path(), &to).await.expect("backed up");
    writing.await.expect("written");
    assert_eq!(
        report.files.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(),
        ["simpul.db", SANDBOX]
    );
    let mode = |path: &Path| fs::metadata(path).expect("it exists").permissions().mode() & 0o777;
    assert_eq!(mode(&to), 0o700);
    for file in fs::read_dir(&to).expect("read") {
        let file = file.expect("a file").path();
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    books.close().await.expect("closed");
    store.close().await.expect("closed");
    drop(dir);

    let target = temp.path().join("restored");
    let restored = restore(&to, &target).await.expect("restored");
    assert_eq!(restored.files.len(), 2);
    let names: std::collections::BTreeSet<_> = fs::read_dir(&target)
        .expect("read")
        .map(|file| file.expect("a file").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["lock", SANDBOX, "simpul.db"]);
    let dir = DataDir::open(&target, None).expect("a node can run there");
    let store = SqliteStore::open(&dir.path().join(location::FILE), 1).await.expect("opened");
    assert!(store.audit().await.expect("audited").is_empty());
    let head = store.history_head(&toko()).await.expect("a head");
    assert!((20..=120).contains(&head), "{head}");
    let more = restore(&to, &target).await.expect_err("a node runs");
    assert!(matches!(more, BackupError::Running(_)), "{more}");
}

#[tokio::test]
async fn a_stopped_or_killed_nodes_directory_can_be_backed_up() {
    let Node { temp, dir, store } = node().await;
    // As after a kill: the log is there, nobody has brought it into order.
    let left = temp.path().join("left");
    fs::create_dir(&left).expect("made");
    for name in ["simpul.db", "simpul.db-wal"] {
        fs::copy(dir.path().join(name), left.join(name)).expect("copied");
    }
    backup(&left, &temp.path().join("one")).await.expect("backed up");
    store.close().await.expect("closed");
    assert!(!dir.path().join("simpul.db-wal").exists(), "closing moves the log");
    let path = dir.path().to_owned();
    drop(dir);
    backup(&path, &temp.path().join("two")).await.expect("backed up");
    for name in ["one", "two"] {
        let target = temp.path().join(format!("restored-{name}"));
        restore(&temp.path().join(name), &target).await.expect("restored");
        let store = SqliteStore::open(&target.join(location::FILE), 1).await.expect("opened");
        assert_eq!(store.history_head(&toko()).await.expect("a head"), 20);
    }
}

#[tokio::test]
async fn what_is_not_sound_is_not_restored() {
    let Node { temp, dir, store } = node().await;
    let to = temp.path().join("backup");
    backup(dir.path(), &to).await.expect("backed up");
    let again = backup(dir.path(), &to).await.expect_err("it exists");
    assert!(matches!(again, BackupError::Exists(_)) && to.join("manifest.json").exists());
    let running = restore(&to, dir.path()).await.expect_err("running");
    assert!(matches!(running, BackupError::Running(_)), "{running}");
    let full = temp.path().join("full");
    fs::create_dir(&full).expect("made");
    fs::write(full.join("mine"), "x").expect("written");
    let error = restore(&to, &full).await.expect_err("not empty");
    assert!(matches!(error, BackupError::NotEmpty(_)) && full.join("mine").exists(), "{error}");

    let target = temp.path().join("target");
    let database = to.join(location::FILE);
    let mut bytes = fs::read(&database).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&database, bytes).expect("written");
    let error = restore(&to, &target).await.expect_err("damaged");
    assert!(matches!(error, BackupError::Damaged { .. }) && !target.exists(), "{error}");
    fs::remove_file(to.join("manifest.json")).expect("removed");
    let error = restore(&to, &target).await.expect_err("half a backup");
    assert!(matches!(error, BackupError::NotABackup { .. }) && !target.exists(), "{error}");

    // An unsound ledger whose copy is faithful.
    let tampered = store.write("test.tamper", |conn| {
        Box::pin(async move {
            sqlx::query("UPDATE account_balance SET posted = 1").execute(conn).await?;
            Ok(())
        })
    });
    tampered.await.expect("tampered");
    let to = temp.path().join("unsound");
    backup(dir.path(), &to).await.expect("backed up");
    let error = restore(&to, &target).await.expect_err("unsound");
    assert!(matches!(error, BackupError::Unsound(_)) && !target.exists(), "{error}");

    let nothing = backup(temp.path(), &temp.path().join("none")).await.expect_err("no store");
    assert!(matches!(nothing, BackupError::NoStore(_)), "{nothing}");
}
