//! What one node knows of itself, as a tar archive compressed with gzip.
//!
//! Every part is a text that could stand in a log: ids, names, numbers, the
//! configuration with its secrets masked. A part that cannot be had says why in
//! its own place; the others come all the same. Bounded: each part is cut.

mod sections;

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::Parts;
use crate::proto::operate::v1 as pb;
use crate::refusal::{Reason, Refusal, Violations};

/// Rooms, unless it is said.
const ROOMS: u32 = 1_000;

/// The most rooms.
const MAX_ROOMS: u32 = 10_000;

/// The longest archive, bytes: `CollectBundleResponse` promises it.
const MAX_BUNDLE: usize = 16 * 1024 * 1024;

/// What the archive's own headers and text that does not compress may add, bytes.
const AROUND: usize = 64 * 1024;

/// How long the store and the cluster may take for their parts.
const PATIENCE: Duration = Duration::from_secs(5);

/// A file of the archive.
struct Part {
    name: &'static str,
    text: String,
}

/// A checked request.
pub(super) struct Wanted {
    max_rooms: usize,
}

impl Wanted {
    pub(super) fn of(request: &pb::CollectBundleRequest) -> Result<Self, Refusal> {
        let mut violations = Violations::new();
        let max = request.max_rooms;
        violations.check(max <= MAX_ROOMS, "max_rooms", || format!("must be 0 to {MAX_ROOMS}"));
        violations.finish()?;
        let max = if max == 0 { ROOMS } else { max };
        Ok(Self { max_rooms: usize::try_from(max).unwrap_or(usize::MAX) })
    }
}

/// The archive. Its folder is named after the node.
pub(super) async fn collect(parts: &Parts, wanted: Wanted) -> Result<Vec<u8>, Refusal> {
    let all = sections::all(parts, &wanted).await;
    let folder = format!("simpul-{}", parts.node_id);
    let packed = tokio::task::spawn_blocking(move || pack(&folder, all));
    match packed.await {
        Ok(Ok(bytes)) => Ok(bytes),
        // In memory: it fails only where a part's name is no file's name.
        _ => Err(Refusal::new(Reason::Internal, "the bundle could not be packed")),
    }
}

fn pack(folder: &str, parts: Vec<Part>) -> std::io::Result<Vec<u8>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    let longest = (MAX_BUNDLE - AROUND) / parts.len().max(1);
    for mut part in parts {
        if part.text.len() > longest {
            let mut end = longest;
            while !part.text.is_char_boundary(end) {
                end -= 1;
            }
            part.text.truncate(end);
            part.text.push_str("\n(cut here)\n");
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(part.text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(now);
        header.set_cksum();
        archive.append_data(
            &mut header,
            format!("{folder}/{}", part.name),
            part.text.as_bytes(),
        )?;
    }
    let mut gzip = archive.into_inner()?;
    gzip.flush()?;
    gzip.finish()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn parts_that_are_too_long_are_cut_and_say_so() {
        // Text that hardly compresses, and characters of two bytes.
        let noise: String = (0..MAX_BUNDLE / 8)
            .map(|n| format!("{:08x}", (n as u32).wrapping_mul(0x9e37_79b9) ^ n as u32))
            .collect();
        let parts = vec![
            Part { name: "long.txt", text: "é".repeat(MAX_BUNDLE / 2) },
            Part { name: "noise.txt", text: noise },
            Part { name: "short.txt", text: "short".to_owned() },
        ];
        let bytes = pack("simpul-n1", parts).expect("packed");
        assert!(bytes.len() <= MAX_BUNDLE, "{}", bytes.len());
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
        let mut found = Vec::new();
        for entry in archive.entries().expect("an archive") {
            let mut entry = entry.expect("an entry");
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("UTF-8");
            found.push((entry.path().expect("a path").display().to_string(), text));
        }
        assert_eq!(found[0].0, "simpul-n1/long.txt");
        let whole: usize = found.iter().map(|(_, text)| text.len()).sum();
        assert!(whole <= MAX_BUNDLE, "{whole}");
        assert!(found[..2].iter().all(|(_, text)| text.ends_with("(cut here)\n")));
        assert_eq!(found[2], ("simpul-n1/short.txt".to_owned(), "short".to_owned()));
    }
}
