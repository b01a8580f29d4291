//! The data directory: one node's own, by a file lock.
//!
//! | file | what |
//! |---|---|
//! | `lock` | locked while a node runs; the kernel lets go when the process ends, however it ends |
//! | `version` | the form of the directory; a newer one is refused |
//! | `node-id` | made once, kept |
//! | `incarnation` | raised at each start |
//! | `incarnations` | the newest ones under which the node took part in a cluster |
//! | `node.json` | where the running node is; for scripts and commands |
//! | `simpul.db`, `sandbox.db`, `dev/`, `audit.log` | their owners' |
//!
//! Files are replaced whole (written beside, fsynced, renamed), so that a crash
//! leaves the old one or the new one.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::id;

/// The form that this release writes.
pub const VERSION: u32 = 1;

/// How often, and how long apart, the lock is tried: a command that only looks
/// whether a node runs has it for a moment.
const TRIES: (u32, Duration) = (10, Duration::from_millis(50));

/// How many incarnations are remembered: a run may be declared dead, and begin
/// another, several times.
const INCARNATIONS: usize = 16;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another node has it.
    #[error("another node runs in the data directory {}", .0.display())]
    Locked(PathBuf),
    /// Made by a newer release.
    #[error(
        "the data directory {} has version {found}, newer than this release's {VERSION}",
        .path.display()
    )]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// A file holds what cannot be.
    #[error("{} does not hold {what}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// Reading or writing failed.
    #[error("{}: {error}", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl DataDirError {
    /// Whether nothing in the configuration is wrong: later it may work.
    pub fn is_temporary(&self) -> bool {
        matches!(self, DataDirError::Locked(_) | DataDirError::Io { .. })
    }
}

/// A node's own data directory; the lock is held until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    node_id: String,
    incarnation: u64,
    _lock: File,
}

/// What `node.json` tells: the addresses are those really bound.
#[derive(Debug, Clone, Serialize)]
pub struct NodeFile {
    /// The process.
    pub pid: u32,
    /// The node's stable id.
    pub node_id: String,
    /// How many times it started.
    pub incarnation: u64,
    /// gRPC for clients.
    pub public: SocketAddr,
    /// Node to node.
    pub mesh: Option<SocketAddr>,
    /// Probes and metrics.
    pub admin: SocketAddr,
    /// The bundle that proves the node to its clients.
    pub ca_file: Option<PathBuf>,
}

impl DataDir {
    /// Makes the directory (0700) or opens it, locks it, and counts a start.
    /// `node_id` is the configured one; without it the kept one, or a new one.
    pub fn open(path: &Path, node_id: Option<&str>) -> Result<Self, DataDirError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| failed(path, error))?;
        let path = path.canonicalize().map_err(|error| failed(path, error))?;
        let lock = lock(&path)?;
        check_version(&path)?;
        let node_id = match node_id {
            Some(id) => id.to_owned(),
            None => kept_id(&path)?,
        };
        let incarnation = next_incarnation(&path)?;
        let dir = Self { path, node_id, incarnation, _lock: lock };
        // What a killed node left points nowhere.
        dir.remove_node_file()?;
        Ok(dir)
    }

    /// The directory, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The node's stable id.
    pub fn node_id(&self) -> &str {
        &self.node_id
    }

    /// How many times a node started here, this time included.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Writes `node.json`: the node is ready at these addresses.
    pub fn write_node_file(
        &self,
        public: SocketAddr,
        mesh: Option<SocketAddr>,
        admin: SocketAddr,
        ca_file: Option<PathBuf>,
    ) -> Result<(), DataDirError> {
        let node = NodeFile {
            pid: std::process::id(),
            node_id: self.node_id.clone(),
            incarnation: self.incarnation,
            public,
            mesh,
            admin,
            ca_file,
        };
        let path = self.path.join("node.json");
        let mut text =
            serde_json::to_string_pretty(&node).map_err(|error| failed(&path, error.into()))?;
        text.push('\n');
        replace(&path, text.as_bytes())
    }

    /// The newest incarnations under which the node took part in a cluster,
    /// earlier runs' included, the newest last.
    pub fn incarnations(&self) -> Result<Vec<String>, DataDirError> {
        let text = read(&self.path.join("incarnations"))?.unwrap_or_default();
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Remembers one more; durable when this returns.
    pub fn remember(&self, incarnation: &str) -> Result<(), DataDirError> {
        let mut all = self.incarnations()?;
        all.push(incarnation.to_owned());
        let newest = all.len().saturating_sub(INCARNATIONS);
        let mut text = all.split_off(newest).join("\n");
        text.push('\n');
        replace(&self.path.join("incarnations"), text.as_bytes())
    }

    /// Removes `node.json`: the node takes no more calls.
    pub fn remove_node_file(&self) -> Result<(), DataDirError> {
        let path = self.path.join("node.json");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&path, error)),
            _ => Ok(()),
        }
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        // Best effort: the next start removes it too.
        let _ = self.remove_node_file();
    }
}

/// Whether a node runs in the directory.
pub fn in_use(path: &Path) -> Result<bool, DataDirError> {
    let file = path.join("lock");
    let lock = match File::open(&file) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed(&file, error)),
    };
    match lock.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(failed(&file, error)),
    }
}

/// Takes the directory for this process, until the file is dropped.
pub(super) fn lock(path: &Path) -> Result<File, DataDirError> {
    let file = path.join("lock");
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&file)
        .map_err(|error| failed(&file, error))?;
    for _ in 0..TRIES.0 {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) => std::thread::sleep(TRIES.1),
            Err(TryLockError::Error(error)) => return Err(failed(&file, error)),
        }
    }
    Err(DataDirError::Locked(path.to_owned()))
}

fn check_version(path: &Path) -> Result<(), DataDirError> {
    match look(path)? {
        true => Ok(()),
        false => replace(&path.join("version"), format!("{VERSION}\n").as_bytes()),
    }
}

/// Whether the directory has a version of its own, and one that this release
/// can use. Changes nothing.
pub fn look(path: &Path) -> Result<bool, DataDirError> {
    let file = path.join("version");
    let Some(text) = read(&file)? else { return Ok(false) };
    match text.trim().parse::<u32>() {
        Ok(found) if found > VERSION => Err(DataDirError::Newer { path: path.to_owned(), found }),
        Ok(_) => Ok(true),
        Err(_) => Err(DataDirError::Damaged { path: file, what: "a version" }),
    }
}

fn kept_id(path: &Path) -> Result<String, DataDirError> {
    let file = path.join("node-id");
    if let Some(text) = read(&file)? {
        let kept = text.trim().to_owned();
        return match id::is_short_name(&kept) {
            true => Ok(kept),
            false => Err(DataDirError::Damaged { path: file, what: "a node id" }),
        };
    }
    let made = format!("node-{:08x}", rand::random::<u32>());
    replace(&file, format!("{made}\n").as_bytes())?;
    Ok(made)
}

fn next_incarnation(path: &Path) -> Result<u64, DataDirError> {
    let file = path.join("incarnation");
    let last = match read(&file)? {
        None => 0,
        Some(text) => text.trim().parse::<u64>().map_err(|_| DataDirError::Damaged {
            path: file.clone(),
            what: "a number of starts",
        })?,
    };
    let next = last.saturating_add(1);
    replace(&file, format!("{next}\n").as_bytes())?;
    Ok(next)
}

fn read(file: &Path) -> Result<Option<String>, DataDirError> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(file, error)),
    }
}

/// Writes beside, fsyncs, renames, fsyncs the directory.
fn replace(file: &Path, content: &[u8]) -> Result<(), DataDirError> {
    let beside = file.with_extension("new");
    let written = || -> io::Result<()> {
        let mut new =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        new.write_all(content)?;
        new.sync_all()?;
        fs::rename(&beside, file)?;
        match file.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    };
    written().map_err(|error| failed(file, error))
}

fn failed(path: &Path, error: io::Error) -> DataDirError {
    DataDirError::Io { path: path.to_owned(), error }
}

#[cfg(test)]
mod tests;
