//! The one name of a database file.
//!
//! Everything that keeps processes apart lies beside the file and is named after
//! it: our locks, and SQLite's log and index. Under two names of one file two
//! nodes would see nothing of each other, and each would undo what the other
//! wrote. Symbolic links are followed, so that all who come by one meet at the
//! same name. A hard link is a second name that is as good as the first, and so is
//! a mount of the file itself: such a file is refused.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use super::{directory, unusable};
use crate::store::StoreError;

/// The name under which all meet; the file need not be there yet.
pub(in crate::store::sqlite) fn resolve(path: &Path) -> Result<PathBuf, StoreError> {
    resolved(path).map_err(|error| unusable(path, &error))
}

/// Refuses a file with another name beside this one.
pub(in crate::store::sqlite) fn check(path: &Path) -> Result<(), StoreError> {
    match linked(path).map_err(|error| unusable(path, &error))? {
        Some(reason) => Err(StoreError::Version(format!("store.url: {reason}"))),
        None => Ok(()),
    }
}

/// Why the file cannot be used under this name; looks only. A file that is not
/// there yet has no name.
pub(crate) fn linked(path: &Path) -> io::Result<Option<String>> {
    let links = match std::fs::metadata(path) {
        Ok(found) => found.nlink(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if mount(path)? != mount(directory(path))? {
        return Ok(Some(format!(
            "the database file {} is a mount of its own: its log lies beside it and not beside \
             the file that is mounted, and two nodes could write it. Mount its folder",
            path.display()
        )));
    }
    Ok((links > 1).then(|| {
        format!(
            "the database file {} has {links} names (hard links); it must have one, or two nodes \
             could write it and lose what was acknowledged. Stop every node on it, find the names \
             with `find -samefile`, and remove all but the one with the newest -wal file beside it",
            path.display()
        )
    }))
}

/// The mount that something is seen through; 0 where the kernel does not tell,
/// which it does since Linux 5.8.
fn mount(path: &Path) -> io::Result<u64> {
    let seen = statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID)?;
    let told = StatxFlags::from_bits_retain(seen.stx_mask).contains(StatxFlags::MNT_ID);
    Ok(if told { seen.stx_mnt_id } else { 0 })
}

pub(super) fn resolved(path: &Path) -> io::Result<PathBuf> {
    match path.canonicalize() {
        // A link that leads nowhere is no place for a new file.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => {
            let name = path.file_name().ok_or(error)?;
            Ok(directory(path).canonicalize()?.join(name))
        }
        found => found,
    }
}
