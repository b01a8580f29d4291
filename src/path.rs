//! Tables of the served methods, by path.
//!
//! Each call is looked up in several of them. Their keys are the node's own and
//! fixed at its start, so nobody can choose keys that collide, and the hash need
//! not be one that resists that.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A table by path or by service name. Only for keys that the node itself has.
pub type PathMap<K, V> = HashMap<K, V, BuildHasherDefault<PathHasher>>;

/// Takes eight bytes at a time.
#[derive(Debug, Clone, Copy, Default)]
pub struct PathHasher(u64);

/// Odd, with bits set all over: 2^64 divided by the golden ratio.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

impl PathHasher {
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(FACTOR);
    }
}

impl Hasher for PathHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.add(u64::from_le_bytes(*word)));
        let rest = rest.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        self.add(rest);
    }

    /// Strings end with one.
    fn write_u8(&mut self, byte: u8) {
        self.add(u64::from(byte));
    }

    /// The table looks at the lowest bits, into which multiplying mixes little.
    fn finish(&self) -> u64 {
        self.0.rotate_left(26)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_differ_anywhere_differ_and_spread() {
        let hash = |path: &str| {
            let mut hasher = PathHasher::default();
            std::hash::Hash::hash(path, &mut hasher);
            hasher.finish()
        };
        let path = "/simpul.chat.v1.ChatService/SendMessage";
        let mut seen = std::collections::HashSet::from([hash(path)]);
        for at in 0..path.len() {
            let mut other = path.as_bytes().to_vec();
            other[at] ^= 1;
            assert!(seen.insert(hash(std::str::from_utf8(&other).expect("ASCII"))), "{at}");
            assert!(seen.insert(hash(&path[..at])), "{at}");
        }
        let low: std::collections::HashSet<u64> = seen.iter().map(|hash| hash & 127).collect();
        assert!(low.len() > 40, "{} of 128 places for {} paths", low.len(), seen.len());
    }
}
