//! Files and directories of a backup: private, durable, summed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};

use super::BackupError;

const BUFFER: usize = 1 << 20;

/// A new directory that nobody else may read.
pub(super) fn make_dir(path: &Path) -> Result<(), BackupError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(BackupError::Exists(path.to_owned()))
        }
        made => made.map_err(|error| failed(path, error)),
    }
}

/// A new, empty file that nobody else may read.
pub(super) fn make_file(path: &Path) -> Result<File, BackupError> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.map_err(|error| failed(path, error))
}

/// Makes a file's content durable.
pub(super) fn sync(path: &Path) -> Result<(), BackupError> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|error| failed(path, error))
}

/// Makes a directory's names durable.
pub(super) fn sync_dir(path: &Path) -> Result<(), BackupError> {
    sync(path)
}

/// A file's size and SHA-256.
pub(super) async fn digest(path: PathBuf) -> Result<(u64, String), BackupError> {
    off_thread(path, |path| {
        let mut file = File::open(path)?;
        pump(&mut file, &mut io::sink())
    })
    .await
}

/// Copies into a new file and makes it durable; the size and SHA-256 of what
/// was copied.
pub(super) async fn copy(from: PathBuf, to: PathBuf) -> Result<(u64, String), BackupError> {
    off_thread(from, move |from| {
        let mut source = File::open(from)?;
        let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&to)?;
        let summed = pump(&mut source, &mut target)?;
        target.sync_all()?;
        Ok(summed)
    })
    .await
}

/// Whether a directory has nothing in it but what a file system puts there.
pub(super) fn is_empty(path: &Path) -> Result<bool, BackupError> {
    let entries = fs::read_dir(path).map_err(|error| failed(path, error))?;
    for entry in entries {
        let entry = entry.map_err(|error| failed(path, error))?;
        if entry.file_name() != "lost+found" {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) fn failed(path: &Path, error: io::Error) -> BackupError {
    BackupError::Io { path: path.to_owned(), error }
}

/// Big files are read apart from the runtime's threads.
async fn off_thread<T: Send + 'static>(
    path: PathBuf,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T, BackupError> {
    let shown = path.clone();
    let done = tokio::task::spawn_blocking(move || work(&path)).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|error| failed(&shown, error))
}

fn pump(from: &mut impl Read, to: &mut impl Write) -> io::Result<(u64, String)> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; BUFFER];
    let mut bytes = 0;
    loop {
        let read = from.read(&mut buffer)?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { break };
        context.update(part);
        to.write_all(part)?;
        bytes += part.len() as u64;
    }
    let digest = context.finish();
    Ok((bytes, digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()))
}
