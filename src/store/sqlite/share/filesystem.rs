//! Which file systems nodes cannot share a file on.
//!
//! SQLite's write-ahead log needs memory that all its users share, and our locks
//! must reach every user and end with the process: a file system that other
//! machines, or a process in between, take part in promises neither.

use std::io;
use std::path::Path;

/// By the number that statfs gives, Linux's `magic.h`.
const REFUSED: [(u32, &str); 16] = [
    (0x0000_6969, "NFS, where locks and shared memory do not reach other machines"),
    (0x0000_517b, "SMB, where locks and shared memory do not reach other machines"),
    (0xff53_4d42, "CIFS, where locks and shared memory do not reach other machines"),
    (0xfe53_4d42, "SMB, where locks and shared memory do not reach other machines"),
    (0x6573_5546, "FUSE (sshfs and others), where nothing says what locks mean"),
    (0x0102_1997, "9p, a directory of another machine or of a virtual machine's host"),
    (0x786f_4256, "a folder of VirtualBox's host, whose locks do not reach the host"),
    (0xbacb_acbc, "a folder of VMware's host, whose locks do not reach the host"),
    (0x00c3_6400, "Ceph, a file system of several machines"),
    (0x5346_414f, "AFS, a file system of several machines"),
    (0x7375_7245, "Coda, a file system of several machines"),
    (0x0116_1970, "GFS2, a file system of several machines"),
    (0x7461_636f, "OCFS2, a file system of several machines"),
    (0x0bd0_0bd0, "Lustre, a file system of several machines"),
    (0x4750_4653, "GPFS, a file system of several machines"),
    (0x1983_0326, "BeeGFS, a file system of several machines"),
];

/// Why a directory is not one that nodes can share a file in; `None` when it is.
#[cfg(target_os = "linux")]
pub(super) fn refused(dir: &Path) -> io::Result<Option<&'static str>> {
    let stat = rustix::fs::statfs(dir)?;
    // The numbers have 32 bits; some systems give them with a sign.
    Ok(reason(stat.f_type as u32))
}

/// Other systems do not say it in one way.
#[cfg(not(target_os = "linux"))]
pub(super) fn refused(_: &Path) -> io::Result<Option<&'static str>> {
    Ok(None)
}

fn reason(kind: u32) -> Option<&'static str> {
    REFUSED.iter().find(|(number, _)| *number == kind).map(|(_, reason)| *reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_refused_with_their_reason_and_local_ones_are_not() {
        let local = [0x0000_ef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630, 0x2fc1_2fc1];
        for (kind, why) in REFUSED {
            assert_eq!(reason(kind), Some(why));
        }
        for kind in local {
            assert_eq!(reason(kind), None, "{kind:x}");
        }
        let mut numbers: Vec<_> = REFUSED.iter().map(|(number, _)| number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), REFUSED.len());
    }
}
