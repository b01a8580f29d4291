//! Who uses the database file: one node alone, or several nodes of this machine
//! together.
//!
//! | file beside the database | what its lock means |
//! |---|---|
//! | `<database>.use` | held shared by each node that shares the file, exclusive by one that is alone on it |
//! | `<database>.queue`, `<database>.write` | whose turn it is to write ([`turn`]) |
//! | `nodes/<id>.lock` | the node's process runs ([`nodes`]) |
//!
//! All are locks of the kernel on open files: they end with the process, however
//! it ends, and never have to be cleaned up. They mean nothing on a network file
//! system, and neither does SQLite's shared memory ([`filesystem`]). And they mean
//! nothing unless all come by the same name ([`name`]).

mod filesystem;
pub(crate) mod name;
pub(super) mod nodes;
pub(super) mod turn;

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use self::nodes::NodeLocks;
use crate::store::StoreError;

/// How the file is used, for as long as this lives.
#[derive(Debug)]
pub(super) enum Usage {
    /// By whoever opens it: a tool, a test.
    Open,
    /// By one node alone.
    Alone {
        /// Held exclusive.
        _file: File,
    },
    /// By several nodes of this machine.
    Shared {
        /// Held shared.
        _file: File,
        /// Which nodes run.
        nodes: NodeLocks,
    },
}

impl Usage {
    /// Refuses while nodes share the file. The path is its one name ([`name::resolve`]).
    pub(super) fn alone(path: &Path) -> Result<Self, StoreError> {
        let (name, file) = usage_file(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Usage::Alone { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Unavailable(format!(
                "the database file is in use by another node, or shared by several; only a node \
                 with cluster.shared_file = true may join them ({} is locked)",
                name.display()
            ))),
            Err(TryLockError::Error(error)) => Err(unusable(&name, &error)),
        }
    }

    /// Refuses a file that a node has to itself. The path is its one name
    /// ([`name::resolve`]), on a file system of this machine ([`check_place`]).
    pub(super) fn shared(path: &Path) -> Result<Self, StoreError> {
        let (name, file) = usage_file(path)?;
        match file.try_lock_shared() {
            Ok(()) => Ok(Usage::Shared { _file: file, nodes: NodeLocks::beside(directory(path))? }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Unavailable(format!(
                "another node has the database file to itself: it runs without \
                 cluster.shared_file = true ({} is locked)",
                name.display()
            ))),
            Err(TryLockError::Error(error)) => Err(unusable(&name, &error)),
        }
    }

    /// The locks of nodes, where the file is shared.
    pub(super) fn nodes(&self) -> Option<&NodeLocks> {
        match self {
            Usage::Shared { nodes, .. } => Some(nodes),
            Usage::Open | Usage::Alone { .. } => None,
        }
    }
}

/// Refuses a place that nodes cannot share, before anything there is touched.
pub(super) fn check_place(path: &Path) -> Result<(), StoreError> {
    match unshareable(path).map_err(|error| unusable(directory(path), &error))? {
        Some(reason) => Err(StoreError::Version(format!("cluster.shared_file: {reason}"))),
        None => Ok(()),
    }
}

/// Why nodes cannot share this file, whatever they do; looks only. The folder is
/// asked for first as it was named: a file system that is far may not answer when
/// a name on it is followed.
pub(crate) fn unshareable(path: &Path) -> io::Result<Option<String>> {
    let told = |dir: &Path| {
        Ok(filesystem::refused(dir)?.map(|reason| {
            format!(
                "{} is on {reason}; nodes share a file on a local file system of one machine, \
                 and a database across machines (store.url)",
                dir.display()
            )
        }))
    };
    match told(directory(path))? {
        None => told(directory(&name::resolved(path)?)),
        refused => Ok(refused),
    }
}

fn usage_file(path: &Path) -> Result<(PathBuf, File), StoreError> {
    let name = beside(path, ".use");
    let file = lock_file(&name).map_err(|error| unusable(&name, &error))?;
    Ok((name, file))
}

/// The database's name with something after it.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Opens or makes a file whose lock alone matters.
fn lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn unusable(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Unavailable(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests;
