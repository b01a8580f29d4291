//! A disk of the database's own, of memory and small, so that it can be full.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::postgres::OWNER;

/// Enough for a run: the files of a new server take 40 MB, and `SETTINGS` of the
/// server keep its write-ahead log at 64 MB or a little more.
const MEGABYTES: u32 = 512;

/// What a server on it is started with.
pub const SETTINGS: [&str; 2] = ["max_wal_size=64MB", "min_wal_size=32MB"];

/// A file system of its own in a folder. Unmounted when dropped.
#[derive(Debug)]
pub struct Disk(PathBuf);

impl Disk {
    /// Mounts it on a folder that it makes; its files are the database's.
    pub fn mount(at: &Path) -> Disk {
        std::fs::create_dir_all(at).expect("a folder");
        let options = format!("size={MEGABYTES}m,mode=0700,uid={OWNER},gid={OWNER}");
        let mut mount = Command::new("mount");
        let status = mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).status();
        assert!(status.expect("mount").success(), "a tmpfs can be mounted");
        Disk(at.to_owned())
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Takes every byte that is left, again and again those that were freed.
    pub fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.ballast());
        let file = file.as_mut().expect("a file needs no space");
        for size in [1 << 20, 1 << 12] {
            let zeros = vec![0; size];
            let full = loop {
                if let Err(error) = file.write_all(&zeros) {
                    break error;
                }
            };
            assert_eq!(full.kind(), ErrorKind::StorageFull, "{full}");
        }
    }

    /// Gives it all back.
    pub fn empty(&self) {
        std::fs::remove_file(self.ballast()).expect("it was full");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that ends late must not keep it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
