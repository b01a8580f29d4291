//! One lock a node, held as long as its process runs: on one machine the kernel
//! knows better than any beat whether a node is alive.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{lock_file, unusable};
use crate::store::StoreError;

/// The directory beside the database.
const NODES: &str = "nodes";

/// How often, and how long apart, a lock is tried: whoever looks at a free one
/// has it for a moment.
const TRIES: (u32, Duration) = (10, Duration::from_millis(10));

/// The locks, and those of them that this process holds.
#[derive(Debug)]
pub(in crate::store::sqlite) struct NodeLocks {
    dir: PathBuf,
    held: Mutex<BTreeMap<String, File>>,
    /// Held while a node joins or is declared dead here: both look at a lock and
    /// then write.
    pub(in crate::store::sqlite) changing: tokio::sync::Mutex<()>,
}

impl NodeLocks {
    pub(super) fn beside(dir: &Path) -> Result<Self, StoreError> {
        let dir = dir.join(NODES);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.map_err(|error| unusable(&dir, &error))?;
        Ok(Self { dir, held: Mutex::default(), changing: tokio::sync::Mutex::default() })
    }

    /// Whether a process holds the node's lock, this one included.
    pub(in crate::store::sqlite) fn is_locked(&self, id: &str) -> Result<bool, StoreError> {
        if self.holds(id) {
            return Ok(true);
        }
        let path = self.path(id)?;
        let looked = match OpenOptions::new().read(true).open(&path) {
            // Shared, so that those who look do not see each other.
            Ok(file) => match file.try_lock_shared() {
                Ok(()) => Ok(false),
                Err(TryLockError::WouldBlock) => Ok(true),
                Err(TryLockError::Error(error)) => Err(error),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        };
        looked.map_err(|error| unusable(&path, &error))
    }

    /// Whether this process holds the node's lock.
    pub(in crate::store::sqlite) fn holds(&self, id: &str) -> bool {
        self.lock().contains_key(id)
    }

    /// The node's lock, until it is dropped; `None` when another process holds it.
    pub(in crate::store::sqlite) async fn take(
        &self,
        id: &str,
    ) -> Result<Option<File>, StoreError> {
        let path = self.path(id)?;
        for attempt in 0..TRIES.0 {
            if attempt > 0 {
                tokio::time::sleep(TRIES.1).await;
            }
            let file = lock_file(&path).map_err(|error| unusable(&path, &error))?;
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(unusable(&path, &error)),
            }
        }
        Ok(None)
    }

    /// Keeps a lock as long as the process runs, or until [`release`](Self::release).
    pub(in crate::store::sqlite) fn keep(&self, id: &str, lock: File) {
        self.lock().insert(id.to_owned(), lock);
    }

    /// Lets go of a node's lock, if this process holds it.
    pub(in crate::store::sqlite) fn release(&self, id: &str) {
        drop(self.lock().remove(id));
    }

    /// Lets go of all.
    pub(in crate::store::sqlite) fn release_all(&self) {
        self.lock().clear();
    }

    /// A node's id is a short name; anything else could leave the directory.
    fn path(&self, id: &str) -> Result<PathBuf, StoreError> {
        if !crate::id::is_short_name(id) {
            return Err(StoreError::Fault("a node's id is no short name".to_owned()));
        }
        Ok(self.dir.join(format!("{id}.lock")))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, File>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
