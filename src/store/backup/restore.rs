//! The way back: into an empty data directory, and only what is sound.
//!
//! Databases are copied under other names, checked there, and renamed last: a
//! restore that fails or is killed leaves no database that a node would take for
//! its own. The directory's lock is held throughout, so that no node starts in
//! between.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use sqlx::Connection;

use super::manifest::{FileEntry, Manifest};
use super::{BackupError, Report, connect, files};
use crate::store::datadir;
use crate::store::sqlite::{SqliteStore, location};
use crate::store::{LedgerStore, StoreError};

/// Added to every partition's epoch. A backup is older than what it was made
/// of: whatever took partitions since then must not seem to be the newer one.
const EPOCHS: i64 = 1_000_000;

/// Restores a backup into a data directory that is empty or does not exist.
/// Checks the sums, the databases and the ledger before anything stands there.
pub async fn restore(from: &Path, data_dir: &Path) -> Result<Report, BackupError> {
    let manifest = Manifest::read(from)?;
    let made = !data_dir.exists();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(|error| files::failed(data_dir, error))?;
    if datadir::in_use(data_dir)? {
        return Err(BackupError::Running(data_dir.to_owned()));
    }
    if !files::is_empty(data_dir)? {
        return Err(BackupError::NotEmpty(data_dir.to_owned()));
    }
    let lock = datadir::lock(data_dir)?;
    let restored = restore_all(&manifest, from, data_dir).await;
    if restored.is_err() {
        clean(&manifest, data_dir, made);
    }
    drop(lock);
    restored
}

async fn restore_all(
    manifest: &Manifest,
    from: &Path,
    data_dir: &Path,
) -> Result<Report, BackupError> {
    for entry in &manifest.files {
        let target = beside(data_dir, entry);
        let (bytes, sha256) = files::copy(from.join(&entry.name), target.clone()).await?;
        if bytes != entry.bytes || sha256 != entry.sha256 {
            return Err(damaged(entry, "its checksum differs"));
        }
        check_pages(entry, &target).await?;
        if entry.name == location::FILE {
            check_store(&target).await?;
        }
    }
    for entry in &manifest.files {
        let (target, path) = (beside(data_dir, entry), data_dir.join(&entry.name));
        files::sync(&target)?;
        fs::rename(&target, &path).map_err(|error| files::failed(&path, error))?;
    }
    files::sync_dir(data_dir)?;
    Ok(manifest.report(data_dir))
}

/// SQLite's own check of every page and index.
async fn check_pages(entry: &FileEntry, path: &Path) -> Result<(), BackupError> {
    let mut connection = connect(path, true).await?;
    let found: Result<Vec<String>, _> =
        sqlx::query_scalar("PRAGMA integrity_check(1)").fetch_all(&mut connection).await;
    connection.close().await.map_err(StoreError::from)?;
    match found {
        Ok(found) if found == ["ok"] => Ok(()),
        Ok(_) | Err(_) => Err(damaged(entry, "SQLite's integrity check fails")),
    }
}

/// Brings the schema up to date, checks the ledger, raises the epochs.
async fn check_store(path: &Path) -> Result<(), BackupError> {
    let store = SqliteStore::open(path, 1).await?;
    let checked = async {
        let findings = store.audit().await?;
        if findings.is_empty() {
            raise_epochs(&store).await.map(|()| findings)
        } else {
            Ok(findings)
        }
    };
    let checked = checked.await;
    store.close().await?;
    match checked? {
        findings if findings.is_empty() => Ok(()),
        findings => Err(BackupError::Unsound(findings)),
    }
}

async fn raise_epochs(store: &SqliteStore) -> Result<(), StoreError> {
    store
        .write("restore.raise_epochs", |conn| {
            Box::pin(async move {
                let partitions: i64 = sqlx::query_scalar(
                    "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'partition')",
                )
                .fetch_one(&mut *conn)
                .await?;
                if partitions != 0 {
                    sqlx::query("UPDATE \"partition\" SET epoch = epoch + ?1")
                        .bind(EPOCHS)
                        .execute(conn)
                        .await?;
                }
                Ok(())
            })
        })
        .await
}

fn beside(data_dir: &Path, entry: &FileEntry) -> PathBuf {
    data_dir.join(format!("{}.restoring", entry.name))
}

fn damaged(entry: &FileEntry, why: &str) -> BackupError {
    BackupError::Damaged { file: entry.name.clone(), why: why.to_owned() }
}

/// Removes what was written: the directory was empty before. Best effort, since
/// the reason of the failure matters more.
fn clean(manifest: &Manifest, data_dir: &Path, made: bool) {
    for entry in &manifest.files {
        for suffix in ["", ".restoring", ".restoring-wal", ".restoring-shm"] {
            let _ = fs::remove_file(data_dir.join(format!("{}{suffix}", entry.name)));
        }
    }
    let _ = fs::remove_file(data_dir.join("lock"));
    if made {
        let _ = fs::remove_dir(data_dir);
    }
}
