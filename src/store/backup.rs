//! A consistent copy of the embedded store, made while a node runs, and the way
//! back.
//!
//! A backup is a directory (0700) with a copy of each database and
//! `manifest.json`, written last: without it, or with a checksum that differs, it
//! is not restored. In it: payments, ledger, rooms and their messages, keys of
//! callers (`simpul.db`), the sandbox's books (`sandbox.db`). **Not** in it:
//! certificates, keys and tokens (`dev/`), configuration, the audit log, and the
//! node's id: a restored node is another node.
//!
//! `simpul.db` is copied first: whatever the sandbox charged for an operation
//! that the copy knows stands in the sandbox's later copy too, as it would with a
//! remote provider.

mod files;
mod manifest;
mod restore;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};

use self::manifest::{FileEntry, Manifest};
use super::StoreError;
use super::datadir::{self, DataDirError};
use super::sqlite::location;

pub use self::restore::restore;

/// The sandbox's books in the data directory.
pub const SANDBOX: &str = "sandbox.db";

/// What was copied.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Where it now is.
    pub path: PathBuf,
    /// When the backup was made, RFC 3339.
    pub made_at: String,
    /// Each database with its size and checksum.
    pub files: Vec<FileReport>,
}

/// One database of a backup.
#[derive(Debug, Clone, Serialize)]
pub struct FileReport {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
}

/// Why nothing was backed up or restored. What had been written is removed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The target of a backup is there already.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// There is no database to back up.
    #[error("{} is no database of a node", .0.display())]
    NoStore(PathBuf),
    /// A node runs on the target of a restore.
    #[error("a node runs in the data directory {}", .0.display())]
    Running(PathBuf),
    /// The target of a restore has files.
    #[error("the data directory {} is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// Not a whole backup, or one of a newer release.
    #[error("{} is no backup that this release can restore: {why}", .path.display())]
    NotABackup {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A copy is not what it was.
    #[error("{file} is damaged: {why}")]
    Damaged {
        /// The file in the backup.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// The ledger breaks its rules.
    #[error("the ledger in the backup is unsound: {}", .0.join("; "))]
    Unsound(Vec<String>),
    /// The database could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The data directory could not be looked at.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A file could not be read or written.
    #[error("{}: {error}", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Backs up the databases of a data directory into `to`, which must not exist.
/// A node may run in the directory or not.
pub async fn backup(data_dir: &Path, to: &Path) -> Result<Report, BackupError> {
    backup_store(&data_dir.join(location::FILE), data_dir, to).await
}

/// As [`backup`], with the store's database elsewhere than in the data
/// directory (`store.url`).
pub async fn backup_store(store: &Path, data_dir: &Path, to: &Path) -> Result<Report, BackupError> {
    if !store.is_file() {
        return Err(BackupError::NoStore(store.to_owned()));
    }
    let running = datadir::in_use(data_dir)?;
    files::make_dir(to)?;
    let copied = copy_all(store, data_dir, to, running).await;
    if copied.is_err() {
        // Only what was made here: the directory did not exist before.
        let _ = std::fs::remove_dir_all(to);
    }
    copied
}

async fn copy_all(
    store: &Path,
    data_dir: &Path,
    to: &Path,
    running: bool,
) -> Result<Report, BackupError> {
    let mut entries = vec![copy(store, to, location::FILE, running).await?];
    let sandbox = data_dir.join(SANDBOX);
    if sandbox.is_file() {
        entries.push(copy(&sandbox, to, SANDBOX, running).await?);
    }
    let manifest = Manifest::of(entries);
    manifest.write(to)?;
    files::sync_dir(to)?;
    if let Some(parent) = to.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        files::sync_dir(parent)?;
    }
    Ok(manifest.report(to))
}

/// One database in one read snapshot, without what was deleted from it.
async fn copy(from: &Path, to: &Path, name: &str, running: bool) -> Result<FileEntry, BackupError> {
    let target = to.join(name);
    files::make_file(&target)?;
    let mut connection = connect(from, running).await?;
    let text = target.to_string_lossy().into_owned();
    let vacuumed = sqlx::query("VACUUM INTO ?1").bind(text).execute(&mut connection).await;
    let closed = connection.close().await;
    vacuumed.map_err(StoreError::from)?;
    closed.map_err(StoreError::from)?;
    files::sync(&target)?;
    let schema = schema(&target).await?;
    let (bytes, sha256) = files::digest(target).await?;
    Ok(FileEntry { name: name.to_owned(), bytes, sha256, schema })
}

/// A running node's files are opened for reading only. Without one, SQLite may
/// have to bring the log of a killed node into order first, which writes.
async fn connect(path: &Path, read_only: bool) -> Result<SqliteConnection, BackupError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .read_only(read_only)
        .busy_timeout(Duration::from_secs(5));
    Ok(options.connect().await.map_err(StoreError::from)?)
}

/// The newest migration of a database.
async fn schema(path: &Path) -> Result<i64, BackupError> {
    let mut connection = connect(path, true).await?;
    let schema = super::sqlite::applied(&mut connection).await;
    connection.close().await.map_err(StoreError::from)?;
    Ok(schema?)
}
