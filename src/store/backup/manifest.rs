//! `manifest.json`: what a backup holds, and by which release.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{BackupError, FileReport, Report, SANDBOX, files};
use crate::store::sqlite::{location, newest};

/// The form that this release writes.
const FORMAT: u32 = 1;

const NAME: &str = "manifest.json";

/// What stands in the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Manifest {
    format: u32,
    simpul: String,
    pub(super) made_at: String,
    pub(super) files: Vec<FileEntry>,
}

/// One database.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct FileEntry {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) sha256: String,
    /// Its newest migration.
    pub(super) schema: i64,
}

impl Manifest {
    pub(super) fn of(files: Vec<FileEntry>) -> Self {
        Self {
            format: FORMAT,
            simpul: env!("CARGO_PKG_VERSION").to_owned(),
            made_at: jiff::Timestamp::now().to_string(),
            files,
        }
    }

    pub(super) fn write(&self, to: &Path) -> Result<(), BackupError> {
        let path = to.join(NAME);
        let written = || {
            let mut text = serde_json::to_vec_pretty(self)?;
            text.push(b'\n');
            Ok(text)
        };
        let text = written().map_err(|error| files::failed(&path, error))?;
        let mut file = files::make_file(&path)?;
        file.write_all(&text)
            .and_then(|()| file.sync_all())
            .map_err(|error| files::failed(&path, error))
    }

    /// Reads and checks what can be checked without the databases.
    pub(super) fn read(from: &Path) -> Result<Self, BackupError> {
        let refuse =
            |why: &str| BackupError::NotABackup { path: from.to_owned(), why: why.to_owned() };
        let text = fs::read(from.join(NAME)).map_err(|_| refuse("it has no manifest.json"))?;
        let format: Format =
            serde_json::from_slice(&text).map_err(|_| refuse("its manifest.json is damaged"))?;
        if format.format > FORMAT {
            return Err(refuse("a newer release made it"));
        }
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|_| refuse("its manifest.json is damaged"))?;
        let store = manifest.files.iter().find(|file| file.name == location::FILE);
        match store {
            None => return Err(refuse("it has no store")),
            Some(store) if store.schema > newest() => {
                return Err(refuse("a newer release made its store"));
            }
            Some(_) => {}
        }
        // Names become paths: only those that a backup gives.
        let named = |file: &FileEntry| file.name == location::FILE || file.name == SANDBOX;
        let mut names: Vec<_> = manifest.files.iter().map(|file| &file.name).collect();
        names.sort();
        names.dedup();
        if names.len() != manifest.files.len() || !manifest.files.iter().all(named) {
            return Err(refuse("it names files that no backup has"));
        }
        Ok(manifest)
    }

    pub(super) fn report(&self, path: &Path) -> Report {
        let file = |entry: &FileEntry| FileReport {
            name: entry.name.clone(),
            bytes: entry.bytes,
            sha256: entry.sha256.clone(),
        };
        Report {
            path: path.to_owned(),
            made_at: self.made_at.clone(),
            files: self.files.iter().map(file).collect(),
        }
    }
}

/// The one field that every form has.
#[derive(Debug, Deserialize)]
struct Format {
    format: u32,
}
